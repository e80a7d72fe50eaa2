//! What waits for the end of a task: another task, or a future.

use std::task::Waker;

use super::{Waiting, Woken};
use crate::atomic::{Mutex, own_lock};

/// What a joiner has registered, to be told by the finisher: see `completion`.
#[derive(Debug)]
pub(crate) enum Awaiter {
    /// A task, by its wait.
    Task(Waiting),
    /// A future, by the waker of its last poll. `None` once the finisher has taken it.
    Future(Mutex<Option<Waker>>),
}

/// The right, and the duty, to tell the joiner.
#[must_use]
#[derive(Debug)]
pub(crate) enum Told {
    Task(Woken),
    /// Foreign code, which is to be called without locks.
    Future(Waker),
}

impl Awaiter {
    /// Ends the wait of a task, or takes the waker of a future. Returns `None` if the wait has ended otherwise.
    ///
    /// # Safety
    ///
    /// As [`Waiting::end`], if a task waits.
    #[inline(always)]
    pub(crate) unsafe fn end(&self) -> Option<Told> {
        match self {
            // SAFETY: the caller promises the same.
            Awaiter::Task(waiting) => unsafe { waiting.end() }.map(Told::Task),
            Awaiter::Future(waker) => own_lock(waker).take().map(Told::Future),
        }
    }
}
