//! How coroutines and OS threads wait for each other, beyond what std has.
//!
//! | To | use |
//! |---|---|
//! | wait for something to happen | [`Event`] |
//! | wait for a result that comes once | [`ValueEvent`] |
//! | limit how many run at a time | [`Semaphore`] |
//! | wait until a number of tasks are done | [`WaitGroup`], [`Barrier`] |
//! | hand out work, and wait until it is done | [`Queue`] |
//! | build something else | [`futex`] |
//!
//! All of them work among coroutines, among OS threads, and between the two, with or without a runtime. The
//! locks are in [`shims::sync`](crate::shims::sync), and messages go through [`channel`](crate::channel).
//!
//! Waits here are interruption points, unlike those for locks. A [`futex`] is none.
//!
//! [`futex`] has a queue of waiters for each address. The locks of
//! [`shims::sync`](crate::shims::sync) are made of it.

mod attempt;
mod barrier;
pub(crate) mod condvar;
mod event;
pub mod futex;
mod line;
mod lot;
pub(crate) mod mutex;
pub(crate) mod once;
mod queue;
pub(crate) mod reentrant;
pub(crate) mod rwlock;
mod semaphore;
mod spin;
mod wait_group;

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

pub use barrier::{Barrier, BarrierError};
pub use event::{Event, ValueEvent};
pub use queue::Queue;
pub use semaphore::{OwnedPermit, Permit, Semaphore};
pub use wait_group::WaitGroup;

// These are here because the models compile the files of the locks over loom's atomics, which have no
// `const fn new`.

impl mutex::Mutex {
    pub(crate) const fn new() -> mutex::Mutex {
        mutex::Mutex::of(AtomicU32::new(0))
    }
}

impl rwlock::RwLock {
    pub(crate) const fn new() -> rwlock::RwLock {
        rwlock::RwLock::of(AtomicU32::new(0))
    }
}

impl condvar::Condvar {
    pub(crate) const fn new() -> condvar::Condvar {
        condvar::Condvar::of(AtomicU32::new(0))
    }
}

impl Semaphore {
    /// Makes a semaphore with `permits` free permits.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore::of(Mutex::new(semaphore::State::new(permits)))
    }
}

impl once::Once {
    pub(crate) const fn new() -> once::Once {
        once::Once::of(AtomicU32::new(0))
    }
}
