//! A lock for one writer or many readers.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::marker::PhantomData;
use ::std::mem;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::ptr::NonNull;
use ::std::sync::{LockResult, TryLockError, TryLockResult};

use super::poisoning::{Flag, Held};
use crate::sync::rwlock as raw;

/// Like [`std::sync::RwLock`], but waiting for it parks the coroutine.
///
/// It goes to those who wait in the order in which they came: once a writer waits, further readers
/// do, too.
pub struct RwLock<T: ?Sized> {
    lock: raw::RwLock,
    poison: Flag,
    data: UnsafeCell<T>,
}

// SAFETY: it owns what it guards, which therefore goes with it.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: what it guards is used by one writer, which may move it out, or shared by readers.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

// Poisoning is the protection.
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

/// Like [`std::sync::RwLockReadGuard`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::sync::RwLockReadGuard<'static, ()>>();
/// ```
#[must_use = "if unused the RwLock will immediately unlock"]
pub struct RwLockReadGuard<'rwlock, T: ?Sized + 'rwlock> {
    /// A pointer, so that the guard is covariant, and so that what it points to may be written when
    /// its drop has unlocked.
    data: NonNull<T>,
    lock: &'rwlock raw::RwLock,
}

// SAFETY: a shared guard gives shared access to what is guarded, and no more.
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
    held: Held,
    /// Not `Send`: the lock knows its holder by the thread.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared access to what is guarded, and no more.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<T> RwLock<T> {
    /// Like [`std::sync::RwLock::new`].
    #[inline]
    pub const fn new(t: T) -> RwLock<T> {
        RwLock {
            lock: raw::RwLock::new(),
            poison: Flag::new(),
            data: UnsafeCell::new(t),
        }
    }

    /// Like [`std::sync::RwLock::into_inner`].
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.data.into_inner())
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Like [`std::sync::RwLock::read`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the guard.
    ///
    /// # Panics
    ///
    /// If there are more readers than can be counted.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.lock.read();
        // SAFETY: locked above.
        unsafe { self.read_guard() }
    }

    /// Like [`std::sync::RwLock::try_read`].
    ///
    /// # Errors
    ///
    /// If a writer has it locked, or waits for it; if there are as many readers as can be counted; if
    /// it is poisoned, with the guard.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.lock.try_read() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: locked above.
        Ok(unsafe { self.read_guard() }?)
    }

    /// Like [`std::sync::RwLock::write`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the guard.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.lock.write();
        // SAFETY: locked above.
        unsafe { self.write_guard() }
    }

    /// Like [`std::sync::RwLock::try_write`].
    ///
    /// # Errors
    ///
    /// If somebody has it locked; if it is poisoned, with the guard.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.lock.try_write() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: locked above.
        Ok(unsafe { self.write_guard() }?)
    }

    /// # Safety
    ///
    /// The caller has just locked it as a reader.
    #[inline]
    unsafe fn read_guard(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.poison.result(RwLockReadGuard {
            // SAFETY: the cell's pointer is not null.
            data: unsafe { NonNull::new_unchecked(self.data.get()) },
            lock: &self.lock,
        })
    }

    /// # Safety
    ///
    /// The caller has just locked it as a writer.
    #[inline]
    unsafe fn write_guard(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.poison.result(RwLockWriteGuard {
            rwlock: self,
            held: self.poison.hold(),
            not_send: PhantomData,
        })
    }

    /// Like [`std::sync::RwLock::is_poisoned`].
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Like [`std::sync::RwLock::clear_poison`].
    #[inline]
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Like [`std::sync::RwLock::get_mut`].
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the reference.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.poison.result(self.data.get_mut())
    }
}

impl<'rwlock, T: ?Sized> RwLockWriteGuard<'rwlock, T> {
    /// Like [`std::sync::RwLockWriteGuard::downgrade`].
    pub fn downgrade(s: Self) -> RwLockReadGuard<'rwlock, T> {
        let rwlock = s.rwlock;
        mem::forget(s);
        // SAFETY: it was locked by a writer, whose guard does not unlock it any more; the cell's
        // pointer is not null.
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
        // SAFETY: a guard is the right to share it; and it is there, for the lock beside it is
        // borrowed.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard is the right to it, shared while the guard is.
        unsafe { &*self.rwlock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a guard is the right to it.
        unsafe { &mut *self.rwlock.data.get() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it was locked for this guard.
        unsafe { self.lock.unlock_read() };
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.rwlock.poison.let_go(&self.held);
        // SAFETY: it was locked for this guard.
        unsafe { self.rwlock.lock.unlock_write() };
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => debug.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => debug.field("data", &format_args!("<locked>")),
        };
        debug.field("poisoned", &self.is_poisoned());
        debug.finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(t: T) -> RwLock<T> {
        RwLock::new(t)
    }
}
