//! Voluntary context switches: how often a thread has blocked in the kernel, and how often that was
//! the fault of the code that it runs.
//!
//! In debug builds, [`deny_blocking`](crate::deny_blocking()) blames a coroutine for each voluntary
//! switch in its turn. The runtime itself blocks now and then for a moment: on a lock of its own, or
//! when it starts a thread. Such a switch is *excused*, which subtracts it. In release builds nothing
//! is counted. The libc patch leaves the calls that are excused to the C library.

use std::cell::Cell;
use std::mem;
use std::sync::{LockResult, Mutex, MutexGuard, PoisonError, TryLockError};

/// Locks a mutex of this crate's own. Every holder releases it after a moment, so a wait for it is
/// excused. Poison is ignored: no code of the user's runs under such a lock, so no panic can leave
/// the data half-changed.
#[inline]
pub(crate) fn own_lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let locked = match mutex.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        Err(TryLockError::WouldBlock) => wait_for_lock(mutex),
    };
    locked.unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn wait_for_lock<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
    excused(|| mutex.lock())
}

thread_local! {
    /// Whether the runtime blocks on this thread.
    static EXCUSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is in [`excused`].
pub(crate) fn is_excused() -> bool {
    EXCUSED.get()
}

/// Runs `f`, and excuses the voluntary context switches in it: the runtime blocks there through no
/// fault of the calling coroutine.
#[inline]
pub(crate) fn excused<R>(f: impl FnOnce() -> R) -> R {
    let outer = EXCUSED.replace(true);
    #[cfg(debug_assertions)]
    let result = blame::excused(f);
    #[cfg(not(debug_assertions))]
    let result = f();
    EXCUSED.set(outer);
    result
}

/// The voluntary context switches of the calling thread so far: one for each time that it has blocked
/// in the kernel. Preemption and `sched_yield` are not counted.
pub(crate) fn voluntary() -> i64 {
    // SAFETY: `rusage` is a C struct of numbers, for which all-zero bytes are valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a valid `rusage`, which the kernel writes.
    let done = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    debug_assert_eq!(done, 0, "getrusage fails only for bad arguments");
    usage.ru_nvcsw as i64
}

#[cfg(debug_assertions)]
pub(crate) use blame::blamed;

#[cfg(debug_assertions)]
mod blame {
    use std::cell::Cell;

    use super::voluntary;

    thread_local! {
        /// The voluntary switches of this thread that were excused.
        static EXCUSED: Cell<i64> = const { Cell::new(0) };
    }

    /// The voluntary context switches of the calling thread so far, less the excused ones.
    ///
    /// The number is smaller in the child of a fork than it was in the parent: the kernel counts
    /// the child's thread from zero.
    pub(crate) fn blamed() -> i64 {
        voluntary() - EXCUSED.get()
    }

    /// Runs `f`, and excuses its voluntary switches.
    pub(super) fn excused<R>(f: impl FnOnce() -> R) -> R {
        // EXCUSED becomes `voluntary() - before`: its old value, plus all switches in `f`. What an
        // `excused` inside `f` adds to EXCUSED is overwritten, and so is not counted twice.
        let before = voluntary() - EXCUSED.get();
        let result = f();
        EXCUSED.set(voluntary() - before);
        result
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Calls `f` with a mutex that another thread holds until the calling thread sleeps. Returns the
    /// switches that are blamed on `f`.
    fn contend(f: impl FnOnce(&Mutex<()>)) -> i64 {
        let mutex = Mutex::new(());
        let is_locked = AtomicBool::new(false);
        // SAFETY: gettid has no preconditions.
        let stat = format!("/proc/self/task/{}/stat", unsafe { libc::gettid() });
        let is_waiting = || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('S')
        };
        thread::scope(|s| {
            s.spawn(|| {
                let _guard = mutex.lock().unwrap();
                is_locked.store(true, Ordering::SeqCst);
                while !is_waiting() {
                    thread::yield_now();
                }
            });
            while !is_locked.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let before = blamed();
            f(&mutex);
            blamed() - before
        })
    }

    /// Whether an attempt of ten is right. The kernel may have the thread wait for memory, too, and the other thread
    /// may unlock too early.
    fn in_one_of_ten(attempt: impl Fn() -> bool) -> bool {
        (0..10).any(|_| attempt())
    }

    #[test]
    fn a_wait_is_blamed_unless_it_is_for_the_runtimes_own_lock() {
        let is_blamed = || contend(|mutex| drop(mutex.lock().unwrap())) != 0;
        assert!(in_one_of_ten(is_blamed));
        let is_excused = || contend(|mutex| drop(own_lock(mutex))) == 0;
        assert!(in_one_of_ten(is_excused));
    }

    #[test]
    fn a_nested_excuse_counts_once_and_ends_with_its_closure() {
        let sleep = || thread::sleep(Duration::from_millis(1));
        let is_excused = |f: &dyn Fn()| {
            let before = blamed();
            excused(f);
            blamed() == before
        };
        assert!(in_one_of_ten(|| is_excused(&|| excused(sleep))));
        let sleep_more = || {
            sleep();
            excused(sleep);
            sleep();
        };
        assert!(in_one_of_ten(|| is_excused(&sleep_more)));
        let before = blamed();
        sleep();
        assert_ne!(blamed() - before, 0);
    }
}
