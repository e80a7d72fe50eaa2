//! A lock for one.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::marker::PhantomData;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::sync::{LockResult, TryLockError, TryLockResult};

use super::poisoning::{Flag, Held};
use crate::sync::mutex as raw;

/// Like [`std::sync::Mutex`], but waiting for it parks the coroutine.
///
/// A guard may be held while the coroutine waits for something else; others that want the lock wait
/// meanwhile. It goes to those who wait in the order in which they came, but that whoever unlocks it
/// may lock it again before the first of them runs, once.
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
    poison: Flag,
    data: UnsafeCell<T>,
}

// SAFETY: it owns what it guards, which therefore goes with it.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: what it guards is used by one at a time; which may move it out, to another thread.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

// Poisoning is the protection.
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

/// Like [`std::sync::MutexGuard`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::sync::MutexGuard<'static, ()>>();
/// ```
#[must_use = "if unused the Mutex will immediately unlock"]
pub struct MutexGuard<'a, T: ?Sized + 'a> {
    mutex: &'a Mutex<T>,
    held: Held,
    /// Not `Send`: the lock knows its holder by the thread.
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives shared access to what is guarded, and no more.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T> Mutex<T> {
    /// Like [`std::sync::Mutex::new`].
    #[inline]
    pub const fn new(t: T) -> Mutex<T> {
        Mutex {
            lock: raw::Mutex::new(),
            poison: Flag::new(),
            data: UnsafeCell::new(t),
        }
    }

    /// Like [`std::sync::Mutex::into_inner`].
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the value.
    pub fn into_inner(self) -> LockResult<T> {
        self.poison.result(self.data.into_inner())
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Like [`std::sync::Mutex::lock`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the guard.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.lock.lock();
        // SAFETY: locked above.
        unsafe { self.guard() }
    }

    /// Like [`std::sync::Mutex::try_lock`].
    ///
    /// # Errors
    ///
    /// If somebody has it locked; if it is poisoned, with the guard.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.lock.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        // SAFETY: locked above.
        Ok(unsafe { self.guard() }?)
    }

    /// # Safety
    ///
    /// The caller has just locked it.
    #[inline]
    unsafe fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        self.poison.result(MutexGuard {
            mutex: self,
            held: self.poison.hold(),
            not_send: PhantomData,
        })
    }

    /// Like [`std::sync::Mutex::is_poisoned`].
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_set()
    }

    /// Like [`std::sync::Mutex::clear_poison`].
    #[inline]
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// Like [`std::sync::Mutex::get_mut`].
    ///
    /// # Errors
    ///
    /// If it is poisoned, with the reference.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.poison.result(self.data.get_mut())
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Calls `f` with the lock, which it may unlock if it locks it again.
    pub(super) fn with_lock<R>(&mut self, f: impl FnOnce(&raw::Mutex) -> R) -> R {
        f(&self.mutex.lock)
    }

    /// This guard, as if it had just been locked.
    pub(super) fn result(self) -> LockResult<MutexGuard<'a, T>> {
        let mutex = self.mutex;
        mutex.poison.result(self)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard is the right to it, shared while the guard is.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a guard is the right to it.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.let_go(&self.held);
        // SAFETY: it was locked for this guard.
        unsafe { self.mutex.lock.unlock() };
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => debug.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => debug.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => debug.field("data", &"<locked>"),
        };
        debug.field("poisoned", &self.is_poisoned());
        debug.finish_non_exhaustive()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(t: T) -> Mutex<T> {
        Mutex::new(t)
    }
}
