//! A wait of a task, for the threads that may end it.

use std::ptr::NonNull;

use super::Task;
use super::word::{Outcome, Seq};

/// The task to wake, and the wait that it is to be woken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    task: NonNull<Task>,
    seq: Seq,
}

// SAFETY: `Task` is `Sync`, so any thread may use it. The unsafe methods below demand that it exists.
unsafe impl Send for Waiting {}
// SAFETY: it is immutable, and a copy is all that a shared one gives.
unsafe impl Sync for Waiting {}

impl Waiting {
    pub(crate) fn new(task: &Task, seq: Seq) -> Waiting {
        Waiting {
            task: NonNull::from(task),
            seq,
        }
    }

    /// Ends the wait, since its event has come. Returns `None` if the wait has ended otherwise.
    ///
    /// # Safety
    ///
    /// The task does not leave the frame in which it waits before this returns, so the task exists.
    #[inline]
    pub(crate) unsafe fn end(self) -> Option<Woken> {
        // SAFETY: the caller promises that the task is still in the frame in which it waits.
        let ended = unsafe { self.task.as_ref() }
            .word
            .wake(self.seq, Outcome::Woken);
        ended.then_some(Woken(self.task))
    }

    /// Whether the task would run as soon as it is scheduled. An estimate.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait, and the task has not been scheduled yet.
    #[inline]
    pub(crate) unsafe fn runs_at_once(self) -> bool {
        // SAFETY: the caller promises that the wait has ended and that the task was not scheduled yet. Until
        // then a task exists.
        unsafe { self.task.as_ref() }.runs_at_once()
    }

    /// The right to schedule the task.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait by other means, and gets no other `Woken` for that.
    #[inline]
    pub(crate) unsafe fn ended(self) -> Woken {
        Woken(self.task)
    }
}

/// The right, and the duty, to schedule a task after its wait was ended. There is only one for each wait.
#[must_use]
#[derive(Debug)]
pub(crate) struct Woken(NonNull<Task>);

impl Woken {
    #[inline]
    pub(crate) fn schedule(self) {
        // SAFETY: the task's wait has ended, and only this may schedule the task. So it is suspended, and
        // exists, until this does.
        unsafe { self.0.as_ref() }.schedule();
    }
}
