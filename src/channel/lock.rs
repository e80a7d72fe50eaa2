//! The lock of an end of a channel, and what it guards.

use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::spin::Spin;
use crate::atomic::UnsafeCell;

/// A lock for a few instructions. There is no poison: nothing panics under it. But in a forked child,
/// where whoever held it over the fork is not there, it is lost, with what it guards.
pub(super) struct Lock<T> {
    spin: Spin,
    value: UnsafeCell<T>,
}

// SAFETY: whichever thread holds the lock uses the value, alone.
unsafe impl<T: Send> Sync for Lock<T> {}

// As a mutex, though this cannot be poisoned: user code is never unwound through it.
impl<T> UnwindSafe for Lock<T> {}
impl<T> RefUnwindSafe for Lock<T> {}

/// The lock, held.
pub(super) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock {
            spin: Spin::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// What it guards, unless the lock is lost.
    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: it is borrowed from us, so nobody uses the value.
        let value = self.value.with_mut(|value| unsafe { &mut *value });
        self.spin.is_free().then_some(value)
    }

    /// Locks it, unless it is lost.
    #[inline]
    pub(super) fn lock(&self) -> Option<Guard<'_, T>> {
        self.spin.acquire().then(|| Guard(self))
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, so nobody else uses the value.
        self.0.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; and this guard is borrowed for as long.
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.spin.release();
    }
}
