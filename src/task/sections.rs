//! Sections of code whose switches to other coroutines are counted, in debug builds.
#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::{Current, aside, lock_aside};
use crate::sys::switches::own_lock;

/// The sections that a task is in.
#[derive(Default)]
pub(super) struct Sections(Mutex<Vec<Arc<Section>>>);

/// What was counted in a section.
#[derive(Default)]
pub(crate) struct Section {
    switches: AtomicUsize,
    first: OnceLock<Backtrace>,
}

impl Section {
    /// Calls `f` as a section of the calling task. Returns what `f` returns, and what was counted.
    pub(crate) fn count<R>(f: impl FnOnce() -> R) -> (R, Arc<Section>) {
        /// Leaves the section when dropped, also by an unwind.
        struct Leave(Current);
        impl Drop for Leave {
            fn drop(&mut self) {
                lock_aside(&self.0.sections.0).pop();
            }
        }

        let section = Arc::new(Section::default());
        let task = Current::get();
        lock_aside(&task.sections.0).push(Arc::clone(&section));
        let left = Leave(task);
        let result = f();
        drop(left);
        (result, section)
    }

    /// How often the task has switched to other coroutines.
    pub(crate) fn switches(&self) -> usize {
        self.switches.load(Ordering::Relaxed)
    }

    /// The stack at the first switch.
    pub(crate) fn first(&self) -> Option<&Backtrace> {
        self.first.get()
    }
}

/// Counts a switch of the calling task, which is about to be suspended, in its sections.
pub(crate) fn count_switch() {
    let task = Current::get();
    // The wait has begun, and this allocates. A wait of the allocator must be the thread's, not this task's.
    aside(|| {
        for section in &*own_lock(&task.sections.0) {
            section.switches.fetch_add(1, Ordering::Relaxed);
            section.first.get_or_init(Backtrace::force_capture);
        }
    });
}
