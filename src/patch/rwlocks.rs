//! Read-write locks of C.
//!
//! Their state stays the C library's, which does not tell who has a lock for reading. So a coroutine waits in the
//! lot for whatever thread has the lock. Which coroutine has a lock for writing is noted in `owners.rs`, since it must not
//! wait for itself. Each attempt is one of the functions that do not wait. Unlocking wakes
//! all coroutines that wait for the lock, which try again. So does a thread that waited to write and gives up:
//!
//! ```text
//! coroutine: count itself; lock the lot { attempt; queue }; suspend
//! unlocker:  unlock, or give up; none counted -> done; otherwise lock the lot and wake
//! ```
//!
//! *No wake-up is lost*, as with futexes: see `counted.rs`.

use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Instant;

use libc::{EBUSY, EDEADLK, ETIMEDOUT};

use super::counted::Counted;
use super::errno::untouched;
use super::original;
use super::owners::{self, Holder};
use super::processes::next_look;
use super::time::deadline_of_lock;
use super::types::{c_int, clockid_t, pthread_rwlock_t, timespec};
use super::wait::may_wait_in_lot;
use crate::sync::futex::{self, Waited};
use crate::task;

/// The coroutines that wait.
static WAITING: Counted = Counted::of(AtomicUsize::new(0));

/// What a lock is locked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Access {
    /// Locks if that is possible at once. Otherwise returns `EBUSY`.
    ///
    /// # Safety
    ///
    /// The pointer is to a lock that is initialised.
    unsafe fn try_to_lock(self, lock: *mut pthread_rwlock_t) -> c_int {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Access::Read => libc::pthread_rwlock_tryrdlock(lock),
                Access::Write => original::pthread_rwlock_trywrlock(lock),
            }
        }
    }

    /// Notes that a coroutine has the lock for writing, if that is what `locked` says, which an attempt has returned.
    /// Returns the same.
    fn note_if_locked(self, lock: *mut pthread_rwlock_t, locked: c_int) -> c_int {
        if self == Access::Write && locked == 0 && task::on_coroutine() {
            owners::note_locked(lock.addr());
        }
        locked
    }
}

pub(super) unsafe fn pthread_rwlock_trywrlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's.
    let locked = unsafe { Access::Write.try_to_lock(lock) };
    Access::Write.note_if_locked(lock, locked)
}

/// Locks, or returns `ETIMEDOUT`, or `EDEADLK` to the coroutine that has the lock for writing. `block` is the original.
///
/// # Safety
///
/// The pointer is to a lock that is initialised.
unsafe fn lock(
    lock: *mut pthread_rwlock_t,
    access: Access,
    deadline: impl FnOnce() -> Result<Option<Instant>, c_int>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    if !task::on_coroutine() {
        return wait_outside(lock, block);
    }
    // SAFETY: the caller's.
    let attempt = || unsafe { access.try_to_lock(lock) };
    let mut done = attempt();
    if done != EBUSY {
        return done;
    }
    if owners::holder(lock.addr()) == Holder::Caller {
        return EDEADLK;
    }
    if !may_wait_in_lot() {
        return wait_outside(lock, block);
    }
    let deadline = match deadline() {
        Ok(deadline) => deadline,
        Err(refused) => return refused,
    };
    // SAFETY: the caller's: a lock is aligned, larger than a word, and there for as long as the caller waits. The
    // word only names the queue.
    let word = unsafe { AtomicU32::from_ptr(lock.cast()) };
    loop {
        let is_busy = || {
            done = attempt();
            done == EBUSY
        };
        // SAFETY: the caller's.
        let next = unsafe { next_look(lock, deadline) };
        let wait = || futex::wait_while(word, next, is_busy, || {});
        let waited = untouched(|| WAITING.during(wait));
        match waited {
            Waited::Changed => return done,
            Waited::Woken => {}
            Waited::TimedOut if next != deadline => {}
            Waited::TimedOut => {
                return match attempt() {
                    EBUSY => ETIMEDOUT,
                    done => done,
                };
            }
        }
    }
}

/// Like `lock`, and notes which coroutine has the lock for writing.
///
/// # Safety
///
/// As for `lock`.
unsafe fn lock_and_note(
    rwlock: *mut pthread_rwlock_t,
    access: Access,
    deadline: impl FnOnce() -> Result<Option<Instant>, c_int>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    let locked = unsafe { lock(rwlock, access, deadline, block) };
    access.note_if_locked(rwlock, locked)
}

/// Waits by `block`, not in the lot.
fn wait_outside(lock: *mut pthread_rwlock_t, block: impl FnOnce() -> c_int) -> c_int {
    let done = block();
    // Some locks prefer writers: a writer that waits keeps readers out. Now it has given up.
    if done == ETIMEDOUT {
        wake_all(lock);
    }
    done
}

/// Wakes all coroutines that wait for the lock, which may not exist any more.
fn wake_all(lock: *mut pthread_rwlock_t) {
    if WAITING.any() {
        untouched(|| futex::wake_at(lock.addr(), usize::MAX));
    }
}

macro_rules! define_locks {
    ($($name:ident, $timed:ident, $clock:ident for $access:ident;)*) => {
        $(
            pub(super) unsafe fn $name(rwlock: *mut pthread_rwlock_t) -> c_int {
                // SAFETY: the caller's.
                unsafe { lock_and_note(rwlock, Access::$access, || Ok(None), || original::$name(rwlock)) }
            }

            pub(super) unsafe fn $timed(rwlock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
                // SAFETY: the caller's.
                let deadline = || unsafe { deadline_of_lock(libc::CLOCK_REALTIME, until) };
                // SAFETY: the caller's.
                unsafe {
                    lock_and_note(rwlock, Access::$access, deadline, || original::$timed(rwlock, until))
                }
            }

            pub(super) unsafe fn $clock(
                rwlock: *mut pthread_rwlock_t,
                clock: clockid_t,
                until: *const timespec,
            ) -> c_int {
                // SAFETY: the caller's.
                let deadline = || unsafe { deadline_of_lock(clock, until) };
                // SAFETY: the caller's.
                unsafe {
                    lock_and_note(rwlock, Access::$access, deadline, || {
                        original::$clock(rwlock, clock, until)
                    })
                }
            }
        )*
    };
}

define_locks! {
    pthread_rwlock_rdlock, pthread_rwlock_timedrdlock, pthread_rwlock_clockrdlock
        for Read;
    pthread_rwlock_wrlock, pthread_rwlock_timedwrlock, pthread_rwlock_clockwrlock
        for Write;
}

pub(super) unsafe fn pthread_rwlock_unlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's.
    let done = unsafe { original::pthread_rwlock_unlock(rwlock) };
    // The lock may not exist any more.
    if done == 0 && task::on_coroutine() {
        owners::note_unlocked(rwlock.addr());
    }
    wake_all(rwlock);
    done
}
