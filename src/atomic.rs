//! The atomics of the protocols that are model-checked.
//!
//! Those protocols stand in files that use nothing but this module, and `park` and `task`, of which
//! there are models, so that the package in `tests/models` can compile the same files over loom's
//! atomics: `task/{word,completion,refs,inbox}.rs`, `park/{list,waiters}.rs`, all of `channel`,
//! `pool/crew.rs` (which leaves the lock to its users),
//! `worker/{attention,census,sleep}.rs`, `reactor/{ready_word,registration}.rs`, `sync/lot.rs` and the
//! locks beside it.

pub(crate) use std::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

pub(crate) use crate::sys::switches::own_lock;

/// Which process this is, as forks are counted from when somebody has asked for that. In the models,
/// there is one.
pub(crate) mod process {
    use crate::sys::fork::{self, Process};

    /// Where there is no memory for it, a fork may be taken for the process it was forked from.
    #[inline]
    pub(crate) fn count_forks() {
        let _ = fork::count_forks();
    }

    /// Not zero.
    #[inline]
    pub(crate) fn number() -> u32 {
        Process::current().number()
    }
}

/// Has the processor pause so many times; in the models, once.
pub(crate) fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// std's. In the models, one that sees it if somebody else uses it at a time.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    #[inline]
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
