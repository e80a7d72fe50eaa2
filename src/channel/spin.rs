//! Mutual exclusion for a few instructions.
//!
//! ```text
//!   FREE ──acquire──▶ HELD      one compare-and-swap
//!        ◀─release──            a plain store, which makes it half the price of a mutex
//! ```
//!
//! *Exclusion*: of all that find it FREE, one swap succeeds. *Order*: what the holder before did
//! happened before its store, which the swap has read. *Progress*: whoever waits watches the word,
//! then gives its processor away, lest the holder be the one that waits for that; and if the system
//! would rather run the waiter, as it may by their priorities, sleeps.
//!
//! A mutex would have to learn, by another atomic operation, whether somebody sleeps. Nothing waits
//! long here: the holder neither blocks nor runs user code.

use std::time::Duration;

use crate::atomic::{AtomicU8, Ordering, pause, yield_now};

const FREE: u8 = 0;
const HELD: u8 = 1;

/// How often to look before giving the processor away, with pauses that double so many times, and
/// how often to do that before sleeping.
///
/// The pauses let the holder's processor go on for a while with what is in its cache.
const SPINS: u32 = 16;
const DOUBLINGS: u32 = 6;
const YIELDS: u32 = 1_000;

const SLEEP: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(super) struct Spin(AtomicU8);

impl Spin {
    pub(super) fn new() -> Spin {
        Spin(AtomicU8::new(FREE))
    }

    #[inline]
    pub(super) fn acquire(&self) {
        if !self.try_acquire() {
            self.wait();
        }
    }

    /// Called by the holder.
    #[inline]
    pub(super) fn release(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    #[inline]
    fn try_acquire(&self) -> bool {
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait(&self) {
        let mut looks = 0;
        while self.0.load(Ordering::Relaxed) == HELD || !self.try_acquire() {
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
