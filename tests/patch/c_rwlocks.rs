//! Read-write locks of C.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{c_int, pthread_rwlock_t, pthread_rwlockattr_t, timespec};

use crate::util::{Finally, contend_as_the_runtime_ends, on_one_worker, on_workers, until};

const MOMENT: Duration = Duration::from_millis(20);

unsafe extern "C" {
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
    fn pthread_rwlockattr_setkind_np(attributes: *mut pthread_rwlockattr_t, kind: c_int) -> c_int;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
}

/// Of the kinds of locks: a writer that waits keeps readers out.
const PREFER_WRITER_NONRECURSIVE: c_int = 2;

type Timed = unsafe extern "C" fn(*mut pthread_rwlock_t, *const timespec) -> c_int;

/// A lock that does not move, and notes who is inside.
struct Lock {
    lock: UnsafeCell<pthread_rwlock_t>,
    readers: AtomicU32,
    writers: AtomicU32,
}

// SAFETY: the lock is for use by several threads.
unsafe impl Sync for Lock {}

impl Lock {
    const fn new() -> Lock {
        Lock {
            lock: UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
        }
    }

    fn read<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the lock is initialised.
        assert_eq!(unsafe { libc::pthread_rwlock_rdlock(self.lock.get()) }, 0);
        self.readers.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.writers.load(Ordering::SeqCst), 0);
        let done = f();
        self.readers.fetch_sub(1, Ordering::SeqCst);
        self.unlock();
        done
    }

    fn write<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the lock is initialised.
        assert_eq!(unsafe { libc::pthread_rwlock_wrlock(self.lock.get()) }, 0);
        assert_eq!(self.writers.fetch_add(1, Ordering::SeqCst), 0);
        assert_eq!(self.readers.load(Ordering::SeqCst), 0);
        let done = f();
        self.writers.fetch_sub(1, Ordering::SeqCst);
        self.unlock();
        done
    }

    fn unlock(&self) {
        // SAFETY: the caller has locked it.
        assert_eq!(unsafe { libc::pthread_rwlock_unlock(self.lock.get()) }, 0);
    }

    /// Locks within `time`. Returns the number of the error.
    fn timed(&self, lock: Timed, time: Duration) -> c_int {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + time;
        let until = timespec {
            tv_sec: until.as_secs() as i64,
            tv_nsec: until.subsec_nanos().into(),
        };
        // SAFETY: the lock is initialised, and the time is valid.
        unsafe { lock(self.lock.get(), &raw const until) }
    }

    fn read_and_write(&self, times: u32) {
        for time in 0..times {
            self.read(|| {
                if time % 8 == 0 {
                    sleep(Duration::from_micros(50));
                }
            });
            self.write(|| {
                if time % 16 == 0 {
                    sleep(Duration::from_micros(50));
                }
            });
        }
    }
}

#[test]
fn readers_of_a_lock_of_c_wait_at_once_and_a_writer_alone() {
    let lock = Lock::new();
    let most = AtomicU32::new(0);
    on_one_worker(|| {
        greenroom::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| {
                    lock.read(|| {
                        until("all read", || {
                            most.fetch_max(lock.readers.load(Ordering::SeqCst), Ordering::SeqCst);
                            most.load(Ordering::SeqCst) == 5
                        });
                    });
                });
            }
            for _ in 0..3 {
                s.spawn(|| lock.write(|| sleep(MOMENT)));
            }
        });
    });
    assert_eq!(most.into_inner(), 5);
}

#[test]
fn a_lock_of_c_excludes_coroutines_of_several_workers_and_threads() {
    for workers in [1, 2, 4] {
        let lock = Lock::new();
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| lock.read_and_write(100));
            }
            let runtime = greenroom::RuntimeBuilder::new().workers(workers);
            runtime.build().unwrap().run(|| {
                greenroom::scope(|s| {
                    for _ in 0..6 {
                        s.spawn(|| lock.read_and_write(100));
                    }
                });
            });
        });
    }
}

#[test]
fn timed_locks_of_c_give_up_while_a_coroutine_has_the_lock() {
    let lock = Lock::new();
    let over = AtomicBool::new(false);
    on_one_worker(|| {
        greenroom::scope(|s| {
            let writer = s.spawn(|| lock.write(|| until("over", || over.load(Ordering::SeqCst))));
            until("it writes", || lock.writers.load(Ordering::SeqCst) == 1);
            for timed in [pthread_rwlock_timedrdlock, pthread_rwlock_timedwrlock] as [Timed; 2] {
                assert_eq!(lock.timed(timed, MOMENT), libc::ETIMEDOUT);
            }
            s.spawn(|| {
                sleep(MOMENT);
                over.store(true, Ordering::SeqCst);
            });
            let patience = Duration::from_secs(60);
            assert_eq!(lock.timed(pthread_rwlock_timedwrlock, patience), 0);
            assert!(writer.is_finished());
            lock.unlock();
        });
    });
}

#[test]
fn a_time_that_is_past_or_not_valid_is_not_waited_for() {
    use crate::calls::{errno, set_errno};

    let lock = Lock::new();
    let over = AtomicBool::new(false);
    on_one_worker(|| {
        greenroom::scope(|s| {
            s.spawn(|| {
                lock.write(|| until("over", || over.load(Ordering::SeqCst)));
                set_errno(1);
            });
            until("it writes", || lock.writers.load(Ordering::SeqCst) == 1);
            for timed in [pthread_rwlock_timedrdlock, pthread_rwlock_timedwrlock] as [Timed; 2] {
                // SAFETY: the lock is initialised, and the pointer is to a time.
                let try_until = |tv_sec, tv_nsec| unsafe {
                    timed(lock.lock.get(), &timespec { tv_sec, tv_nsec })
                };
                assert_eq!(try_until(-1, 0), libc::ETIMEDOUT);
                assert_eq!(try_until(i64::MAX, -1), libc::EINVAL);
            }
            s.spawn(|| {
                sleep(MOMENT);
                over.store(true, Ordering::SeqCst);
            });
            set_errno(77);
            lock.write(|| assert_eq!(errno(), 77));
        });
    });
}

#[test]
fn the_coroutine_that_writes_is_told_of_a_deadlock() {
    on_one_worker(|| {
        let lock = UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER);
        let at = lock.get();
        // SAFETY: the lock is initialised. The times are valid.
        unsafe {
            for write in [libc::pthread_rwlock_wrlock, libc::pthread_rwlock_trywrlock] {
                assert_eq!(write(at), 0);
                assert_eq!(libc::pthread_rwlock_trywrlock(at), libc::EBUSY);
                let ever = timespec {
                    tv_sec: 1 << 33,
                    tv_nsec: 0,
                };
                let refused = [
                    libc::pthread_rwlock_rdlock(at),
                    libc::pthread_rwlock_wrlock(at),
                    pthread_rwlock_timedrdlock(at, &raw const ever),
                    pthread_rwlock_timedwrlock(at, &raw const ever),
                ];
                assert_eq!(refused, [libc::EDEADLK; 4]);
                assert_eq!(libc::pthread_rwlock_unlock(at), 0);
                // It is free now, for readers several times.
                for _ in 0..2 {
                    assert_eq!(libc::pthread_rwlock_rdlock(at), 0);
                }
                for _ in 0..2 {
                    assert_eq!(libc::pthread_rwlock_unlock(at), 0);
                }
            }
        }
    });
}

#[test]
fn a_destructor_waits_for_a_lock_of_c_while_its_runtime_ends() {
    let lock = Arc::new(Lock::new());
    contend_as_the_runtime_ends(move |f| {
        // SAFETY: the lock is initialised.
        assert_eq!(unsafe { libc::pthread_rwlock_wrlock(lock.lock.get()) }, 0);
        let _later = Finally(|| lock.unlock());
        f();
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_of_a_lock_of_c_in() {
    let lock = Lock::new();
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: the calls initialise the attributes, and then the lock, which nothing uses yet.
    unsafe {
        let attributes = attributes.as_mut_ptr();
        assert_eq!(libc::pthread_rwlockattr_init(attributes), 0);
        let kind = PREFER_WRITER_NONRECURSIVE;
        assert_eq!(pthread_rwlockattr_setkind_np(attributes, kind), 0);
        assert_eq!(libc::pthread_rwlock_init(lock.lock.get(), attributes), 0);
    }
    let (is_read, has_given_up) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            until("it is read", || is_read.load(Ordering::SeqCst));
            let waited = lock.timed(pthread_rwlock_timedwrlock, 20 * MOMENT);
            assert_eq!(waited, libc::ETIMEDOUT);
            has_given_up.store(true, Ordering::SeqCst);
        });
        on_workers(1, || {
            lock.read(|| {
                is_read.store(true, Ordering::SeqCst);
                until("the writer waits", || {
                    // SAFETY: the lock is initialised.
                    let keeps_out = unsafe { libc::pthread_rwlock_tryrdlock(lock.lock.get()) } != 0;
                    if !keeps_out {
                        lock.unlock();
                    }
                    keeps_out || has_given_up.load(Ordering::SeqCst)
                });
                // The lock stays locked for reading until this one has read.
                greenroom::scope(|s| s.spawn(|| lock.read(|| {})).join().unwrap());
            });
        });
    });
}
