//! The lock of one end of a channel, with the data that it protects.

use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::spin::Spin;
use crate::atomic::UnsafeCell;

/// A lock that is held for a few instructions.
///
/// It has no poisoning, since nothing panics while it is held. But it can be lost: in a forked child, if
/// another thread held it at the fork. That thread does not exist in the child, and may have left the
/// data half-changed. A lost lock can never be taken again.
pub(super) struct Lock<T> {
    spin: Spin,
    value: UnsafeCell<T>,
}

// SAFETY: only the holder of the lock accesses the value, and only one thread holds the lock at a time.
// The holder may be any thread, hence `T: Send`.
unsafe impl<T: Send> Sync for Lock<T> {}

// As std's mutex. User code never unwinds while the lock is held, so no broken invariant can be seen.
impl<T> UnwindSafe for Lock<T> {}
impl<T> RefUnwindSafe for Lock<T> {}

/// Holds a [`Lock`] and gives access to its data. Unlocks when dropped.
pub(super) struct Guard<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Lock<T> {
        Lock {
            spin: Spin::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The data, without locking. `None` if the lock is lost.
    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        // SAFETY: the lock is borrowed exclusively, so no guard exists.
        let value = self.value.with_mut(|value| unsafe { &mut *value });
        self.spin.is_free().then_some(value)
    }

    /// Waits for the lock and takes it. `None` if the lock is lost.
    #[inline]
    pub(super) fn lock(&self) -> Option<Guard<'_, T>> {
        self.spin.acquire().then(|| Guard(self))
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so nothing else accesses the value.
        self.0.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the lock, so nothing else accesses the value; and the guard is
        // borrowed exclusively for as long as the reference lives.
        self.0.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.spin.release();
    }
}
