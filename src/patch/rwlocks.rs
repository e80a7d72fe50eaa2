//! Read-write locks of C.
//!
//! Their state stays the C library's, which does not tell who has a lock for reading. So a coroutine waits in the
//! lot for whatever thread has the lock. Each attempt is one of the functions that do not wait. Unlocking wakes
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

use libc::{EBUSY, ETIMEDOUT};

use super::counted::Counted;
use super::errno::untouched;
use super::original;
use super::processes::next_look;
use super::time::deadline_of_lock;
use super::types::{c_int, clockid_t, pthread_rwlock_t, timespec};
use super::wait::may_wait_in_lot;
use crate::sync::futex::{self, Waited};
use crate::task;

/// The coroutines that wait.
static WAITING: Counted = Counted::of(AtomicUsize::new(0));

/// Locks by `attempt`, which returns `EBUSY` if it would have to wait, or returns `ETIMEDOUT`. `block` is the
/// original.
///
/// # Safety
///
/// The pointer is to a lock that is initialised.
unsafe fn lock(
    lock: *mut pthread_rwlock_t,
    attempt: unsafe extern "C" fn(*mut pthread_rwlock_t) -> c_int,
    deadline: impl FnOnce() -> Result<Option<Instant>, c_int>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    if !task::on_coroutine() {
        return wait_outside(lock, block);
    }
    // SAFETY: the caller's.
    let attempt = || unsafe { attempt(lock) };
    let mut done = attempt();
    if done != EBUSY {
        return done;
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
    ($($name:ident, $timed:ident, $clock:ident by $attempt:ident;)*) => {
        $(
            pub(super) unsafe fn $name(rwlock: *mut pthread_rwlock_t) -> c_int {
                // SAFETY: the caller's.
                unsafe { lock(rwlock, libc::$attempt, || Ok(None), || original::$name(rwlock)) }
            }

            pub(super) unsafe fn $timed(rwlock: *mut pthread_rwlock_t, until: *const timespec) -> c_int {
                // SAFETY: the caller's.
                let deadline = || unsafe { deadline_of_lock(libc::CLOCK_REALTIME, until) };
                // SAFETY: the caller's.
                unsafe {
                    lock(rwlock, libc::$attempt, deadline, || original::$timed(rwlock, until))
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
                    lock(rwlock, libc::$attempt, deadline, || {
                        original::$clock(rwlock, clock, until)
                    })
                }
            }
        )*
    };
}

define_locks! {
    pthread_rwlock_rdlock, pthread_rwlock_timedrdlock, pthread_rwlock_clockrdlock
        by pthread_rwlock_tryrdlock;
    pthread_rwlock_wrlock, pthread_rwlock_timedwrlock, pthread_rwlock_clockwrlock
        by pthread_rwlock_trywrlock;
}

pub(super) unsafe fn pthread_rwlock_unlock(rwlock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: the caller's.
    let done = unsafe { original::pthread_rwlock_unlock(rwlock) };
    wake_all(rwlock);
    done
}
