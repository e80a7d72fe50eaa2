//! Semaphores of C.
//!
//! A wait that cannot end at once is made on a thread of the pool. The lot is no place for it, because signal
//! handlers may post, which must not lock anything.

use super::errno::{Errno, answer, result};
use super::original;
use super::types::{c_int, clockid_t, sem_t, timespec};
use super::wait::{Borrowed, on_pool_waiting};

/// Takes one of the semaphore, or waits by `block`.
///
/// # Safety
///
/// The pointer is to a semaphore that is initialised.
unsafe fn take(semaphore: *mut sem_t, block: impl Fn() -> c_int) -> c_int {
    answer(|| {
        // SAFETY: the caller's.
        match result(unsafe { libc::sem_trywait(semaphore) }) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
        let lent = Borrowed(block);
        on_pool_waiting(move || {
            let Borrowed(block) = { lent };
            result(block())
        })
    })
}

pub(super) unsafe fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: the caller's.
    unsafe { take(semaphore, || original::sem_wait(semaphore)) }
}

pub(super) unsafe fn sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int {
    // SAFETY: the caller's.
    unsafe { take(semaphore, || original::sem_timedwait(semaphore, until)) }
}

pub(super) unsafe fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        take(semaphore, || {
            original::sem_clockwait(semaphore, clock, until)
        })
    }
}
