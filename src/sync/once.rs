//! What is to happen once, without what happens.
//!
//! ```text
//!   INCOMPLETE ──begin──▶ RUNNING, the holder ──end──▶ COMPLETE
//!                          ▲            │
//!                          └──begin── POISONED     it has unwound
//! ```
//!
//! WAITERS beside these has whoever changes them wake all that wait.

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Holder, Request};

const STATE: u32 = 0b11;
// Zero is INCOMPLETE.
const POISONED: u32 = 1;
const RUNNING: u32 = 2;
const COMPLETE: u32 = 3;

/// Somebody waits.
const WAITERS: u32 = 1 << 2;

/// Of the holder's number.
const SHIFT: u32 = 3;
const _: () = assert!(SHIFT + Holder::BITS <= u32::BITS);

#[derive(Debug)]
pub(crate) struct Once {
    word: AtomicU32,
}

/// The right, and the duty, to do what is to happen once. Dropped before it has: poisons.
pub(crate) struct Running<'a> {
    once: &'a Once,
    end: u32,
    was_poisoned: bool,
}

/// Why nobody is to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Poisoned,
    Complete,
}

impl Once {
    /// Of a word that is zero. (Of which the models can make none in a constant.)
    pub(super) const fn of(word: AtomicU32) -> Once {
        Once { word }
    }

    /// Whether it has happened, and all that it did is seen by the caller.
    #[inline]
    pub(crate) fn is_completed(&self) -> bool {
        self.word.load(Ordering::Acquire) & STATE == COMPLETE
    }

    /// Waits until nobody runs it, and has the caller run it; unless it is complete, or is poisoned
    /// and that counts.
    ///
    /// # Errors
    ///
    /// Which of both it is.
    ///
    /// # Unwinding
    ///
    /// Where a runtime shuts down, and nothing is left that could complete it.
    #[cold]
    pub(crate) fn begin(&self, despite_poison: bool) -> Result<Running<'_>, Ended> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            match word & STATE {
                COMPLETE => return Err(Ended::Complete),
                POISONED if !despite_poison => return Err(Ended::Poisoned),
                RUNNING => word = self.wait_for_change(word),
                state => {
                    let running = RUNNING | Holder::current().number() << SHIFT;
                    match self.swap(word, running | word & WAITERS) {
                        Ok(_) => {
                            return Ok(Running {
                                once: self,
                                end: POISONED,
                                was_poisoned: state == POISONED,
                            });
                        }
                        Err(now) => word = now,
                    }
                }
            }
        }
    }

    /// Waits until it is complete, or is poisoned and that counts; returns whether it is complete.
    ///
    /// # Unwinding
    ///
    /// As `begin`.
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

    /// Waits until the state is not that of `word`; returns the word then.
    fn wait_for_change(&self, word: u32) -> u32 {
        let waited_for = word | WAITERS;
        if word == waited_for || self.swap(word, waited_for).is_ok() {
            let request = Request {
                holder: (word & STATE == RUNNING).then(|| Holder::of_number(word >> SHIFT)),
                ..Request::default()
            };
            let still = || self.word.load(Ordering::Relaxed) == waited_for;
            futex::park(&self.word, request, still, || {});
        }
        self.word.load(Ordering::Acquire)
    }

    fn swap(&self, word: u32, new: u32) -> Result<u32, u32> {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Acquire)
    }
}

impl Running<'_> {
    /// Whether it was poisoned before.
    pub(crate) fn was_poisoned(&self) -> bool {
        self.was_poisoned
    }

    /// It has happened.
    pub(crate) fn complete(mut self) {
        self.end = COMPLETE;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let word = &self.once.word;
        if word.swap(self.end, Ordering::AcqRel) & WAITERS != 0 {
            let wake = |queue: &mut super::lot::Queue<'_, _>| {
                while queue.wake_first().is_some() {}
            };
            futex::with_waiters(word, wake);
        }
    }
}
