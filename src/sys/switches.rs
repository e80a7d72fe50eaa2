//! How often a thread has given up its processor to wait, and who is to blame for that.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what this runtime guards, and holds for a moment: to wait for that is not the fault of the
/// coroutine that does. Nothing of the user's runs meanwhile, so poison means nothing.
#[inline]
pub(crate) fn own_lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(debug_assertions)]
    let locked = blame::own_lock(mutex);
    #[cfg(not(debug_assertions))]
    let locked = mutex.lock();
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f`, in which the runtime may have to wait a moment through no fault of the calling
/// coroutine's.
#[inline]
pub(crate) fn excused<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(debug_assertions)]
    return blame::excused(f);
    #[cfg(not(debug_assertions))]
    f()
}

/// The voluntary context switches of the calling thread so far: one for each time it has blocked, and
/// none for being preempted.
pub(crate) fn voluntary() -> i64 {
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a `rusage`, which is written.
    let done = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    debug_assert_eq!(done, 0, "there is no other error than a bad argument");
    usage.ru_nvcsw as i64
}

#[cfg(debug_assertions)]
pub(crate) use blame::blamed;

#[cfg(debug_assertions)]
mod blame {
    use std::cell::Cell;
    use std::sync::{LockResult, Mutex, MutexGuard, TryLockError};

    use super::voluntary;

    thread_local! {
        /// The switches of this thread that are the runtime's own.
        static EXCUSED: Cell<i64> = const { Cell::new(0) };
    }

    /// The voluntary context switches of the calling thread so far, but for those that are excused.
    ///
    /// Fewer in the child of a fork than before it.
    pub(crate) fn blamed() -> i64 {
        voluntary() - EXCUSED.get()
    }

    pub(super) fn own_lock<T>(mutex: &Mutex<T>) -> LockResult<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
            Err(TryLockError::WouldBlock) => excused(|| mutex.lock()),
        }
    }

    pub(super) fn excused<R>(f: impl FnOnce() -> R) -> R {
        // With what is excused inside of it, which it counts itself.
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

    /// Calls `f` with a mutex that another thread holds until this one waits; returns what is
    /// blamed for.
    fn contend(f: impl FnOnce(&Mutex<()>)) -> i64 {
        let mutex = Mutex::new(());
        let is_locked = AtomicBool::new(false);
        // SAFETY: it has no preconditions.
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

    #[test]
    fn a_wait_is_blamed_unless_it_is_for_the_runtimes_own_lock() {
        assert_ne!(contend(|mutex| drop(mutex.lock().unwrap())), 0);
        assert_eq!(contend(|mutex| drop(own_lock(mutex))), 0);
    }

    #[test]
    fn an_excuse_counts_once_and_covers_what_it_covers() {
        let sleep = || thread::sleep(Duration::from_millis(1));
        let before = blamed();
        excused(|| excused(sleep));
        assert_eq!(blamed() - before, 0);
        excused(|| {
            sleep();
            excused(sleep);
            sleep();
        });
        assert_eq!(blamed() - before, 0);
        sleep();
        assert_ne!(blamed() - before, 0);
    }
}
