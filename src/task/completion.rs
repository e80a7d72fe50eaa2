//! The end of a task, as its joiner sees it.
//!
//! ```text
//!   0 ──await──▶ AWAITED ──finish──▶ AWAITED|DONE      the finisher ends the joiner's wait;
//!       ◀─leave─                        └─▶ |LET_GO    if the joiner leaves after that, sets LET_GO
//!   0 ──finish─▶ DONE                                  the joiner takes the result
//!   0 ──detach─▶ DETACHED ─finish─▶ DETACHED|DONE      the finisher drops the result
//! ```
//!
//! A task has one joiner, which waits at most once at a time. A finisher that finds AWAITED uses the
//! joiner's wait, which lies in the joiner's frame. So if the wait ends otherwise (by a deadline or
//! an interrupt), the joiner must take AWAITED back before it leaves that frame. If it finds DONE then, the
//! finisher is using the wait, though it cannot end it any more. The joiner then stays until the
//! finisher has set LET_GO. That takes a few instructions, unless the finisher's thread is preempted.
//!
//! # Joining several tasks
//!
//! A joiner may wait for several tasks at once: it registers the same [`Joiner`] with all of them. That
//! counts down how many have yet to finish, and the finisher that counts the last one ends the wait. So the
//! joiner is woken once. It does not know which finishers still use the wait, so it leaves all tasks, also
//! if the wait was ended by one of them. For that, each of these finishers sets LET_GO; the one that
//! ends the wait does so before it wakes the joiner.
//!
//! # Joining by a future
//!
//! A future is a joiner of this kind, for one task, without a wait: the finisher takes its waker (see
//! `awaiter`), sets LET_GO, and calls the waker. The future leaves before it registers another waker.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering, yield_now};

/// The task has finished, and its result is there.
const DONE: u8 = 1;
/// The joiner waits; `wait` points to its wait.
const AWAITED: u8 = 2;
/// Nothing will take the result.
const DETACHED: u8 = 4;
/// The finisher does not use the joiner's wait any more. Only set if the joiner leaves.
const LET_GO: u8 = 8;

/// Whether a task has finished, and the joiner's wait for that, of type `W`.
#[derive(Debug)]
pub(crate) struct Completion<W> {
    state: AtomicU8,
    joiner: AtomicPtr<Joiner<W>>,
}

impl<W> Completion<W> {
    pub(crate) fn new() -> Completion<W> {
        Completion {
            state: AtomicU8::new(0),
            joiner: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Whether the result is there. If so, everything the task did has happened before.
    pub(crate) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) & DONE != 0
    }

    /// Registers `joiner`, whose wait has begun, to be ended by [`finish`](Completion::finish). Returns
    /// false if the result is there already, so that `finish` will not use the joiner.
    ///
    /// If the wait then ends otherwise, or `joiner` waits for several tasks, the caller must
    /// [`leave`](Completion::leave).
    #[must_use]
    pub(crate) fn await_by(&self, joiner: *const Joiner<W>) -> bool {
        self.joiner.store(joiner.cast_mut(), Ordering::Relaxed);
        // The release makes `joiner` visible to the finisher.
        self.state.fetch_or(AWAITED, Ordering::AcqRel) & DONE == 0
    }

    /// Takes the registered joiner back, after its wait has ended. When this returns, nothing uses it.
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

    /// Publishes the result. If the joiner waits, calls `arrive`, which calls [`Joiner::arrive`]; and then
    /// `wake`, if that has ended the joiner's wait.
    ///
    /// Returns whether nothing will take the result, so that the caller must drop it.
    // Always inlined, as is `arrive`: each end of a coroutine is one call of these.
    #[inline(always)]
    pub(crate) fn finish<R>(
        &self,
        arrive: impl FnOnce(*const Joiner<W>) -> Arrival<R>,
        wake: impl FnOnce(R),
    ) -> bool {
        let before = self.state.fetch_or(DONE, Ordering::AcqRel);
        debug_assert!(before & DONE == 0, "a task finishes once");
        if before & AWAITED != 0 {
            let ended = match arrive(self.joiner.load(Ordering::Relaxed)) {
                Arrival::Alone(ended) => Some(ended),
                Arrival::Left(ended) => {
                    self.state.fetch_or(LET_GO, Ordering::Release);
                    ended
                }
            };
            if let Some(ended) = ended {
                wake(ended);
            }
        }
        before & DETACHED != 0
    }
}

/// A wait for the end of one task, or of several. Lies in the frame of the joiner.
#[derive(Debug)]
pub(crate) struct Joiner<W> {
    pub(crate) wait: W,
    /// For several tasks: how many of them have to finish until the wait is ended. Wraps around if more
    /// do.
    missing: Option<AtomicUsize>,
}

/// What a finisher has done with a joiner's wait. `R` is the right to wake the joiner.
#[must_use]
#[derive(Debug)]
pub(crate) enum Arrival<R> {
    /// Ended the wait, which was for its task alone. The joiner does not leave.
    Alone(R),
    /// Did or did not end the wait, and the joiner leaves.
    Left(Option<R>),
}

impl<W> Joiner<W> {
    /// That of a wait for one task.
    pub(crate) fn of_one(wait: W) -> Joiner<W> {
        Joiner {
            wait,
            missing: None,
        }
    }

    /// That of a wait until `missing` more tasks have finished. Not zero.
    pub(crate) fn of_several(wait: W, missing: usize) -> Joiner<W> {
        Joiner {
            wait,
            missing: Some(AtomicUsize::new(missing)),
        }
    }

    /// Counts a task as finished. If that was the last one to wait for, calls `end`, which ends the wait,
    /// unless that has ended otherwise.
    #[inline(always)]
    pub(crate) fn arrive<R>(&self, end: impl FnOnce(&W) -> Option<R>) -> Arrival<R> {
        match &self.missing {
            None => end(&self.wait).map_or(Arrival::Left(None), Arrival::Alone),
            Some(missing) => {
                // Whoever counts the last one has acquired the ends of the others, for the joiner.
                let is_last = missing.fetch_sub(1, Ordering::AcqRel) == 1;
                Arrival::Left(is_last.then(|| end(&self.wait)).flatten())
            }
        }
    }
}
