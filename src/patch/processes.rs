//! Locks of C that other processes use, too.
//!
//! An unlock in another process wakes no coroutine of this one. So a coroutine that waits for such a lock looks at it
//! again after a pause.
//!
//! Whether a lock is for several processes is seen as in `attributes.rs`.

use std::mem::MaybeUninit;
use std::time::Instant;

use libc::{PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED};

use super::attributes::is_as_second;
use super::types::{c_int, pthread_cond_t, pthread_rwlock_t};
use super::wait::LONGEST_PAUSE;

/// A lock of C that has an attribute for this.
pub(super) trait Lock: Sized {
    /// Initialises a lock with that attribute.
    ///
    /// # Safety
    ///
    /// The pointer is to memory for the lock.
    unsafe fn initialise(lock: *mut Self, processes: c_int);
}

macro_rules! implement_lock {
    ($($type:ty: $init:ident, $init_attributes:ident, $set:ident;)*) => {
        $(impl Lock for $type {
            unsafe fn initialise(lock: *mut Self, processes: c_int) {
                let mut attributes = MaybeUninit::uninit();
                // SAFETY: the first call initialises the attributes. The caller has memory for the lock.
                unsafe {
                    libc::$init_attributes(attributes.as_mut_ptr());
                    libc::$set(attributes.as_mut_ptr(), processes);
                    libc::$init(lock, attributes.as_ptr());
                }
            }
        })*
    };
}

implement_lock! {
    pthread_rwlock_t: pthread_rwlock_init, pthread_rwlockattr_init, pthread_rwlockattr_setpshared;
    pthread_cond_t: pthread_cond_init, pthread_condattr_init, pthread_condattr_setpshared;
}

/// Until when a coroutine waits before it looks at the lock again: until `deadline`, or for a pause.
///
/// # Safety
///
/// The pointer is to a lock that is initialised.
pub(super) unsafe fn next_look<T: Lock>(
    lock: *mut T,
    deadline: Option<Instant>,
) -> Option<Instant> {
    // SAFETY: the caller's.
    if !unsafe { is_for_several(lock) } {
        return deadline;
    }
    let next = Instant::now() + LONGEST_PAUSE;
    Some(deadline.map_or(next, |deadline| deadline.min(next)))
}

/// Whether the lock is for several processes.
///
/// # Safety
///
/// The pointer is to a lock that is initialised.
unsafe fn is_for_several<T: Lock>(lock: *mut T) -> bool {
    let kinds = [PTHREAD_PROCESS_PRIVATE, PTHREAD_PROCESS_SHARED];
    // SAFETY: the caller's. The function initialises a lock.
    unsafe {
        is_as_second(lock, kinds, |lock, processes| {
            T::initialise(lock, processes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_for_several_processes_is_told_from_others() {
        let (mut lock, mut condition) = (
            libc::PTHREAD_RWLOCK_INITIALIZER,
            libc::PTHREAD_COND_INITIALIZER,
        );
        let (lock, condition) = (&raw mut lock, &raw mut condition);
        // SAFETY: both are initialised, before and anew, and nothing else uses them. The thread that unlocks has locked.
        unsafe {
            assert!(!is_for_several(lock) && !is_for_several(condition));
            for (processes, expected) in [
                (PTHREAD_PROCESS_SHARED, true),
                (PTHREAD_PROCESS_PRIVATE, false),
            ] {
                Lock::initialise(lock, processes);
                Lock::initialise(condition, processes);
                assert_eq!(is_for_several(condition), expected);
                for attempt in [
                    libc::pthread_rwlock_tryrdlock,
                    libc::pthread_rwlock_trywrlock,
                ] {
                    assert_eq!(attempt(lock), 0);
                    assert_eq!(is_for_several(lock), expected);
                    assert_eq!(libc::pthread_rwlock_unlock(lock), 0);
                }
            }
        }
    }
}
