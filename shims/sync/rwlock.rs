//! A reader-writer lock.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::marker::PhantomData;
use ::std::mem;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::ptr::NonNull;
use ::std::sync::{LockResult, TryLockError, TryLockResult};
use ::std::time::{Duration, Instant};

use super::poisoning::{
    PoisonCheck, PoisonFlag, guards_format_values, lock_traits, poison_methods,
};
use crate::sync::rwlock as raw;
use crate::task::Deadline;

/// Like [`std::sync::RwLock`], but waiting for the lock parks the coroutine.
///
/// Waiters get the lock in the order in which they came. Once a writer waits, new readers wait, too.
pub struct RwLock<T: ?Sized> {
    lock: raw::RwLock,
    poison: PoisonFlag,
    data: UnsafeCell<T>,
}

// SAFETY: the lock owns the value, and a value of a `Send` type may move to another thread.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: readers share the value, which is why `T` is `Sync`. One writer at a time accesses the value
// alone, and may move the value out to its own thread, which is why `T` is `Send`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

/// Like [`std::sync::RwLockReadGuard`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::sync::RwLockReadGuard<'static, ()>>();
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'rwlock, T: ?Sized + 'rwlock> {
    /// The value of `lock`. A pointer, not a reference, for two reasons: the guard is covariant in `T`,
    /// and another task may write the value while the drop of this guard has unlocked and not returned.
    data: NonNull<T>,
    lock: &'rwlock raw::RwLock,
}

// SAFETY: a shared guard gives only shared access to the value, and `T` is `Sync`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}

/// Like [`std::sync::RwLockWriteGuard`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::sync::RwLockWriteGuard<'static, ()>>();
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockWriteGuard<'rwlock, T: ?Sized + 'rwlock> {
    rwlock: &'rwlock RwLock<T>,
    holder: PoisonCheck,
    /// Makes the guard `!Send`: the lock knows its writer by the thread.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives only shared access to the value, and `T` is `Sync`.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    /// Like [`std::sync::RwLock::new`].
    #[inline]
    pub const fn new(t: T) -> RwLock<T> {
        RwLock {
            lock: raw::RwLock::new(),
            poison: PoisonFlag::new(),
            data: UnsafeCell::new(t),
        }
    }

    /// Like [`std::sync::RwLock::into_inner`].
    ///
    /// # Errors
    ///
    /// If the lock is poisoned. The error holds the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.data.into_inner())
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Like [`std::sync::RwLock::read`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned. The error holds the guard.
    ///
    /// # Panics
    ///
    /// If there are more readers than can be counted.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.lock.read();
        // SAFETY: the call to `read` has just locked for one reader, and no other guard exists for that.
        unsafe { self.read_guard() }
    }

    /// Like [`std::sync::RwLock::try_read`].
    ///
    /// # Errors
    ///
    /// If a writer holds the lock or waits for the lock. If there are as many readers as can be counted.
    /// If the lock is poisoned; the error then holds the guard.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.lock.try_read() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `try_read` has just locked for one reader, and no other guard exists for
        // that.
        Ok(unsafe { self.read_guard() }?)
    }

    fn read_before(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.lock.read_until(deadline) {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `read_until` has just locked for one reader, and no other guard exists for
        // that.
        Ok(unsafe { self.read_guard() }?)
    }

    fn write_before(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.lock.write_until(deadline) {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `write_until` has just locked for a writer, and no other guard exists for
        // that.
        Ok(unsafe { self.write_guard() }?)
    }

    /// Like [`std::sync::RwLock::write`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the lock is poisoned. The error holds the guard.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.lock.write();
        // SAFETY: the call to `write` has just locked for a writer, and no other guard exists for that.
        unsafe { self.write_guard() }
    }

    /// Like [`std::sync::RwLock::try_write`].
    ///
    /// # Errors
    ///
    /// If the lock is held. If the lock is poisoned; the error then holds the guard.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.lock.try_write() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: the call to `try_write` has just locked for a writer, and no other guard exists for
        // that.
        Ok(unsafe { self.write_guard() }?)
    }

    /// # Safety
    ///
    /// The caller has just locked as a reader, and makes no other guard for that.
    #[inline]
    unsafe fn read_guard(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.poison.result(RwLockReadGuard {
            // SAFETY: `UnsafeCell::get` never returns null.
            data: unsafe { NonNull::new_unchecked(self.data.get()) },
            lock: &self.lock,
        })
    }

    /// # Safety
    ///
    /// The caller has just locked as a writer, and makes no other guard for that.
    #[inline]
    unsafe fn write_guard(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.poison.result(RwLockWriteGuard {
            rwlock: self,
            holder: self.poison.locked(),
            not_send: PhantomData,
        })
    }

    poison_methods!(std::sync::RwLock);
}

impl<'rwlock, T: ?Sized> RwLockWriteGuard<'rwlock, T> {
    /// Like [`std::sync::RwLockWriteGuard::downgrade`].
    pub fn downgrade(s: Self) -> RwLockReadGuard<'rwlock, T> {
        let rwlock = s.rwlock;
        mem::forget(s);
        // SAFETY: the lock is locked for the writer of `s`, and `s` is forgotten, so `s` does not unlock.
        // `UnsafeCell::get` never returns null.
        unsafe {
            rwlock.lock.downgrade();
            RwLockReadGuard {
                data: NonNull::new_unchecked(rwlock.data.get()),
                lock: &rwlock.lock,
            }
        }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard shows that a reader holds the lock, so nothing accesses the value mutably. The
        // guard borrows the lock, so the value is alive.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard shows that its holder has the lock as the writer, so nothing else accesses
        // the value; and the returned reference borrows the guard.
        unsafe { &*self.rwlock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard shows that its holder has the lock as the writer, so nothing else accesses
        // the value; and the returned reference borrows the guard mutably.
        unsafe { &mut *self.rwlock.data.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the lock was locked for this reader's guard, which is dropped once.
        unsafe { self.lock.unlock_read() };
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.rwlock.poison.unlocking(&self.holder);
        // SAFETY: the lock was locked for this writer's guard, which is `!Send` and so on the thread that
        // locked, and which is dropped once.
        unsafe { self.rwlock.lock.unlock_write() };
    }
}

/// Methods of [`RwLock`] that std does not have.
///
/// All return [`WouldBlock`](TryLockError::WouldBlock) if the lock could not be had in time. If the lock is
/// poisoned, the error holds the guard. Like the waits of [`RwLock`] itself, these are no interruption
/// points.
pub trait RwLockExt<T: ?Sized> {
    /// Locks for reading. Waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If the lock could not be had in time, or is poisoned.
    fn try_read_for(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>>;

    /// Locks for reading. Waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// If the lock could not be had in time, or is poisoned.
    fn try_read_until(&self, deadline: Instant) -> TryLockResult<RwLockReadGuard<'_, T>>;

    /// Locks for writing. Waits for at most `timeout`.
    ///
    /// A writer that waits keeps new readers out. Once it has given up, they go on.
    ///
    /// # Errors
    ///
    /// If the lock could not be had in time, or is poisoned.
    fn try_write_for(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>>;

    /// Locks for writing. Waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// If the lock could not be had in time, or is poisoned.
    fn try_write_until(&self, deadline: Instant) -> TryLockResult<RwLockWriteGuard<'_, T>>;
}

impl<T: ?Sized> RwLockExt<T> for RwLock<T> {
    fn try_read_for(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_before(|| Deadline::after(timeout))
    }

    fn try_read_until(&self, deadline: Instant) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.read_before(|| Some(Deadline::at(deadline)))
    }

    fn try_write_for(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_before(|| Deadline::after(timeout))
    }

    fn try_write_until(&self, deadline: Instant) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.write_before(|| Some(Deadline::at(deadline)))
    }
}

lock_traits!(RwLock, try_read, when_locked: &format_args!("<locked>"));
guards_format_values!(RwLockReadGuard, RwLockWriteGuard);
