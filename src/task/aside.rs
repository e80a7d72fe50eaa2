//! Allocating memory while a lock or a borrow of this crate is held.
//!
//! The global allocator may be the user's, and may wait for locks of the shims. If such a wait parked
//! the calling coroutine, other coroutines of the worker would run meanwhile and find the lock or the
//! borrow taken. So during the allocation the caller does not count as a coroutine: a wait blocks the
//! thread, for the moment that another thread needs the allocator's lock.
//!
//! That moment is short only if the allocator waits for no lock while it holds another. Otherwise a coroutine may park
//! with the first one, and its own worker wait for that here. `futex::refuse_own_coroutine` then aborts the process.
//!
//! The places where a wait begins or ends must do better, since the allocator may itself call them. They
//! allocate nothing under a lock. See `sync/lot.rs`, `park/waiters.rs`, `channel`, `task/inbox.rs`.
#![forbid(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::Task;
use super::running::RUNNING;
use crate::sys::switches::own_lock;

/// While this lives, the caller does not count as a coroutine. It must not suspend.
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

/// Calls `f`, which may allocate while a borrow is held. A wait in it blocks the thread.
#[inline(always)]
pub(crate) fn aside<R>(f: impl FnOnce() -> R) -> R {
    let _aside = Aside::begin();
    f()
}

/// The value of `cell`. If there is none, it is made by `make`, which may allocate.
#[inline]
pub(crate) fn get_or_init_aside<T>(cell: &OnceLock<T>, make: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(value) => value,
        None => aside(|| cell.get_or_init(make)),
    }
}

/// Holds a mutex under which memory is allocated.
pub(crate) struct AsideGuard<'a, T> {
    // Dropped in this order: the mutex is unlocked before the caller counts as a coroutine again.
    guard: MutexGuard<'a, T>,
    _aside: Aside,
}

/// Like [`own_lock`], for a mutex under which memory is allocated.
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
