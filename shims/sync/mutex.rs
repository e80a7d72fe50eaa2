//! A mutual exclusion lock.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::marker::PhantomData;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::sync::{LockResult, TryLockError, TryLockResult};
use ::std::time::{Duration, Instant};

use super::poisoning::{
    PoisonCheck, PoisonFlag, guards_format_values, lock_traits, poison_methods,
};
use crate::sync::mutex as raw;
use crate::task::Deadline;

/// Like [`std::sync::Mutex`], but waiting for the lock parks the coroutine.
///
/// A coroutine may hold the guard while the coroutine waits for something else. Other tasks that want
/// the lock wait meanwhile. Waiters get the lock in the order in which they came. One exception: the
/// task that unlocks may lock again before the first waiter runs, once.
///
/// ```
/// use greenroom::shims as std;
/// use std::sync::{Arc, Mutex};
/// use std::thread;
///
/// let total = Arc::new(Mutex::new(0));
/// let adders: Vec<_> = (1..=3)
///     .map(|n| {
///         let total = Arc::clone(&total);
///         thread::spawn(move || {
///             let mut total = total.lock().unwrap();
///             thread::yield_now(); // the others wait
///             *total += n;
///         })
///     })
///     .collect();
/// for adder in adders {
///     adder.join().unwrap();
/// }
/// assert_eq!(*total.lock().unwrap(), 6);
/// ```
pub struct Mutex<T: ?Sized> {
    lock: raw::Mutex,
    poison: PoisonFlag,
    data: UnsafeCell<T>,
}

// SAFETY: the mutex owns the value, and a value of a `Send` type may move to another thread.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: one holder at a time accesses the value. A holder may move the value out to its own thread,
// which is why `T` is `Send`.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

/// Like [`std::sync::MutexGuard`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::sync::MutexGuard<'static, ()>>();
/// ```
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized + 'a> {
    mutex: &'a Mutex<T>,
    holder: PoisonCheck,
    /// Makes the guard `!Send`: the lock knows its holder by the thread.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives only shared access to the value, and `T` is `Sync`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// Like [`std::sync::Mutex::new`].
    #[inline]
    pub const fn new(t: T) -> Mutex<T> {
        Mutex {
            lock: raw::Mutex::new(),
            poison: PoisonFlag::new(),
            data: UnsafeCell::new(t),
        }
    }

    /// Like [`std::sync::Mutex::into_inner`].
    ///
    /// # Errors
    ///
    /// If the lock is poisoned. The error holds the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Like [`std::sync::Mutex::lock`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned. The error holds the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.lock.lock();
        // SAFETY: the call to `lock` has just locked the mutex, and no other guard exists for that.
        unsafe { self.guard() }
    }

    /// Like [`std::sync::Mutex::try_lock`].
    ///
    /// # Errors
    ///
    /// If the lock is held. If the lock is poisoned; the error then holds the guard.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.lock.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `try_lock` has just locked the mutex, and no other guard exists for that.
        Ok(unsafe { self.guard() }?)
    }

    fn lock_before(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.lock.lock_until(deadline) {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `lock_until` has just locked the mutex, and no other guard exists for that.
        Ok(unsafe { self.guard() }?)
    }

    /// # Safety
    ///
    /// The caller has just locked the mutex, and makes no other guard for that.
    #[inline]
    unsafe fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        self.poison.result(MutexGuard {
            mutex: self,
            holder: self.poison.locked(),
            not_send: PhantomData,
        })
    }

    poison_methods!(std::sync::Mutex);
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Calls `f` with the raw mutex. `f` may unlock the mutex, but must lock it again before returning.
    pub(super) fn with_lock<R>(&mut self, f: impl FnOnce(&raw::Mutex) -> R) -> R {
        f(&self.mutex.lock)
    }

    /// Returns this guard as `Mutex::lock` would: in an error if the mutex is poisoned.
    pub(super) fn result(self) -> LockResult<MutexGuard<'a, T>> {
        let mutex = self.mutex;
        mutex.poison.result(self)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard shows that its holder has the mutex locked, so nothing else accesses the
        // value mutably; and the returned reference borrows the guard.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard shows that its holder has the mutex locked, so nothing else accesses the
        // value; and the returned reference borrows the guard mutably.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.unlocking(&self.holder);
        // SAFETY: the mutex was locked for this guard, which is `!Send` and so on the thread that locked,
        // and which is dropped once.
        unsafe { self.mutex.lock.unlock() };
    }
}

/// Methods of [`Mutex`] that std does not have.
pub trait MutexExt<T: ?Sized> {
    /// Locks the mutex. Waits for at most `timeout`.
    ///
    /// ```
    /// use greenroom::shims::sync::{Mutex, MutexExt, TryLockError};
    /// use std::time::Duration;
    ///
    /// let mutex = Mutex::new(1);
    /// let held = mutex.lock().unwrap();
    /// let late = mutex.try_lock_for(Duration::from_millis(1));
    /// assert!(matches!(late, Err(TryLockError::WouldBlock)));
    /// drop(held);
    /// assert!(mutex.try_lock_for(Duration::from_millis(1)).is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](TryLockError::WouldBlock) if the mutex was not free in time. If it is poisoned; the
    /// error then holds the guard.
    ///
    /// # Unwinding
    ///
    /// Not an interruption point, as [`lock`](Mutex::lock).
    fn try_lock_for(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>>;

    /// Like [`try_lock_for`](MutexExt::try_lock_for), until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// As [`try_lock_for`](MutexExt::try_lock_for).
    fn try_lock_until(&self, deadline: Instant) -> TryLockResult<MutexGuard<'_, T>>;
}

impl<T: ?Sized> MutexExt<T> for Mutex<T> {
    fn try_lock_for(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_before(|| Deadline::after(timeout))
    }

    fn try_lock_until(&self, deadline: Instant) -> TryLockResult<MutexGuard<'_, T>> {
        self.lock_before(|| Some(Deadline::at(deadline)))
    }
}

lock_traits!(Mutex, try_lock, when_locked: &"<locked>");
guards_format_values!(MutexGuard);
