//! Whether what a lock guards was left half-changed.

use ::std::sync::atomic::{AtomicBool, Ordering};
use ::std::sync::{LockResult, PoisonError};

use crate::task;

/// Set when a holder unwinds that did not when it locked. Ordered by the lock beside it.
#[derive(Debug)]
pub(super) struct Flag {
    poisoned: AtomicBool,
}

/// Whether the holder unwound when it locked.
#[derive(Debug)]
pub(super) struct Held {
    unwinding: bool,
}

impl Flag {
    pub(super) const fn new() -> Flag {
        Flag {
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

    /// Wraps what gives access to what is guarded.
    #[inline]
    pub(super) fn result<T>(&self, access: T) -> LockResult<T> {
        if self.is_set() {
            Err(PoisonError::new(access))
        } else {
            Ok(access)
        }
    }

    /// The caller has locked.
    #[inline]
    pub(super) fn hold(&self) -> Held {
        Held {
            // Not std's, which counts for the thread: others of that may be suspended amid an unwind.
            unwinding: task::is_unwinding(),
        }
    }

    /// The caller is about to unlock.
    #[inline]
    pub(super) fn let_go(&self, held: &Held) {
        if !held.unwinding && task::is_unwinding() {
            self.poisoned.store(true, Ordering::Relaxed);
        }
    }
}
