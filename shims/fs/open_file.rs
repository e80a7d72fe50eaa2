//! The descriptor of an open file, with what is known about the file.
#![forbid(unsafe_code)]

use std::fs;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};

use super::file_system::Nature;
use crate::pool::unblock_borrowed;
use crate::reactor::Descriptor;
use crate::task;

/// An open file. If a coroutine drops the file, and closing may wait, the pool closes the file: some file
/// systems write when a file is closed.
pub(super) struct OpenFile {
    /// `Some` until the drop.
    descriptor: Option<Descriptor<fs::File>>,
    /// The number of the file's [`Nature`], or 0 while that is not known.
    nature: AtomicU8,
}

impl OpenFile {
    /// Wraps a file that was just opened in blocking mode.
    pub(super) fn new(file: fs::File, nature: Nature) -> OpenFile {
        OpenFile {
            descriptor: Some(Descriptor::fresh(file)),
            nature: AtomicU8::new(nature.to_number()),
        }
    }

    /// Wraps a file that came from elsewhere.
    pub(super) fn foreign(file: fs::File) -> OpenFile {
        OpenFile {
            descriptor: Some(Descriptor::foreign(file)),
            nature: AtomicU8::new(0),
        }
    }

    /// Wraps a duplicate of this file.
    pub(super) fn share(&self, duplicate: fs::File) -> OpenFile {
        OpenFile {
            descriptor: Some(self.descriptor().share(duplicate)),
            nature: AtomicU8::new(self.nature.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn descriptor(&self) -> &Descriptor<fs::File> {
        self.descriptor
            .as_ref()
            .expect("the descriptor is there until the drop")
    }

    /// The nature of the file. If its file system is not known yet, the pool asks.
    pub(super) fn nature(&self) -> Nature {
        let known = Nature::from_number(self.nature.load(Ordering::Relaxed));
        known.unwrap_or_else(|| {
            let nature = Nature::of(self.get().as_fd());
            self.nature.store(nature.to_number(), Ordering::Relaxed);
            nature
        })
    }

    /// See [`Descriptor::give_away`].
    pub(super) fn give_away(mut self) -> fs::File {
        let descriptor = self.descriptor.take();
        descriptor
            .expect("the descriptor is there until the drop")
            .give_away()
    }

    /// Whether closing does not wait.
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
