//! The atomics, locks and cells of the protocols that are model-checked.
//!
//! The package in `tests/models` compiles the files of these protocols over its own version of this
//! module, which has the atomics of loom or shuttle. So those files use nothing but this module, and the
//! parts of `park` and `task` that have models. The files are:
//!
//! - `task/{word,completion,awaiter,refs,inbox}.rs`, `runtime/join/registration.rs` and `park/{list,several,waiters}.rs`,
//! - `runtime/writing.rs`,
//! - all of `channel/mpmc`,
//! - `pool/crew.rs`, which leaves the lock to its users,
//! - `worker/{attention,census,sleep,standstill}.rs` and `reactor/{ready_word,registration}.rs`,
//! - `sync/lot.rs` and the locks beside it, `sync/{line,semaphore}.rs`, `future/signal.rs`,
//!   `patch/counted.rs` and `diagnose/monitor_sleep.rs`.
#![forbid(unsafe_code)]

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

pub(crate) use crate::sys::switches::own_lock;

/// The number of this process, which differs from the numbers of the processes that it was forked from.
/// In the models there is one process.
pub(crate) mod process {
    use crate::sys::fork::{self, Process};

    /// Counts forks from now on. Out of memory, forks are not counted: a child then takes itself for its
    /// parent.
    #[inline]
    pub(crate) fn count_forks() {
        let _ = fork::count_forks();
    }

    /// The number of this process. It is not zero.
    #[inline]
    pub(crate) fn number() -> u32 {
        Process::current().number()
    }
}

/// Spins for `times` pause instructions; in the models, for one.
pub(crate) fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// Like std's `UnsafeCell`, with closures that mark the beginning and the end of each access. In the
/// models, an access fails if another thread accesses the cell at the same time and one of them writes.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    #[inline]
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with a pointer to the value, for reading.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Calls `f` with a pointer to the value, for reading and writing.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
