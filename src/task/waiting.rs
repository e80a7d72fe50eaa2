//! A wait of a task, as those see it who may end it.

use std::ptr::NonNull;

use super::Task;
use super::word::{Outcome, Seq};

/// Whom to wake, and from which wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    task: NonNull<Task>,
    seq: Seq,
}

// SAFETY: a task may be used by any thread, while it is there: see `end`.
unsafe impl Send for Waiting {}

impl Waiting {
    pub(crate) fn new(task: &Task, seq: Seq) -> Waiting {
        Waiting {
            task: NonNull::from(task),
            seq,
        }
    }

    /// Ends the wait, whose event has come, unless it has ended otherwise.
    ///
    /// # Safety
    ///
    /// The task has not left the frame in which it waits, and does not before this returns; so it is
    /// there.
    #[inline]
    pub(crate) unsafe fn end(self) -> Option<Woken> {
        // SAFETY: the caller's promise.
        let ended = unsafe { self.task.as_ref() }
            .word
            .wake(self.seq, Outcome::Woken);
        ended.then_some(Woken(self.task))
    }

    /// Whether the task runs as soon as it is scheduled, as far as can be seen.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait, and the task is not scheduled yet.
    #[inline]
    pub(crate) unsafe fn runs_at_once(self) -> bool {
        // SAFETY: the caller's promise; so the task is there.
        unsafe { self.task.as_ref() }.runs_at_once()
    }

    /// The task, to be scheduled.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait, and has nothing else to schedule it by.
    #[inline]
    pub(crate) unsafe fn ended(self) -> Woken {
        Woken(self.task)
    }
}

/// A task whose wait was ended, and which nobody but the holder of this can make run again.
#[must_use]
#[derive(Debug)]
pub(crate) struct Woken(NonNull<Task>);

impl Woken {
    #[inline]
    pub(crate) fn schedule(self) {
        // SAFETY: the task waits until it is scheduled, so it is there; this happens once.
        unsafe { self.0.as_ref() }.schedule();
    }
}
