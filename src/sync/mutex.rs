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
//!     └─ (| WAITERS, if it is told of others)             └───────┘ has been called once: it has the lock
//! ```
//!
//! Who unlocks calls the first that waits, and the lock is free until that one runs: whoever comes
//! meanwhile, most often the one that has just unlocked, takes it without a switch. Who was called
//! and comes too late waits again, before all others, and is then handed the lock. So nobody waits
//! for more than two turns of each before it, and a lock that is taken and given back in a loop costs
//! a switch now and then and not each time.
//!
//! # Nobody is forgotten
//!
//! While somebody is queued, WAITERS is set, or somebody who was called is on its way, and was told
//! of those behind it. WAITERS is set before one queues, which happens only if it still is, under the
//! lock of the queue. It goes under the same lock, by whoever then calls the first. That one sets it
//! again: as holder, if it was told that there are more; or because it has to wait.
//!
//! Who was called cannot be kept from trying: its wait is over, and does not unwind. If its coroutine is
//! leaked before it runs, all who wait are called.

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Holder, Interrupted, Parked, Request};
use super::spin;

const FREE: u32 = 0;
/// Somebody waits. The number of the holder is above it.
const WAITERS: u32 = 1;

/// In the note of a waiter: it was called before. Its number as a holder is above it.
const CALLED: u32 = 1;

// What one that is called is told.
/// It may try again.
const TRY: u32 = 0;
/// As `TRY`; and others wait behind it.
const TRY_FOR_MORE: u32 = 1;
/// It has the lock.
const HANDED_OVER: u32 = 2;

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
        let taken = self
            .word
            .compare_exchange(FREE, held, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok()
    }

    /// The holder, at the moment.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let word = self.word.load(Ordering::Relaxed);
        (word != FREE).then(|| Holder::of_number(word >> 1))
    }

    /// # Unwinding
    ///
    /// Where a runtime shuts down and nothing is left that could unlock.
    #[inline]
    pub(crate) fn lock(&self) {
        if !self.try_lock() && self.lock_contended() == Err(Interrupted) {
            futex::unwind_if_possible();
            // A destructor: it can only go on waiting.
            self.lock_whatever_happens();
        }
    }

    /// As `lock`, but does not unwind; returns whether it would have.
    pub(crate) fn lock_whatever_happens(&self) -> bool {
        let mut interrupted = false;
        while !self.try_lock() && self.lock_contended() == Err(Interrupted) {
            interrupted = true;
        }
        interrupted
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
    fn lock_contended(&self) -> Result<(), Interrupted> {
        let own = Holder::current().number() << 1;
        let mut called = false;
        let mut others = 0;
        let mut looks = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == FREE {
                if self.swap(word, own | others) {
                    return Ok(());
                }
                continue;
            }
            let holder = Holder::of_number(word >> 1);
            if word & WAITERS == 0 {
                if !called && spin::once(&mut looks, Some(holder)) {
                    continue;
                }
                if !self.swap(word, word | WAITERS) {
                    continue;
                }
            }
            let request = Request {
                note: own | if called { CALLED } else { 0 },
                in_front: called,
                holder: Some(holder),
                ..Request::default()
            };
            // It is held then, or WAITERS would have gone.
            let still = || self.word.load(Ordering::Relaxed) & WAITERS != 0;
            match futex::park(&self.word, request, still, || {}) {
                Parked::Woken(HANDED_OVER) => return Ok(()),
                Parked::Woken(token) => {
                    called = true;
                    others = if token == TRY_FOR_MORE { WAITERS } else { 0 };
                }
                Parked::Changed => {}
                Parked::TimedOut => unreachable!("there is no deadline"),
                // It was not called, and leaves nobody behind that it would have to call.
                Parked::Interrupted => return Err(Interrupted),
            }
        }
    }

    #[cold]
    fn unlock_contended(&self) {
        futex::with_waiters(&self.word, |queue| {
            let Some(first) = queue.wake_first() else {
                self.word.store(FREE, Ordering::Release);
                return;
            };
            let more = !queue.is_empty();
            if first & CALLED != 0 {
                let others = if more { WAITERS } else { 0 };
                self.word.store(first & !CALLED | others, Ordering::Release);
                queue.tell(HANDED_OVER);
            } else {
                self.word.store(FREE, Ordering::Release);
                queue.tell(if more { TRY_FOR_MORE } else { TRY });
            }
        });
    }

    fn swap(&self, word: u32, new: u32) -> bool {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}
