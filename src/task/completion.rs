//! The end of a task, as its joiner sees it.
//!
//! ```text
//!   0 ──await──▶ AWAITED ──finish──▶ AWAITED|DONE      the finisher ends the joiner's wait;
//!       ◀─leave─                        └─▶ |LET_GO    if that wait has ended already, sets LET_GO
//!   0 ──finish─▶ DONE                                  the joiner takes the result
//!   0 ──detach─▶ DETACHED ─finish─▶ DETACHED|DONE      the finisher drops the result
//! ```
//!
//! A task has one joiner, which waits at most once at a time. A finisher that finds AWAITED uses the
//! joiner's wait, which lies in the joiner's frame. So if the wait ends otherwise (by a deadline or
//! an interrupt), the joiner must take AWAITED back before it leaves that frame. If it finds DONE then, the
//! finisher is using the wait, though it cannot end it any more. The joiner then stays until the
//! finisher has set LET_GO. That takes a few instructions, unless the finisher's thread is preempted.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicPtr, AtomicU8, Ordering, yield_now};

/// The task has finished, and its result is there.
const DONE: u8 = 1;
/// The joiner waits; `wait` points to its wait.
const AWAITED: u8 = 2;
/// Nothing will take the result.
const DETACHED: u8 = 4;
/// The finisher does not use the joiner's wait any more. Only set if that wait had ended otherwise.
const LET_GO: u8 = 8;

/// Whether a task has finished, and the joiner's wait for that, of type `W`.
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

    /// Whether the result is there. If so, everything the task did has happened before.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Registers `wait`, which has begun, to be ended by [`finish`](Completion::finish). Returns false if
    /// the result is there already, so that the wait will not be ended.
    ///
    /// If the wait then ends otherwise, the caller must [`leave`](Completion::leave).
    #[must_use]
    pub(crate) fn await_by(&self, wait: *const W) -> bool {
        self.wait.store(wait.cast_mut(), Ordering::Relaxed);
        // The release makes `wait` visible to the finisher.
        self.state.fetch_or(AWAITED, Ordering::AcqRel) & DONE == 0
    }

    /// Takes the registered wait back, after it has ended otherwise. When this returns, nothing uses it.
    pub(crate) fn leave(&self) {
        let before = self.state.fetch_and(!AWAITED, Ordering::AcqRel);
        while before & DONE != 0 && self.state.load(Ordering::Acquire) & LET_GO == 0 {
            yield_now();
        }
    }

    /// Declares that nothing will take the result. Returns whether it is there already, so that the
    /// caller must drop it (unless it has been taken).
    pub(crate) fn detach(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        // Only the handle detaches, one call after the other, so DETACHED cannot change in between.
        state & DETACHED == 0
            && (state & DONE != 0 || self.state.fetch_or(DETACHED, Ordering::AcqRel) & DONE != 0)
    }

    /// Whether nothing will take the result. False may become true until `finish`.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.state.load(Ordering::Relaxed) & DETACHED != 0
    }

    /// Publishes the result. If the joiner waits, calls `end` with its wait; `end` returns whether it has
    /// ended that wait.
    ///
    /// Returns whether nothing will take the result, so that the caller must drop it.
    pub(crate) fn finish(&self, end: impl FnOnce(*const W) -> bool) -> bool {
        let before = self.state.fetch_or(DONE, Ordering::AcqRel);
        debug_assert!(before & DONE == 0, "a task finishes once");
        if before & AWAITED != 0 && !end(self.wait.load(Ordering::Relaxed)) {
            self.state.fetch_or(LET_GO, Ordering::Release);
        }
        before & DETACHED != 0
    }
}
