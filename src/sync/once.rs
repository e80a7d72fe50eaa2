//! The raw `Once`: the state, without the initialiser that is to run once.
//!
//! ```text
//!   INCOMPLETE ──begin──▶ RUNNING, number ──the initialiser returns──▶ COMPLETE
//!                           ▲          │
//!                           │          ▼ it unwinds
//!                           └─begin─ POISONED
//! ```
//!
//! The number is that of the coroutine or thread that runs the initialiser ([`Holder`]). WAITERS beside
//! a state means: wake all waiters when the state changes.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Awaited, Awaiting, Awaits, Holder, Reason, WaitRequest, Waiting};
use super::lot::LotQueue;

/// The bits of the state. Zero is INCOMPLETE.
const STATE: u32 = 0b11;
/// The initialiser has unwound.
const POISONED: u32 = 1;
/// The initialiser runs. The number of the [`Holder`] is from NUMBER_SHIFT on.
const RUNNING: u32 = 2;
/// The initialiser has returned.
const COMPLETE: u32 = 3;

/// Waiters may be queued.
const WAITERS: u32 = 1 << 2;

/// Where the number of the holder begins.
const NUMBER_SHIFT: u32 = 3;
const _: () = assert!(NUMBER_SHIFT + Holder::BITS <= u32::BITS);

/// A raw `Once` of the size of its word.
#[derive(Debug)]
pub(crate) struct Once {
    word: AtomicU32,
}

/// Exclusive right to run the initialiser. Dropping this before `complete` poisons the `Once`.
pub(crate) struct Running<'a> {
    once: &'a Once,
    /// The state that the drop sets.
    end_state: u32,
    was_poisoned: bool,
}

/// Why the caller does not run the initialiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Poisoned,
    Complete,
}

impl Once {
    /// Makes one of a word that is zero. Not `new`: the models' words cannot be made in a constant.
    pub(super) const fn of(word: AtomicU32) -> Once {
        Once { word }
    }

    /// Whether the initialiser has returned. If so, the caller sees all that it wrote.
    #[inline]
    pub(crate) fn is_completed(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE == COMPLETE
    }

    /// Waits while the initialiser runs elsewhere, then gives the caller the right to run it.
    ///
    /// # Errors
    ///
    /// `Complete`, if the initialiser has returned. `Poisoned`, if it has unwound, unless
    /// `despite_poison`.
    #[cold]
    pub(crate) fn begin(&self, despite_poison: bool) -> Result<Running<'_>, Ended> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            match word & STATE {
                COMPLETE => return Err(Ended::Complete),
                POISONED if !despite_poison => return Err(Ended::Poisoned),
                RUNNING => word = self.wait_for_change(word),
                state => {
                    let running = RUNNING | Holder::current().number() << NUMBER_SHIFT;
                    match self.swap(word, running | word & WAITERS) {
                        Ok(_) => {
                            return Ok(Running {
                                once: self,
                                end_state: POISONED,
                                was_poisoned: state == POISONED,
                            });
                        }
                        Err(now) => word = now,
                    }
                }
            }
        }
    }

    /// Waits until the initialiser has returned, or, unless `despite_poison`, has unwound. Returns
    /// whether it has returned.
    pub(crate) fn wait(&self, despite_poison: bool) -> bool {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            match word & STATE {
                COMPLETE => return true,
                POISONED if !despite_poison => return false,
                _ => word = self.wait_for_change(word),
            }
        }
    }

    /// Waits until the word is not `word`, which may happen at once. Returns the word after that.
    fn wait_for_change(&self, word: u32) -> u32 {
        // The drop of `Running` wakes waiters if it finds WAITERS. So WAITERS is set first, and the caller
        // queues only if the word is still the same, which it looks at under the lock of the queue.
        let marked = word | WAITERS;
        if word == marked || self.swap(word, marked).is_ok() {
            let request = WaitRequest {
                holder: (word & STATE == RUNNING).then(|| Holder::of_number(word >> NUMBER_SHIFT)),
                ..WaitRequest::default()
            };
            let still = || self.word.load(Ordering::Relaxed) == marked;
            futex::park(&self.word, Awaiting::Described(self), request, still, || {});
        }
        self.word.load(Ordering::Acquire)
    }

    /// Changes the word from `word` to `new`.
    ///
    /// # Errors
    ///
    /// The word that was there instead.
    fn swap(&self, word: u32, new: u32) -> Result<u32, u32> {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Acquire)
    }
}

impl Awaited for Once {
    fn describe(&self) -> Awaits {
        let word = self.word.load(Ordering::Relaxed);
        let is_running = word & STATE == RUNNING;
        Awaits {
            holder: is_running.then_some(word >> NUMBER_SHIFT),
            ..Awaits::of(Reason::Once, self)
        }
    }
}

impl Running<'_> {
    /// Whether an earlier run of the initialiser has unwound.
    pub(crate) fn was_poisoned(&self) -> bool {
        self.was_poisoned
    }

    /// Says that the initialiser has returned.
    pub(crate) fn complete(mut self) {
        self.end_state = COMPLETE;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let word = &self.once.word;
        // Release: a caller that finds COMPLETE sees what the initialiser wrote.
        if word.swap(self.end_state, Ordering::AcqRel) & WAITERS != 0 {
            futex::with_waiters(
                word,
                |queue: &mut LotQueue<'_, Waiting>| {
                    while queue.wake_first().is_some() {}
                },
            );
        }
    }
}
