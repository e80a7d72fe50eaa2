//! The end of a task, as its joiner sees it.
//!
//! ```text
//!   0 ──await──▶ AWAITED ──finish──▶ AWAITED|DONE      the finisher wakes the waiters
//!   0 ──finish─▶ DONE                                  the joiner takes the result
//!   0 ──detach─▶ DETACHED ─finish─▶ DETACHED|DONE      the finisher drops the result
//! ```

use std::sync::atomic::{AtomicU8, Ordering};

use crate::park::Waiters;
use crate::task::Deadline;
use crate::task::word::{Kind, Outcome};

const DONE: u8 = 1;
const AWAITED: u8 = 2;
const DETACHED: u8 = 4;

/// Whether a task has finished, and who waits for that.
#[derive(Debug)]
pub(super) struct Completion {
    state: AtomicU8,
    waiters: Waiters,
}

impl Completion {
    pub(super) const fn new() -> Completion {
        Completion {
            state: AtomicU8::new(0),
            waiters: Waiters::new(),
        }
    }

    /// Whether the result is there. What the task did happened before.
    pub(super) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Waits for the result; returns whether it is there.
    pub(super) fn wait(&self, kind: Kind, deadline: Option<Deadline>) -> bool {
        if self.is_done() {
            return true;
        }
        let done = || self.state.fetch_or(AWAITED, Ordering::AcqRel) & DONE != 0;
        self.waiters.wait(kind, deadline, done) == Outcome::Woken
    }

    /// Declares that nobody will take the result; returns whether it is there already, and so is
    /// the caller's to drop.
    pub(super) fn detach(&self) -> bool {
        self.is_done() || self.state.fetch_or(DETACHED, Ordering::AcqRel) & DONE != 0
    }

    /// Publishes the result; returns whether nobody wants it, so that it is the caller's to drop.
    pub(super) fn finish(&self) -> bool {
        let before = self.state.fetch_or(DONE, Ordering::AcqRel);
        debug_assert!(before & DONE == 0, "a task finishes once");
        if before & AWAITED != 0 {
            self.waiters.wake_all();
        }
        before & DETACHED != 0
    }
}
