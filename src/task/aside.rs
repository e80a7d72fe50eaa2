//! Memory is allocated under a lock of ours, or a borrow.
//!
//! The global allocator may be the user's, and wait for locks of the shims. Were it to park the calling
//! coroutine, others of the worker would come to the lock, or the borrow. So the caller is no coroutine
//! meanwhile: what the allocator waits for blocks the thread, for the moment that another one
//! has the allocator's lock.
//!
//! Where a wait begins or ends, and so in what the allocator itself may call, this would not do: nothing
//! is allocated there under a lock. See `sync/lot.rs`, `park/waiters.rs`, `channel`,
//! `task/inbox.rs`.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use super::{RUNNING, Task};
use crate::sys::switches::own_lock;

/// The caller is no coroutine, as long as this is there. It must not suspend.
pub(crate) struct Aside(Option<NonNull<Task>>);

impl Aside {
    #[inline]
    pub(crate) fn begin() -> Aside {
        Aside(RUNNING.take())
    }
}

impl Drop for Aside {
    #[inline]
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// Calls `f`, which allocates, and may not be suspended in that.
#[inline]
pub(crate) fn aside<R>(f: impl FnOnce() -> R) -> R {
    let _aside = Aside::begin();
    f()
}

/// A lock under which memory is allocated, held.
pub(crate) struct AsideGuard<'a, T> {
    // Dropped in this order.
    guard: MutexGuard<'a, T>,
    _aside: Aside,
}

/// As [`own_lock`], for a lock under which memory is allocated.
#[inline]
pub(crate) fn lock_aside<T>(mutex: &Mutex<T>) -> AsideGuard<'_, T> {
    let aside = Aside::begin();
    AsideGuard {
        guard: own_lock(mutex),
        _aside: aside,
    }
}

impl<T> Deref for AsideGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for AsideGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
