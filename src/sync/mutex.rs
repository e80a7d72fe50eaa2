//! A lock for one, without what it guards.
//!
//! ```text
//!             lock                     another waits               unlock, nobody waits
//!   FREE ──────────────▶ the holder ────────────────▶ the holder ─┐  ─▶ FREE
//!     ▲                      │                          | WAITERS │
//!     ├──────unlock──────────┘                            ▲       │ unlock, the first waiter
//!     │                                                   │       │
//!     ├──────── is called: it tries again ────────────────┼───────┤
//!     │                                                   │       │
//!     └─ (| WAITERS, if it is told of others)             │       │ has been called before
//!                                                         │       ▼
//!                      it claims the lock, or another ────┴── RESERVED for it
//!                      takes it when it does not come
//! ```
//!
//! The unlocker calls the first that waits, and the lock is free until that one runs: a lock by
//! another one meanwhile, most often the unlocker itself, takes it without a switch. A waiter that
//! was called and comes too late waits again, before all others, and the next unlock reserves the
//! lock for it. So nobody waits for more than two turns of each before it, and a lock that is taken
//! and given back in a loop costs a switch now and then and not each time.
//!
//! # A free lock is not waited for long
//!
//! A coroutine that was called runs when its worker comes to it, and that may compute for seconds. So
//! the unlocker also calls the first waiter of each other owner (an owner is a worker, or all OS
//! threads), until it has called one that runs at once; see `lot.rs`. Whichever comes first has the
//! lock.
//!
//! A reservation is waited for like a holder, but only for `PATIENCE`: then it is void, and the lock
//! is taken. The worker of the one with the reservation needs no such deadline for the others that it
//! runs, since the former is in its queue already; and where it could not run at all meanwhile (the
//! caller unwinds, or is the worker itself), there is nothing to wait for.
//!
//! # Nobody is forgotten
//!
//! While somebody is queued, WAITERS is set, or somebody who was called is on its way, and was told
//! of those behind it. WAITERS is set before one queues, which happens only if it still is, under the
//! lock of the queue. It goes under the same lock, by whoever then calls the first. That one sets it
//! again: as holder, if it was told that there are more; or because it has to wait.
//!
//! A waiter that was called cannot be kept from trying: its wait is over, and does not unwind. If its
//! coroutine is left behind before it runs, all that wait are called.

use crate::atomic::{AtomicU32, Ordering};

use super::attempt::{Attempt, CALLED, CLAIM, MORE, Patience};
use super::futex::{self, Holder};

const FREE: u32 = 0;
/// Somebody waits. The number of the holder is above it.
const WAITERS: u32 = 1;
/// Nobody has it, but the number is that of a waiter which is to have it next.
const RESERVED: u32 = 1 << 30;
const _: () = assert!(Holder::BITS < RESERVED.trailing_zeros());

// The note of a waiter is its number as a holder, above `CALLED`.

/// A lock. Its size is that of its word.
#[derive(Debug)]
pub(crate) struct Mutex {
    word: AtomicU32,
}

impl Mutex {
    /// Of a word that is zero. (Of which the models can make none in a constant.)
    pub(super) const fn of(word: AtomicU32) -> Mutex {
        Mutex { word }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        let held = Holder::current().number() << 1;
        self.swap(FREE, held)
            || self.word.load(Ordering::Relaxed) & RESERVED != 0 && self.try_reserved(held)
    }

    /// Takes the lock though it is reserved, unless that is for another coroutine of this worker.
    #[cold]
    fn try_reserved(&self, held: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let reserved = word & RESERVED != 0;
        reserved
            && futex::patience(Some(holder_of(word)), false) != Patience::Unlimited
            && self.swap(word, held | word & WAITERS)
    }

    /// The holder, at the moment. None if it is only reserved.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let word = self.word.load(Ordering::Relaxed);
        (word != FREE && word & RESERVED == 0).then(|| holder_of(word))
    }

    #[inline]
    pub(crate) fn lock(&self) {
        let held = Holder::current().number() << 1;
        if !self.swap(FREE, held) {
            self.lock_contended(held);
        }
    }

    /// # Safety
    ///
    /// The caller has locked it.
    #[inline]
    pub(crate) unsafe fn unlock(&self) {
        let word = self.word.load(Ordering::Relaxed);
        let free = || {
            self.word
                .compare_exchange(word, FREE, Ordering::Release, Ordering::Relaxed)
        };
        if word & WAITERS != 0 || free().is_err() {
            self.unlock_contended();
        }
    }

    #[cold]
    fn lock_contended(&self, held: u32) {
        let mut attempt = Attempt::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let reserved = word & RESERVED != 0;
            let holder = (word != FREE).then(|| holder_of(word));
            let patience = attempt.patience(reserved, holder);
            if word == FREE || patience == Patience::Over {
                let others = waiters_if(attempt.knows_of_more());
                if self.swap(word, held | word & WAITERS | others) {
                    return;
                }
                continue;
            }
            if word & WAITERS == 0
                && (!reserved && attempt.spin(holder) || !self.swap(word, word | WAITERS))
            {
                continue;
            }
            let request = attempt.request(held, holder, patience);
            // It is held then, or reserved as it was, or WAITERS would have gone.
            let still = || {
                let now = self.word.load(Ordering::Relaxed);
                now & WAITERS != 0 && now & RESERVED == word & RESERVED
            };
            attempt.note(futex::park(&self.word, request, still, || {}));
        }
    }

    #[cold]
    fn unlock_contended(&self) {
        futex::with_waiters(&self.word, |queue| {
            let Some(first) = queue.wake_first() else {
                self.word.store(FREE, Ordering::Release);
                return;
            };
            let is_reserved = first & CALLED != 0;
            if is_reserved {
                queue.tell(CLAIM);
            }
            queue.wake_of_other_owners();
            let more = !queue.is_empty();
            if is_reserved {
                let reserved = RESERVED | first & !CALLED | waiters_if(more);
                self.word.store(reserved, Ordering::Release);
            } else {
                self.word.store(FREE, Ordering::Release);
                queue.tell(if more { MORE } else { 0 });
            }
        });
    }

    #[inline]
    fn swap(&self, word: u32, new: u32) -> bool {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

/// Of a lock that is not free: who has it, or is to have it next.
fn holder_of(word: u32) -> Holder {
    Holder::of_number((word & !RESERVED) >> 1)
}

fn waiters_if(more: bool) -> u32 {
    if more { WAITERS } else { 0 }
}
