//! The raw reader-writer lock: the lock without the data.
//!
//! The word is in one of these states, each with WAITERS beside it or without.
//!
//! ```text
//!   FREE            nobody has the lock
//!   n readers       the count, in steps of READER
//!   WRITE, number   a writer has the lock; the number is the writer's ([`Holder`])
//!   RESERVED, number    nobody has the lock; the waiter with this number may take it next
//! ```
//!
//! All waiters of a lock are in one queue. While WAITERS is set no new reader joins the readers, so
//! writers do not starve. A writer that unlocks wakes all readers at the front of the queue together,
//! so readers do not starve either. The rest is as in `mutex.rs`, and so is the proof that no waiter
//! is forgotten. A waiter that was woken tries to take the lock, and so does the first waiter of each
//! other owner, which is woken as well. A waiter that comes too late queues again. When it is woken the
//! next time, the lock is reserved, for a moment, for this waiter and the readers woken with it.
//!
//! ```text
//!   n readers|WAITERS ──the last one unlocks──▶ WAITERS ──under the lock of the queue──▶ WRITE|WAITERS
//!                                                  │                                        │ wakes
//!                                     a reader that was woken joins                         ▼
//!                                                  └──────▶ 1 reader|WAITERS        FREE or RESERVED
//! ```
//!
//! The last reader to unlock, if it finds WAITERS, becomes a writer for as long as it takes to wake the
//! next waiters. If a reader that was woken earlier joins first, that reader will be the last one
//! instead.
//!
//! A waiter takes the lock itself, when it runs; no unlocker takes the lock for a waiter. So of several
//! readers that were woken, the first may have locked and unlocked, and a writer may have taken the lock,
//! before the second one runs.

use crate::atomic::{AtomicU32, Ordering};

use super::attempt::{LockAttempt, NOTE_RETRY, Patience, TOLD_MORE, TOLD_RESERVED};
use super::futex::{self, Awaited, Awaiting, Awaits, Deadline, Holder, Parked, Reason, Waiting};
use super::lot::LotQueue;

/// Nobody has the lock, it is reserved for nobody, and WAITERS is not set.
const FREE: u32 = 0;
/// Waiters may be queued.
const WAITERS: u32 = 1;
/// One reader. With WRITE: the lowest bit of the number.
const READER: u32 = 1 << 1;
/// The bits that count readers; also the largest count.
const READERS: u32 = WRITE - READER;
/// A writer has the lock. Its number is in the bits above WAITERS.
const WRITE: u32 = 1 << 31;
/// Nobody has the lock. The number is that of the waiter that is to have it next. WRITE is set too, so
/// that nobody else takes the lock.
const RESERVED: u32 = WRITE | 1 << 30;
const _: () = assert!(Holder::BITS < 30);

// The note of a waiter is its number as a holder, in the bits of the word, with NOTE_RETRY and this:
/// The waiter wants to write.
const NOTE_WRITER: u32 = 1 << 31;
const _: () = assert!(NOTE_RETRY == WAITERS);

/// A raw lock of the size of its word.
#[derive(Debug)]
pub(crate) struct RwLock {
    word: AtomicU32,
}

/// How a caller wants to lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl RwLock {
    /// Makes a lock of a word that is zero. Not `new`: the models' words cannot be made in a constant.
    pub(super) const fn of(word: AtomicU32) -> RwLock {
        RwLock { word }
    }

    /// Also fails if there are as many readers as can be counted.
    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        self.try_join() || self.is_reserved() && self.try_reserved(Access::Read)
    }

    /// Joins the readers, unless a writer has the lock or there are waiters.
    #[inline]
    fn try_join(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        // A word with WRITE is more than READERS.
        while word & WAITERS == 0 && word < READERS {
            match self.swap(word, word + READER) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn is_reserved(&self) -> bool {
        self.word.load(Ordering::Relaxed) & RESERVED == RESERVED
    }

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        self.try_free() || self.is_reserved() && self.try_reserved(Access::Write)
    }

    /// Takes the lock as a writer, if it is free.
    #[inline]
    fn try_free(&self) -> bool {
        self.swap(FREE, WRITE | number_of_caller()).is_ok()
    }

    /// Takes the lock if it is reserved. Fails if the reservation is for another coroutine of this
    /// worker that runs before the caller could wait for it.
    #[cold]
    fn try_reserved(&self, access: Access) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let is_reserved = word & RESERVED == RESERVED;
        is_reserved
            && futex::patience(Some(holder_of(word)), false) != Patience::Unlimited
            && self
                .swap(word, access.taken(word, number_of_caller()))
                .is_ok()
    }

    /// # Panics
    ///
    /// If there are more readers than can be counted.
    #[inline]
    pub(crate) fn read(&self) {
        if !self.try_join() {
            self.lock_contended(Access::Read, None);
        }
    }

    /// Like `read`, until the deadline, which is only computed if the lock is taken. Returns whether it has
    /// locked.
    ///
    /// # Panics
    ///
    /// If there are more readers than can be counted.
    pub(crate) fn read_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        self.try_join() || self.lock_contended(Access::Read, deadline().as_ref())
    }

    #[inline]
    pub(crate) fn write(&self) {
        if !self.try_free() {
            self.lock_contended(Access::Write, None);
        }
    }

    /// Like `write`, until the deadline, which is only computed if the lock is taken. Returns whether it
    /// has locked.
    pub(crate) fn write_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        self.try_free() || self.lock_contended(Access::Write, deadline().as_ref())
    }

    /// # Safety
    ///
    /// The caller has locked this as a reader.
    #[inline]
    pub(crate) unsafe fn unlock_read(&self) {
        let before = self.word.fetch_sub(READER, Ordering::Release);
        // One reader and WAITERS: this was the last reader, and must wake the waiters. If WAITERS is
        // set only after this, the waiter that sets it finds the lock free and takes it.
        if before == READER | WAITERS {
            self.unlock_read_contended();
        }
    }

    /// # Safety
    ///
    /// The caller has locked this as a writer.
    #[inline]
    pub(crate) unsafe fn unlock_write(&self) {
        if !self.leave_write(FREE) {
            futex::with_waiters(&self.word, |queue| self.wake_next(queue));
        }
    }

    /// Makes the writer a reader.
    ///
    /// # Safety
    ///
    /// The caller has locked this as a writer.
    pub(crate) unsafe fn downgrade(&self) {
        if self.leave_write(READER) {
            return;
        }
        futex::with_waiters(&self.word, |queue| {
            while wake_reader(queue) {}
            // WAITERS stays set if a writer is queued: then only the readers woken here join.
            self.word
                .store(READER | waiters_if(!queue.is_empty()), Ordering::Release);
        });
    }

    /// Changes the word from a writer without WAITERS to `new`. Fails if there are waiters.
    #[inline]
    fn leave_write(&self, new: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & WAITERS == 0
            && self
                .word
                .compare_exchange(word, new, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    }

    /// Returns false if the deadline has passed.
    #[cold]
    fn lock_contended(&self, access: Access, deadline: Option<&Deadline>) -> bool {
        let number = number_of_caller();
        let mut attempt = LockAttempt::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let is_reserved = word & RESERVED == RESERVED;
            let holder = (word & WRITE != 0).then(|| holder_of(word));
            let patience = attempt.patience(is_reserved, holder);
            if access.is_possible(word, attempt.was_woken()) || patience == Patience::Over {
                let taken = access.taken(word, number) | waiters_if(attempt.must_mark_waiters());
                if self.swap(word, taken).is_ok() {
                    return true;
                }
                continue;
            }
            if word & WAITERS == 0
                && (!is_reserved && attempt.spin(holder)
                    || self.swap(word, word | WAITERS).is_err())
            {
                continue;
            }
            let (note, mut short) = (access.note(number), None);
            let request = attempt.wait_request(note, holder, patience, deadline, &mut short);
            // If the caller still cannot take the lock, and WAITERS is still set, somebody will wake
            // the caller: the writer, the last reader, or the waiter with the reservation. If the lock
            // was unlocked and reserved meanwhile, or the other way round, `patience` is out of date.
            let still = || {
                let now = self.word.load(Ordering::Relaxed);
                let is_reserved_now = now & RESERVED == RESERVED;
                now & WAITERS != 0
                    && !access.is_possible(now, attempt.was_woken())
                    && is_reserved_now == is_reserved
            };
            let parked = futex::park(&self.word, Awaiting::Described(self), request, still, || {});
            if parked == Parked::TimedOut && patience == Patience::Unlimited {
                self.make_up_for_one_less();
                return match access {
                    Access::Read => self.try_join(),
                    Access::Write => self.try_free(),
                };
            }
            attempt.record(parked);
        }
    }

    /// Called when a waiter has given up. It may have been the only reason why readers had to wait, while
    /// other readers have the lock.
    #[cold]
    fn make_up_for_one_less(&self) {
        futex::with_waiters(&self.word, |queue| {
            if self.word.load(Ordering::Relaxed) & WRITE == 0 {
                while wake_reader(queue) {}
            }
            if queue.is_empty() {
                // Waiters queue under the lock of the queue, and only if WAITERS is still set.
                self.word.fetch_and(!WAITERS, Ordering::Relaxed);
            }
        });
    }

    #[cold]
    fn unlock_read_contended(&self) {
        futex::with_waiters(&self.word, |queue| {
            // Fails if a reader that was woken has joined: that one unlocks later.
            if self
                .swap(WAITERS, WRITE | number_of_caller() | WAITERS)
                .is_ok()
            {
                self.wake_next(queue);
            }
        });
    }

    /// Unlocks for the caller, which has the lock as a writer, and wakes the waiters that are first.
    fn wake_next(&self, queue: &mut LotQueue<'_, Waiting>) {
        let Some(first_note) = queue.wake_first() else {
            // The waiters have timed out.
            self.word.store(FREE, Ordering::Release);
            return;
        };
        if first_note & NOTE_WRITER == 0 {
            // Readers do not exclude each other, so all that are at the front may go together.
            while wake_reader(queue) {}
        }
        let reserve = first_note & NOTE_RETRY != 0;
        if reserve {
            // Now, before waiters of other owners are woken.
            queue.tell(TOLD_RESERVED);
        }
        queue.wake_of_other_owners();
        let more = !queue.is_empty();
        if reserve {
            // If there are more waiters, WAITERS stays set, so the woken waiters need not be told.
            let number = first_note & !(NOTE_WRITER | NOTE_RETRY);
            self.word
                .store(RESERVED | number | waiters_if(more), Ordering::Release);
        } else {
            self.word.store(FREE, Ordering::Release);
            queue.tell(if more { TOLD_MORE } else { 0 });
        }
    }

    /// Changes the word from `word` to `new`, with which the caller takes the lock or marks it.
    ///
    /// # Errors
    ///
    /// The word that was there instead.
    #[inline]
    fn swap(&self, word: u32, new: u32) -> Result<u32, u32> {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Relaxed)
    }
}

impl Access {
    /// Whether the caller may take the lock. `was_woken` is whether an unlocker has woken the caller.
    fn is_possible(self, word: u32, was_woken: bool) -> bool {
        match self {
            // WAITERS keeps new readers out, but not those that have queued for their turn.
            Access::Read => word & WRITE == 0 && (word & WAITERS == 0 || was_woken),
            Access::Write => word == FREE,
        }
    }

    /// The word after the caller, which has `number`, has taken the lock. `word` is the one before: it is
    /// reserved, or `is_possible` holds for it.
    fn taken(self, word: u32, number: u32) -> u32 {
        match self {
            Access::Read if word & WRITE == 0 => one_more_reader(word),
            // The lock is reserved: the caller is the first reader.
            Access::Read => READER | word & WAITERS,
            Access::Write => WRITE | number | word & WAITERS,
        }
    }

    fn note(self, number: u32) -> u32 {
        match self {
            Access::Read => number,
            Access::Write => NOTE_WRITER | number,
        }
    }
}

impl Awaited for RwLock {
    fn describe(&self) -> Awaits {
        let word = self.word.load(Ordering::Relaxed);
        let is_written = word & WRITE != 0 && word & RESERVED != RESERVED;
        let readers = if word & WRITE == 0 {
            (word & READERS) / READER
        } else {
            0
        };
        Awaits {
            holder: is_written.then(|| holder_of(word).number()),
            detail: (readers > 0).then(|| format!("{readers} readers have it")),
            ..Awaits::of(Reason::RwLock, self)
        }
    }
}

/// The writer, or the waiter that the lock is reserved for. `word` has WRITE.
fn holder_of(word: u32) -> Holder {
    Holder::of_number((word & !RESERVED) / READER)
}

/// Wakes the first waiter if it is a reader; returns whether it was.
fn wake_reader(queue: &mut LotQueue<'_, Waiting>) -> bool {
    let is_reader = |note| note & NOTE_WRITER == 0;
    queue.wake_first_if(is_reader).is_some()
}

fn one_more_reader(word: u32) -> u32 {
    assert!(word & READERS != READERS, "too many readers of one lock");
    word + READER
}

/// The caller's number as a holder, in the bits where the word and the notes have it.
#[inline]
fn number_of_caller() -> u32 {
    Holder::current().number() * READER
}

fn waiters_if(more: bool) -> u32 {
    if more { WAITERS } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn with_the_most_readers_try_read_fails_and_read_panics() {
        let lock = RwLock::of(AtomicU32::new(READERS - READER));
        assert!(lock.try_read());
        assert!(!lock.try_read());
        assert!(!lock.try_write());
        assert!(catch_unwind(|| lock.read()).is_err());
        // SAFETY: `try_read` has locked it above.
        unsafe { lock.unlock_read() };
        lock.read();
        assert!(!lock.try_read());
    }
}
