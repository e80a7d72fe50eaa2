//! Mutual exclusion for a few instructions.
//!
//! ```text
//!   FREE ──acquire──▶ the holder's process      one compare-and-swap
//!        ◀─release──                            a plain store: half the price of a mutex
//! ```
//!
//! *Exclusion*: of all that find it FREE, one swap succeeds. *Order*: what the holder before did
//! happened before its store, which the swap has read. *Progress*: whoever waits watches the word,
//! then gives its processor away, lest the holder be the one that waits for that; and if the system
//! would rather run the waiter, as it may by their priorities, sleeps.
//!
//! *Forks.* Of all threads, a forked child has the one that forked. If another held the lock, nobody
//! is there to give it back, and what it guards may be in the midst of a change. The word tells, by
//! the process: in any other, nobody gets the lock.
//!
//! A mutex would have to learn, by another atomic operation, whether somebody sleeps. Nothing waits
//! long here: the holder neither blocks nor runs user code.

use std::time::Duration;

use crate::atomic::{AtomicU32, Ordering, pause, process, yield_now};

const FREE: u32 = 0;

/// How often to look before giving the processor away, with pauses that double so many times, and
/// how often to do that before sleeping.
///
/// The pauses let the holder's processor go on for a while with what is in its cache.
const SPINS: u32 = 16;
const DOUBLINGS: u32 = 6;
const YIELDS: u32 = 1_000;

const SLEEP: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(super) struct Spin(AtomicU32);

impl Spin {
    pub(super) fn new() -> Spin {
        Spin(AtomicU32::new(FREE))
    }

    /// Returns whether it is the caller's now: it never will be if a process that this one was forked
    /// from had it.
    #[must_use]
    #[inline]
    pub(super) fn acquire(&self) -> bool {
        let process = process::number();
        self.try_acquire(process) || self.wait(process)
    }

    /// Called by the holder.
    #[inline]
    pub(super) fn release(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// Whether nobody has it, who may not be there. Asked by the only one left that could take it.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
    }

    #[inline]
    fn try_acquire(&self, process: u32) -> bool {
        self.0
            .compare_exchange(FREE, process, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait(&self, process: u32) -> bool {
        let mut looks = 0;
        loop {
            match self.0.load(Ordering::Relaxed) {
                FREE if self.try_acquire(process) => return true,
                holder if holder != FREE && holder != process => return false,
                _ => {}
            }
            looks += 1;
            if looks < SPINS {
                pause(1 << looks.min(DOUBLINGS));
            } else if looks < SPINS + YIELDS {
                yield_now();
            } else {
                std::thread::sleep(SLEEP);
            }
        }
    }
}
