//! A lock for one writer or many readers, without what it guards.
//!
//! The word is FREE, or the number of readers, or WRITE and the number of the holder; with WAITERS
//! beside it while somebody is queued, or, as in `mutex.rs`, was called and told of others.
//!
//! All wait in one queue. While WAITERS is set nobody joins the readers, so that a writer's turn
//! comes; and since a writer calls all readers that stand first, so does theirs. The rest is as in
//! `mutex.rs`: those who are called try again, and if they come too late they wait before all others
//! and are handed the lock.
//!
//! ```text
//!   n readers | WAITERS ──the last unlocks──▶ WAITERS ──under the lock of the queue──▶ WRITE | WAITERS
//!                                                │                                         │ calls
//!                                     a reader that was called joins                       ▼
//!                                                └──────▶ 1 reader | WAITERS         FREE, or handed over
//! ```
//!
//! The last reader that finds WAITERS becomes a writer for as long as it takes to call the next. If
//! a reader that was called before has joined meanwhile, that one has become the last.

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Holder, Interrupted, Parked, Request, Waiting};
use super::lot::Queue;
use super::spin;

const FREE: u32 = 0;
/// Somebody waits.
const WAITERS: u32 = 1;
/// One reader; or, with WRITE, the lowest bit of the writer's number.
const READER: u32 = 1 << 1;
const READERS: u32 = WRITE - READER;
const WRITE: u32 = 1 << 31;

// In the note of a waiter; for a writer, its number is between them.
/// It was called before.
const CALLED: u32 = 1;
const WRITER: u32 = 1 << 31;

// What those who are called are told.
/// They may try again.
const TRY: u32 = 0;
/// As `TRY`; and others wait behind them.
const TRY_FOR_MORE: u32 = 1;
/// They have the lock.
const HANDED_OVER: u32 = 2;

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

    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        self.swap(FREE, write_by_caller()).is_ok()
    }

    /// # Panics
    ///
    /// If there are more readers than can be counted.
    ///
    /// # Unwinding
    ///
    /// Where a runtime shuts down and nothing is left that could unlock.
    #[inline]
    pub(crate) fn read(&self) {
        while !self.try_read() && self.lock_contended(Want::Read) == Err(Interrupted) {
            // A destructor can only go on waiting.
            futex::unwind_if_possible();
        }
    }

    /// # Unwinding
    ///
    /// As `read`.
    #[inline]
    pub(crate) fn write(&self) {
        while !self.try_write() && self.lock_contended(Want::Write) == Err(Interrupted) {
            futex::unwind_if_possible();
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
            let more_readers = wake_readers(queue);
            let readers = (1 + more_readers) * READER;
            self.word
                .store(readers | waiters_if(!queue.is_empty()), Ordering::Release);
            queue.tell(HANDED_OVER);
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
    fn lock_contended(&self, want: Want) -> Result<(), Interrupted> {
        let mut called = false;
        let mut others = 0;
        let mut looks = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if want.is_possible(word, called) {
                if self.swap(word, want.taken(word) | others).is_ok() {
                    return Ok(());
                }
                continue;
            }
            let holder = (word & WRITE != 0).then(|| Holder::of_number((word & !WRITE) / READER));
            if word & WAITERS == 0
                && (!called && spin::once(&mut looks, holder)
                    || self.swap(word, word | WAITERS).is_err())
            {
                continue;
            }
            let request = Request {
                note: want.note() | if called { CALLED } else { 0 },
                in_front: called,
                holder,
                ..Request::default()
            };
            // Somebody is to call then: a holder, or a reader that is leaving.
            let still = || {
                let word = self.word.load(Ordering::Relaxed);
                word & WAITERS != 0 && !want.is_possible(word, called)
            };
            match futex::park(&self.word, request, still, || {}) {
                Parked::Woken(HANDED_OVER) => return Ok(()),
                Parked::Woken(token) => {
                    called = true;
                    others = waiters_if(token == TRY_FOR_MORE);
                }
                Parked::Changed => {}
                Parked::TimedOut => unreachable!("there is no deadline"),
                // It was not called, and leaves nobody behind that it would have to call.
                Parked::Interrupted => return Err(Interrupted),
            }
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
    fn call_next(&self, queue: &mut Queue<'_, '_, Waiting>) {
        let Some(first) = queue.wake_first() else {
            self.word.store(FREE, Ordering::Release);
            return;
        };
        let taken = match first & WRITER {
            0 => (1 + wake_readers(queue)) * READER,
            _ => first & !CALLED,
        };
        let more = !queue.is_empty();
        if first & CALLED != 0 {
            self.word.store(taken | waiters_if(more), Ordering::Release);
            queue.tell(HANDED_OVER);
        } else {
            self.word.store(FREE, Ordering::Release);
            queue.tell(if more { TRY_FOR_MORE } else { TRY });
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

    /// What `word`, with which this is possible, becomes.
    fn taken(self, word: u32) -> u32 {
        match self {
            Want::Read => one_more_reader(word),
            Want::Write => write_by_caller(),
        }
    }

    fn note(self) -> u32 {
        match self {
            Want::Read => 0,
            Want::Write => write_by_caller(),
        }
    }
}

/// Wakes the readers that wait first; returns how many.
fn wake_readers(queue: &mut Queue<'_, '_, Waiting>) -> u32 {
    std::iter::from_fn(|| queue.wake_first_if(|note| note & WRITER == 0))
        .map(|_| 1)
        .sum()
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
