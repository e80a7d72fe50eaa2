//! The end of a task, as its joiner sees it.
//!
//! ```text
//!   0 ──await──▶ AWAITED ──finish──▶ AWAITED|DONE      the finisher ends the joiner's wait ...
//!       ◀─leave─                        └─▶ |LET_GO    ... or, where that has ended, lets go of it
//!   0 ──finish─▶ DONE                                  the joiner takes the result
//!   0 ──detach─▶ DETACHED ─finish─▶ DETACHED|DONE      the finisher drops the result
//! ```
//!
//! There is one joiner, and it waits at most once at a time. Whoever finishes the task and finds it
//! AWAITED uses what the joiner left here, which lies in its frame. So a joiner whose
//! wait ends otherwise (by a deadline, an interrupt) takes AWAITED back before it goes. Finds it
//! DONE then, the finisher is at it, and cannot end the wait any more: the joiner stays until the
//! finisher has let go, which is a few instructions away, unless its thread is preempted there.

use crate::atomic::{AtomicPtr, AtomicU8, Ordering, yield_now};

const DONE: u8 = 1;
const AWAITED: u8 = 2;
const DETACHED: u8 = 4;
const LET_GO: u8 = 8;

/// Whether a task has finished, and who waits for that, by a wait of type `W`.
#[derive(Debug)]
pub(crate) struct Completion<W> {
    state: AtomicU8,
    wait: AtomicPtr<W>,
}

impl<W> Completion<W> {
    pub(crate) fn new() -> Completion<W> {
        Completion {
            state: AtomicU8::new(0),
            wait: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Whether the result is there. What the task did happened before.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Has `finish` end `wait`, which has begun; returns false if the result is there already, so
    /// that nobody will. A wait that then ends otherwise must [`leave`](Completion::leave).
    #[must_use]
    pub(crate) fn await_by(&self, wait: *const W) -> bool {
        self.wait.store(wait.cast_mut(), Ordering::Relaxed);
        self.state.fetch_or(AWAITED, Ordering::AcqRel) & DONE == 0
    }

    /// The joiner's wait has ended otherwise. After this, nobody uses it.
    pub(crate) fn leave(&self) {
        let before = self.state.fetch_and(!AWAITED, Ordering::AcqRel);
        while before & DONE != 0 && self.state.load(Ordering::Acquire) & LET_GO == 0 {
            yield_now();
        }
    }

    /// Declares that nobody will take the result; returns whether it is there already, and so is
    /// the caller's to drop, if it has not been taken.
    pub(crate) fn detach(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        // Only the handle detaches, one call after the other.
        state & DETACHED == 0
            && (state & DONE != 0 || self.state.fetch_or(DETACHED, Ordering::AcqRel) & DONE != 0)
    }

    /// Whether nobody will take the result. If not, that may change before `finish`.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.state.load(Ordering::Relaxed) & DETACHED != 0
    }

    /// Publishes the result, and calls `end` with the joiner's wait, if there is one; it returns
    /// whether that lasted. Returns whether nobody wants the result, so that it is the caller's to
    /// drop.
    pub(crate) fn finish(&self, end: impl FnOnce(*const W) -> bool) -> bool {
        let before = self.state.fetch_or(DONE, Ordering::AcqRel);
        debug_assert!(before & DONE == 0, "a task finishes once");
        if before & AWAITED != 0 && !end(self.wait.load(Ordering::Relaxed)) {
            self.state.fetch_or(LET_GO, Ordering::Release);
        }
        before & DETACHED != 0
    }
}
