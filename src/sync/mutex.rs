//! The raw mutex: the lock without the data.
//!
//! ```text
//!   state        WAITERS      what it means
//!   FREE         never set    nobody has the lock
//!   held         or not       a caller has the lock; the word has its number
//!   RESERVED     or not       nobody has the lock; the word has the number of the waiter that is next
//!
//!   from                what happens                                            to
//!   FREE                `lock`                                                  held
//!   held                another `lock`, before its caller queues                held, WAITERS
//!   held                `unlock`                                                FREE
//!   held, WAITERS       `unlock` wakes the first waiter for the first time      FREE
//!   held, WAITERS       `unlock` wakes the first waiter, not for the first time RESERVED
//!   RESERVED            the waiter runs, or another caller loses patience       held
//! ```
//!
//! The number is that of a [`Holder`]: it tells coroutines of the same worker from others.
//!
//! An unlocker wakes the first waiter and frees the lock. A caller that comes before that waiter runs
//! takes the lock: most often the unlocker itself, which saves a switch. A waiter that was woken and finds
//! the lock taken waits again, at the front, and the next unlocker reserves the lock for it. So a
//! waiter waits for at most two turns of each waiter before it, and a coroutine that locks and unlocks
//! in a loop does not switch each time.
//!
//! # Nobody waits long for a lock that is free
//!
//! A coroutine that was woken runs when its worker gets to it. The worker may compute for seconds
//! before. So the unlocker also wakes the first waiter of each other owner (an owner is a worker, or
//! all OS threads together), until it has woken one that can run at once: see `lot.rs`. The waiter that
//! runs first takes the lock.
//!
//! The others wait for a reserved lock as if it were held, but not for long: see [`Patience`]. If the
//! reservation is for a coroutine of the caller's own worker, no deadline is needed: that coroutine is
//! in the worker's queue already, and runs before the caller does. If it cannot run while the caller
//! waits (the caller unwinds, or is the worker itself), the caller takes the lock.
//!
//! # No waiter is forgotten
//!
//! While waiters are queued, one of these holds:
//!
//! - WAITERS is set, so the next unlocker looks at the queue;
//! - a waiter was woken, has not tried yet, and was told that there are more.
//!
//! A waiter sets WAITERS first. Then it queues, under the lock of the queue, and only if WAITERS is
//! still set. An unlocker that wakes a waiter clears WAITERS under the same lock, and tells that
//! waiter if more are queued. The waiter sets WAITERS again: when it takes the lock, or before it
//! queues again.
//!
//! A waiter that was woken always tries: its wait is over, and it does not unwind. A waiter with a deadline
//! gives up only if its last wait has timed out. Before that wait it has set WAITERS, so what it was told
//! before is in the word. If its coroutine is
//! left behind before it runs, all waiters are woken instead (`futex::pass_on_wake`).

use crate::atomic::{AtomicU32, Ordering};

use super::attempt::{LockAttempt, NOTE_RETRY, Patience, TOLD_MORE, TOLD_RESERVED};
use super::futex::{self, Awaited, Awaiting, Awaits, Deadline, Holder, Parked, Reason};

/// Nobody has the lock, it is reserved for nobody, and WAITERS is not set.
const FREE: u32 = 0;
/// Waiters may be queued. The number of the [`Holder`] is above this bit.
const WAITERS: u32 = 1;
/// Nobody has the lock. The number is that of the waiter that is to have it next.
const RESERVED: u32 = 1 << 30;
const _: () = assert!(Holder::BITS < RESERVED.trailing_zeros());

// The note of a waiter is its number as a holder, above `NOTE_RETRY`, as in the word.
const _: () = assert!(NOTE_RETRY == WAITERS);

/// A raw mutex of the size of its word.
#[derive(Debug)]
pub(crate) struct Mutex {
    word: AtomicU32,
}

impl Mutex {
    /// Makes a mutex of a word that is zero. Not `new`: the models' words cannot be made in a constant.
    pub(super) const fn of(word: AtomicU32) -> Mutex {
        Mutex { word }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> bool {
        let held = held_by_caller();
        self.swap(FREE, held)
            || self.word.load(Ordering::Relaxed) & RESERVED != 0 && self.try_reserved(held)
    }

    /// Takes the lock if it is reserved. Fails if the reservation is for another coroutine of this
    /// worker that runs before the caller could wait for it.
    #[cold]
    fn try_reserved(&self, held: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let is_reserved = word & RESERVED != 0;
        is_reserved
            && futex::patience(Some(holder_of(word)), false) != Patience::Unlimited
            && self.swap(word, held | word & WAITERS)
    }

    /// The holder at the moment. `None` if nobody has the lock, even if it is reserved.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let word = self.word.load(Ordering::Relaxed);
        (word != FREE && word & RESERVED == 0).then(|| holder_of(word))
    }

    #[inline]
    pub(crate) fn lock(&self) {
        let held = held_by_caller();
        if !self.swap(FREE, held) {
            self.lock_contended(held, None);
        }
    }

    /// Like `lock`, until the deadline, which is only computed if the lock is taken. Returns whether it
    /// has locked.
    pub(crate) fn lock_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        let held = held_by_caller();
        self.swap(FREE, held) || self.lock_contended(held, deadline().as_ref())
    }

    /// # Safety
    ///
    /// The caller has locked the mutex.
    #[inline]
    pub(crate) unsafe fn unlock(&self) {
        let word = self.word.load(Ordering::Relaxed);
        let free = || {
            self.word
                .compare_exchange(word, FREE, Ordering::Release, Ordering::Relaxed)
        };
        // The exchange fails if a waiter sets WAITERS in between.
        if word & WAITERS != 0 || free().is_err() {
            self.unlock_contended();
        }
    }

    /// Returns false if the deadline has passed.
    #[cold]
    fn lock_contended(&self, held: u32, deadline: Option<&Deadline>) -> bool {
        let mut attempt = LockAttempt::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let is_reserved = word & RESERVED != 0;
            let holder = (word != FREE).then(|| holder_of(word));
            let patience = attempt.patience(is_reserved, holder);
            if word == FREE || patience == Patience::Over {
                let waiters = word & WAITERS | waiters_if(attempt.must_mark_waiters());
                if self.swap(word, held | waiters) {
                    return true;
                }
                continue;
            }
            if word & WAITERS == 0
                && (!is_reserved && attempt.spin(holder) || !self.swap(word, word | WAITERS))
            {
                continue;
            }
            let mut short = None;
            let request = attempt.wait_request(held, holder, patience, deadline, &mut short);
            // If WAITERS is still set, the lock is held or reserved, so the caller will be woken.
            // If the lock was unlocked and reserved meanwhile, or the other way round, `patience` is
            // out of date.
            let still = || {
                let now = self.word.load(Ordering::Relaxed);
                now & WAITERS != 0 && now & RESERVED == word & RESERVED
            };
            let parked = futex::park(&self.word, Awaiting::Described(self), request, still, || {});
            if parked == Parked::TimedOut && patience == Patience::Unlimited {
                // WAITERS may stay set without a waiter. The next unlocker sees to that.
                return self.swap(FREE, held);
            }
            attempt.record(parked);
        }
    }

    #[cold]
    fn unlock_contended(&self) {
        futex::with_waiters(&self.word, |queue| {
            let Some(first_note) = queue.wake_first() else {
                // The waiters have timed out.
                self.word.store(FREE, Ordering::Release);
                return;
            };
            let reserve = first_note & NOTE_RETRY != 0;
            if reserve {
                // Now, while only the first waiter is woken.
                queue.tell(TOLD_RESERVED);
            }
            queue.wake_of_other_owners();
            let more = !queue.is_empty();
            if reserve {
                // WAITERS stays set, so nobody needs to be told of more waiters.
                let reserved = RESERVED | first_note & !NOTE_RETRY | waiters_if(more);
                self.word.store(reserved, Ordering::Release);
            } else {
                self.word.store(FREE, Ordering::Release);
                queue.tell(if more { TOLD_MORE } else { 0 });
            }
        });
    }

    /// Changes the word from `word` to `new`, with which the caller takes the lock or marks it.
    #[inline]
    fn swap(&self, word: u32, new: u32) -> bool {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}

impl Awaited for Mutex {
    fn describe(&self) -> Awaits {
        Awaits {
            holder: self.holder().map(Holder::number),
            ..Awaits::of(Reason::Mutex, self)
        }
    }
}

/// The word of a lock that the caller holds and nobody waits for.
#[inline]
fn held_by_caller() -> u32 {
    Holder::current().number() << 1
}

/// The holder, or the waiter that the lock is reserved for. `word` is not FREE.
fn holder_of(word: u32) -> Holder {
    Holder::of_number((word & !RESERVED) >> 1)
}

fn waiters_if(more: bool) -> u32 {
    if more { WAITERS } else { 0 }
}
