//! The descriptor of a file, and what is known of it.

use std::fs;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use super::file_system::Nature;
use crate::pool::unblock_borrowed;
use crate::reactor::Descriptor;
use crate::task;

/// A file as its shim has it. Dropped by a coroutine, it is closed on the pool if its file system may
/// keep that waiting, as one that writes when a file is closed.
pub(super) struct OpenFile {
    /// Is there until this is dropped.
    descriptor: Option<Descriptor<fs::File>>,
    /// The number of its nature, or 0.
    nature: AtomicU8,
}

impl OpenFile {
    /// Of a file that was just opened, in blocking mode.
    pub(super) fn new(file: fs::File, nature: Nature) -> OpenFile {
        OpenFile {
            descriptor: Some(Descriptor::fresh(file)),
            nature: AtomicU8::new(nature.to_number()),
        }
    }

    /// Of one that came from elsewhere.
    pub(super) fn foreign(file: fs::File) -> OpenFile {
        OpenFile {
            descriptor: Some(Descriptor::foreign(file)),
            nature: AtomicU8::new(0),
        }
    }

    /// Of a duplicate of this one.
    pub(super) fn share(&self, duplicate: fs::File) -> OpenFile {
        OpenFile {
            descriptor: Some(self.descriptor().share(duplicate)),
            nature: AtomicU8::new(self.nature.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn descriptor(&self) -> &Descriptor<fs::File> {
        self.descriptor.as_ref().expect("is there until the drop")
    }

    /// What it leads to; where nothing is known of its file system, the pool asks.
    pub(super) fn nature(&self) -> Nature {
        let known = Nature::from_number(self.nature.load(Ordering::Relaxed));
        known.unwrap_or_else(|| {
            let nature = Nature::of(self.get().as_fd());
            self.nature.store(nature.to_number(), Ordering::Relaxed);
            nature
        })
    }

    pub(super) fn into_inner(mut self) -> fs::File {
        let descriptor = self.descriptor.take();
        descriptor.expect("is there until the drop").into_inner()
    }

    fn is_closed_at_once(&self) -> bool {
        let number = self.nature.load(Ordering::Relaxed);
        let known = Nature::from_number(number).or_else(|| Nature::known(self.get().as_fd()));
        matches!(known, Some(Nature::Pipe | Nature::Local(_)))
    }
}

impl Deref for OpenFile {
    type Target = Descriptor<fs::File>;

    fn deref(&self) -> &Descriptor<fs::File> {
        self.descriptor()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.descriptor.is_none() || !task::on_coroutine() || self.is_closed_at_once() {
            return;
        }
        if let Some(descriptor) = self.descriptor.take() {
            let file = descriptor.into_inner();
            unblock_borrowed(move || drop(file));
        }
    }
}
