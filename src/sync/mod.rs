//! How coroutines and OS threads wait for each other.
//!
//! [`futex`] has a queue of waiters for each address. The locks of
//! [`shims::sync`](crate::shims::sync) are made of it.

mod attempt;
pub(crate) mod condvar;
pub mod futex;
mod lot;
pub(crate) mod mutex;
pub(crate) mod once;
pub(crate) mod reentrant;
pub(crate) mod rwlock;
mod spin;

use std::sync::atomic::AtomicU32;

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

impl once::Once {
    pub(crate) const fn new() -> once::Once {
        once::Once::of(AtomicU32::new(0))
    }
}
