//! Mutual exclusion for a few instructions.
//!
//! ```text
//!   FREE ──acquire──▶ the holder's process      one compare-and-swap
//!        ◀─release──                            a plain store: half the price of a mutex
//! ```
//!
//! *Exclusion.* If several threads find the word FREE, the compare-and-swap of only one succeeds.
//!
//! *Order.* A release is a store with `Release`, and the next swap reads that store with `Acquire`. So
//! what the previous holder did happens before what the next one does.
//!
//! *Progress.* A waiting thread first watches the word, with pauses. Then it yields its processor, since
//! the holder may need that one. If yielding does not help, it sleeps: the system may prefer to run the
//! waiting thread over the holder, because of their priorities.
//!
//! *Forks.* A forked child has only the thread that forked. If another thread held the lock at the fork,
//! nothing in the child can release it, and the protected data may be half-changed. So the word names
//! the process of the holder. If a thread finds the process that its own was forked from, the lock is
//! lost, and the thread gives up instead of waiting for ever.
//!
//! A mutex would be slower, because its release has to find out, by another atomic operation, whether a
//! thread sleeps. Waits here are short, since the holder neither blocks nor runs user code.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::atomic::{AtomicU32, Ordering, pause, process, yield_now};

/// Not locked. Otherwise the word is the number of the holder's process, which is not zero.
const FREE: u32 = 0;

/// How often a waiting thread looks, with pauses in between, before it yields its processor.
const SPINS: u32 = 16;

/// The pauses double this many times. They let the holder go on for a while without its cache line being
/// taken away.
const DOUBLINGS: u32 = 6;

/// How often a waiting thread yields its processor before it sleeps.
const YIELDS: u32 = 1_000;

/// How long a waiting thread sleeps between two looks.
const SLEEP: Duration = Duration::from_micros(50);

/// The lock without its data.
#[derive(Debug)]
pub(super) struct Spin(AtomicU32);

impl Spin {
    pub(super) fn new() -> Spin {
        Spin(AtomicU32::new(FREE))
    }

    /// Waits for the lock and takes it. Returns false if the lock is lost: a process that this one was
    /// forked from holds it.
    #[must_use]
    #[inline]
    pub(super) fn acquire(&self) -> bool {
        let process = process::number();
        self.try_acquire(process) || self.wait(process)
    }

    /// Unlocks. To be called by the holder.
    #[inline]
    pub(super) fn release(&self) {
        self.0.store(FREE, Ordering::Release);
    }

    /// Whether the lock is free. To be asked only when no other thread of this process can take it; then
    /// false means that the lock is lost.
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
