//! Poisoning: whether a holder of a lock unwound, and may have left the value half-changed.
#![forbid(unsafe_code)]

use ::std::sync::atomic::{AtomicBool, Ordering};
use ::std::sync::{LockResult, PoisonError};

use crate::task;

/// Whether a lock is poisoned. Accesses are relaxed: the lock beside the flag orders them.
#[derive(Debug)]
pub(super) struct PoisonFlag {
    poisoned: AtomicBool,
}

/// Belongs to a guard of a lock: whether its holder was already unwinding when it locked.
#[derive(Debug)]
pub(super) struct PoisonCheck {
    was_unwinding: bool,
}

impl PoisonFlag {
    pub(super) const fn new() -> PoisonFlag {
        PoisonFlag {
            poisoned: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        self.poisoned.store(false, Ordering::Relaxed);
    }

    /// Wraps access to the value: in an error if the lock is poisoned.
    #[inline]
    pub(super) fn result<T>(&self, access: T) -> LockResult<T> {
        if self.is_set() {
            Err(PoisonError::new(access))
        } else {
            Ok(access)
        }
    }

    /// To be called after locking, for the new guard.
    #[inline]
    pub(super) fn locked(&self) -> PoisonCheck {
        PoisonCheck {
            // `std::thread::panicking` would answer for the OS thread, on which another coroutine may be
            // suspended in the middle of an unwind.
            was_unwinding: task::is_unwinding(),
        }
    }

    /// To be called before unlocking. Poisons the lock if the holder unwinds, and did not when it
    /// locked.
    #[inline]
    pub(super) fn unlocking(&self, holder: &PoisonCheck) {
        if !holder.was_unwinding && task::is_unwinding() {
            self.poisoned.store(true, Ordering::Relaxed);
        }
    }
}

/// Defines the methods of a lock that concern poisoning and `&mut` access. The lock has a [`PoisonFlag`] in
/// its field `poison`, and the value in its field `data`.
macro_rules! poison_methods {
    ($std:path) => {
        #[doc = concat!("Like [`", stringify!($std), "::is_poisoned`].")]
        #[inline]
        pub fn is_poisoned(&self) -> bool {
            self.poison.is_set()
        }

        #[doc = concat!("Like [`", stringify!($std), "::clear_poison`].")]
        #[inline]
        pub fn clear_poison(&self) {
            self.poison.clear();
        }

        #[doc = concat!("Like [`", stringify!($std), "::get_mut`].")]
        ///
        /// # Errors
        ///
        /// If the lock is poisoned. The error holds the reference.
        pub fn get_mut(&mut self) -> LockResult<&mut T> {
            self.poison.result(self.data.get_mut())
        }
    };
}

/// Implements the traits that a lock has for its value.
macro_rules! lock_traits {
    ($lock:ident, $try_lock:ident, when_locked: $locked:expr) => {
        // A panic that leaves the value half-changed poisons the lock, so the next holder is told.
        impl<T: ?Sized> UnwindSafe for $lock<T> {}
        impl<T: ?Sized> RefUnwindSafe for $lock<T> {}

        impl<T: ?Sized + fmt::Debug> fmt::Debug for $lock<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut debug = f.debug_struct(stringify!($lock));
                match self.$try_lock() {
                    Ok(guard) => debug.field("data", &&*guard),
                    Err(TryLockError::Poisoned(error)) => debug.field("data", &&**error.get_ref()),
                    Err(TryLockError::WouldBlock) => debug.field("data", $locked),
                };
                debug.field("poisoned", &self.is_poisoned());
                debug.finish_non_exhaustive()
            }
        }

        impl<T: Default> Default for $lock<T> {
            fn default() -> $lock<T> {
                $lock::new(T::default())
            }
        }

        impl<T> From<T> for $lock<T> {
            fn from(t: T) -> $lock<T> {
                $lock::new(t)
            }
        }
    };
}

/// Formats guards as their values.
macro_rules! guards_format_values {
    ($($guard:ident),*) => {$(
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}

pub(super) use {guards_format_values, lock_traits, poison_methods};
