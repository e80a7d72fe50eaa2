//! A lock for one writer or many readers, without what it guards.
//!
//! The word is FREE, or the number of readers, or WRITE and the number of the holder; with WAITERS
//! beside it while somebody is queued, or, as in `mutex.rs`, was called and told of others.
//!
//! All wait in one queue. While WAITERS is set nobody joins the readers, so that a writer's turn
//! comes; and since a writer calls all readers that stand first, so does theirs. The rest is as in
//! `mutex.rs`: those who are called try again, with one of each other owner; a lock that is free is
//! reserved for one that was called and came too late (and the readers behind it), for a moment.
//!
//! ```text
//!   n readers | WAITERS ──the last unlocks──▶ WAITERS ──under the lock of the queue──▶ WRITE | WAITERS
//!                                                │                                         │ calls
//!                                     a reader that was called joins                       ▼
//!                                                └──────▶ 1 reader | WAITERS         FREE, or RESERVED
//! ```
//!
//! The last reader that finds WAITERS becomes a writer for as long as it takes to call the next. If
//! a reader that was called before has joined meanwhile, that one has become the last.
//!
//! Nobody is given the lock before it runs. So of several readers that are called the first may have
//! come and gone, and a writer taken the lock, before another one comes.

use crate::atomic::{AtomicU32, Ordering};

use super::attempt::{Attempt, CALLED, CLAIM, MORE, Patience};
use super::futex::{self, Holder, Waiting};
use super::lot::Queue;

const FREE: u32 = 0;
/// Somebody waits.
const WAITERS: u32 = 1;
/// One reader; or, with WRITE, the lowest bit of the writer's number.
const READER: u32 = 1 << 1;
const READERS: u32 = WRITE - READER;
const WRITE: u32 = 1 << 31;
/// Nobody has it, but the number is that of a waiter which is to have it next; it has WRITE in it, to
/// keep all others out.
const RESERVED: u32 = WRITE | 1 << 30;
const _: () = assert!(Holder::BITS < 30);

/// In the note of a waiter: it wants to write. Its number as a holder is between this and `CALLED`.
const WRITER: u32 = 1 << 31;

/// A lock. Its size is that of its word.
#[derive(Debug)]
pub(crate) struct RwLock {
    word: AtomicU32,
}

/// What somebody wants of a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Read,
    Write,
}

impl RwLock {
    /// Of a word that is zero. (Of which the models can make none in a constant.)
    pub(super) const fn of(word: AtomicU32) -> RwLock {
        RwLock { word }
    }

    /// Fails, too, if there are as many readers as can be counted.
    #[inline]
    pub(crate) fn try_read(&self) -> bool {
        self.try_join() || self.is_reserved() && self.try_reserved(Want::Read)
    }

    #[inline]
    fn try_join(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        // With WRITE, it is more than that.
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
        self.try_free() || self.is_reserved() && self.try_reserved(Want::Write)
    }

    #[inline]
    fn try_free(&self) -> bool {
        self.swap(FREE, write_by_caller()).is_ok()
    }

    /// Takes the lock though it is reserved, unless that is for another coroutine of this worker.
    #[cold]
    fn try_reserved(&self, want: Want) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let reserved = word & RESERVED == RESERVED;
        reserved
            && futex::patience(Some(holder_of(word)), false) != Patience::Unlimited
            && self.swap(word, want.taken(word)).is_ok()
    }

    /// # Panics
    ///
    /// If there are more readers than can be counted.
    #[inline]
    pub(crate) fn read(&self) {
        if !self.try_join() {
            self.lock_contended(Want::Read);
        }
    }

    #[inline]
    pub(crate) fn write(&self) {
        if !self.try_free() {
            self.lock_contended(Want::Write);
        }
    }

    /// # Safety
    ///
    /// The caller has locked it as a reader.
    #[inline]
    pub(crate) unsafe fn unlock_read(&self) {
        let before = self.word.fetch_sub(READER, Ordering::Release);
        if before == READER | WAITERS {
            self.unlock_read_contended();
        }
    }

    /// # Safety
    ///
    /// The caller has locked it as a writer.
    #[inline]
    pub(crate) unsafe fn unlock_write(&self) {
        if !self.leave_write(FREE) {
            futex::with_waiters(&self.word, |queue| self.call_next(queue));
        }
    }

    /// Makes the writer a reader.
    ///
    /// # Safety
    ///
    /// The caller has locked it as a writer.
    pub(crate) unsafe fn downgrade(&self) {
        if self.leave_write(READER) {
            return;
        }
        futex::with_waiters(&self.word, |queue| {
            while wake_reader(queue) {}
            self.word
                .store(READER | waiters_if(!queue.is_empty()), Ordering::Release);
        });
    }

    /// Goes from WRITE to `new`, unless somebody waits.
    #[inline]
    fn leave_write(&self, new: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word & WAITERS == 0
            && self
                .word
                .compare_exchange(word, new, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    }

    #[cold]
    fn lock_contended(&self, want: Want) {
        let mut attempt = Attempt::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let reserved = word & RESERVED == RESERVED;
            let holder = (word & WRITE != 0).then(|| holder_of(word));
            let patience = attempt.patience(reserved, holder);
            if want.is_possible(word, attempt.was_called()) || patience == Patience::Over {
                let taken = want.taken(word) | waiters_if(attempt.knows_of_more());
                if self.swap(word, taken).is_ok() {
                    return;
                }
                continue;
            }
            if word & WAITERS == 0
                && (!reserved && attempt.spin(holder) || self.swap(word, word | WAITERS).is_err())
            {
                continue;
            }
            let request = attempt.request(want.note(), holder, patience);
            // Somebody is to call then: a holder, or a reader that is leaving; or it is reserved as it
            // was.
            let still = || {
                let now = self.word.load(Ordering::Relaxed);
                let still_reserved = now & RESERVED == RESERVED;
                now & WAITERS != 0
                    && !want.is_possible(now, attempt.was_called())
                    && still_reserved == reserved
            };
            let parked = futex::park(&self.word, request, still, || {});
            attempt.note(parked);
        }
    }

    #[cold]
    fn unlock_read_contended(&self) {
        futex::with_waiters(&self.word, |queue| {
            if self.swap(WAITERS, write_by_caller() | WAITERS).is_ok() {
                self.call_next(queue);
            }
        });
    }

    /// Gives the lock up, which is held as by a writer, to those who wait first.
    fn call_next(&self, queue: &mut Queue<'_, Waiting>) {
        let Some(first) = queue.wake_first() else {
            self.word.store(FREE, Ordering::Release);
            return;
        };
        if first & WRITER == 0 {
            while wake_reader(queue) {}
        }
        let is_reserved = first & CALLED != 0;
        if is_reserved {
            queue.tell(CLAIM);
        }
        queue.wake_of_other_owners();
        let more = !queue.is_empty();
        if is_reserved {
            let number = first & !(WRITER | CALLED);
            self.word
                .store(RESERVED | number | waiters_if(more), Ordering::Release);
        } else {
            self.word.store(FREE, Ordering::Release);
            queue.tell(if more { MORE } else { 0 });
        }
    }

    #[inline]
    fn swap(&self, word: u32, new: u32) -> Result<u32, u32> {
        self.word
            .compare_exchange(word, new, Ordering::Acquire, Ordering::Relaxed)
    }
}

impl Want {
    fn is_possible(self, word: u32, called: bool) -> bool {
        match self {
            Want::Read => word & WRITE == 0 && (word & WAITERS == 0 || called),
            Want::Write => word == FREE,
        }
    }

    /// What `word`, with which this is possible or which is reserved, becomes.
    fn taken(self, word: u32) -> u32 {
        match self {
            Want::Read if word & WRITE == 0 => one_more_reader(word),
            Want::Read => READER | word & WAITERS,
            Want::Write => write_by_caller() | word & WAITERS,
        }
    }

    fn note(self) -> u32 {
        match self {
            Want::Read => Holder::current().number() * READER,
            Want::Write => WRITER | (Holder::current().number() * READER),
        }
    }
}

/// Of a lock that has WRITE: who has it, or is to have it next.
fn holder_of(word: u32) -> Holder {
    Holder::of_number((word & !RESERVED) / READER)
}

/// Wakes the one that waits first, if that is a reader; returns whether it is.
fn wake_reader(queue: &mut Queue<'_, Waiting>) -> bool {
    queue.wake_first_if(|note| note & WRITER == 0).is_some()
}

fn one_more_reader(word: u32) -> u32 {
    assert!(word & READERS != READERS, "too many readers of one lock");
    word + READER
}

#[inline]
fn write_by_caller() -> u32 {
    WRITE | (Holder::current().number() * READER)
}

fn waiters_if(more: bool) -> u32 {
    if more { WAITERS } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn of_more_readers_than_can_be_counted_one_that_tries_fails_and_one_that_waits_panics() {
        let lock = RwLock::of(AtomicU32::new(READERS - READER));
        assert!(lock.try_read());
        assert!(!lock.try_read());
        assert!(!lock.try_write());
        assert!(catch_unwind(|| lock.read()).is_err());
        // SAFETY: it was read above.
        unsafe { lock.unlock_read() };
        lock.read();
        assert!(!lock.try_read());
    }
}
