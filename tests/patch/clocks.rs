//! Waits of locks and semaphores until a time of a clock that the caller names.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::{
    CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EINVAL, ETIMEDOUT, c_int, clockid_t,
    pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, sem_t, timespec,
};

use crate::calls::{Calls, alike, call, pause, returned};

/// How long a wait lasts that ends in vain.
const MOMENT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(1000);

/// The time of a clock after so long.
fn after(clock: clockid_t, time: Duration) -> timespec {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a time.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut now) }, 0);
    let at = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + time;
    timespec {
        tv_sec: at.as_secs() as i64,
        tv_nsec: at.subsec_nanos().into(),
    }
}

/// Objects of C that do not move.
struct Objects {
    mutex: UnsafeCell<pthread_mutex_t>,
    condition: UnsafeCell<pthread_cond_t>,
    lock: UnsafeCell<pthread_rwlock_t>,
    semaphore: UnsafeCell<sem_t>,
    /// Whether the condition variable was signalled. The mutex guards it.
    is_signalled: AtomicBool,
}

// SAFETY: the objects are for use by several threads.
unsafe impl Sync for Objects {}
// SAFETY: they are sent before their first use only.
unsafe impl Send for Objects {}

impl Objects {
    /// They last as long as the process, because coroutines may wait for them.
    fn new() -> &'static Objects {
        let objects = Box::leak(Box::new(Objects {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            condition: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            lock: UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER),
            // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
            semaphore: UnsafeCell::new(unsafe { std::mem::zeroed() }),
            is_signalled: AtomicBool::new(false),
        }));
        // SAFETY: nobody uses the semaphore yet.
        assert_eq!(unsafe { libc::sem_init(objects.semaphore.get(), 0, 0) }, 0);
        objects
    }
}

/// Calls a function of C with objects.
macro_rules! c {
    ($call:expr) => {{
        // SAFETY: the objects are initialised and do not move, and whoever unlocks one has locked it.
        unsafe { $call }
    }};
}

/// A wait for an object that another has, and what ends it.
struct Case {
    name: &'static str,
    wait: fn(&Calls, &Objects, clockid_t, *const timespec) -> i64,
    /// Takes the object, so that `wait` waits.
    take: fn(&Objects) -> c_int,
    /// Ends a wait.
    give: fn(&Objects) -> c_int,
    /// After a wait that has ended well.
    after: fn(&Objects) -> c_int,
}

const CASES: [Case; 5] = [
    Case {
        name: "pthread_mutex_clocklock",
        wait: |c, o, clock, until| {
            returned!(c.pthread_mutex_clocklock(o.mutex.get(), clock, until))
        },
        take: |o| c!(libc::pthread_mutex_lock(o.mutex.get())),
        give: |o| c!(libc::pthread_mutex_unlock(o.mutex.get())),
        after: |o| c!(libc::pthread_mutex_unlock(o.mutex.get())),
    },
    Case {
        name: "pthread_rwlock_clockrdlock",
        wait: |c, o, clock, until| {
            returned!(c.pthread_rwlock_clockrdlock(o.lock.get(), clock, until))
        },
        take: |o| c!(libc::pthread_rwlock_wrlock(o.lock.get())),
        give: |o| c!(libc::pthread_rwlock_unlock(o.lock.get())),
        after: |o| c!(libc::pthread_rwlock_unlock(o.lock.get())),
    },
    Case {
        name: "pthread_rwlock_clockwrlock",
        wait: |c, o, clock, until| {
            returned!(c.pthread_rwlock_clockwrlock(o.lock.get(), clock, until))
        },
        take: |o| c!(libc::pthread_rwlock_rdlock(o.lock.get())),
        give: |o| c!(libc::pthread_rwlock_unlock(o.lock.get())),
        after: |o| c!(libc::pthread_rwlock_unlock(o.lock.get())),
    },
    Case {
        name: "sem_clockwait",
        wait: |c, o, clock, until| match call!(c.sem_clockwait(o.semaphore.get(), clock, until)) {
            Ok(done) => done,
            Err(errno) => errno.into(),
        },
        take: |_| 0,
        give: |o| c!(libc::sem_post(o.semaphore.get())),
        after: |_| 0,
    },
    Case {
        name: "pthread_cond_clockwait",
        wait: |c, o, clock, until| {
            assert_eq!(c!(libc::pthread_mutex_lock(o.mutex.get())), 0);
            let (condition, mutex) = (o.condition.get(), o.mutex.get());
            let mut ended = 0;
            while ended == 0 && !o.is_signalled.load(Ordering::Relaxed) {
                ended = returned!(c.pthread_cond_clockwait(condition, mutex, clock, until));
            }
            // The wait has locked it again.
            assert_eq!(c!(libc::pthread_mutex_unlock(o.mutex.get())), 0);
            ended
        },
        take: |_| 0,
        give: |o| {
            c!(libc::pthread_mutex_lock(o.mutex.get()));
            o.is_signalled.store(true, Ordering::Relaxed);
            c!(libc::pthread_cond_signal(o.condition.get()));
            c!(libc::pthread_mutex_unlock(o.mutex.get()))
        },
        after: |_| 0,
    },
];

/// Takes the object for another coroutine. What `f` is passed has that one give it back.
fn with_taken(case: &'static Case, objects: &'static Objects, f: impl FnOnce(&(dyn Fn() + Sync))) {
    use greenroom::shims::sync::mpsc::channel;
    use greenroom::shims::thread;

    let (taken, is_taken) = channel();
    let (give, given) = channel();
    let owner = thread::spawn(move || {
        assert_eq!((case.take)(objects), 0);
        taken.send(()).unwrap();
        given.recv().unwrap();
        assert_eq!((case.give)(objects), 0);
    });
    is_taken.recv().unwrap();
    f(&move || give.send(()).unwrap());
    owner.join().unwrap();
}

#[test]
fn a_wait_until_a_time_of_either_clock_ends_then() {
    for case in &CASES {
        alike(|c| {
            for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
                let objects = Objects::new();
                with_taken(case, objects, |give| {
                    let start = Instant::now();
                    let until = after(clock, MOMENT);
                    let ended = (case.wait)(c, objects, clock, &raw const until);
                    assert_eq!(ended, ETIMEDOUT.into(), "{}", case.name);
                    assert!(start.elapsed() >= MOMENT, "{}", case.name);
                    give();
                });
            }
        });
    }
}

#[test]
fn a_wait_until_a_far_time_ends_when_the_object_is_given() {
    for case in &CASES {
        alike(|c| {
            for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
                let objects = Objects::new();
                with_taken(case, objects, |give| {
                    greenroom::shims::thread::scope(|s| {
                        s.spawn(|| {
                            pause();
                            give();
                        });
                        let until = after(clock, LONG);
                        let ended = (case.wait)(c, objects, clock, &raw const until);
                        assert_eq!(ended, 0, "{}", case.name);
                    });
                });
                assert_eq!((case.after)(objects), 0);
            }
        });
    }
}

#[test]
fn a_wait_by_another_clock_is_refused() {
    for case in &CASES {
        alike(|c| {
            let objects = Objects::new();
            with_taken(case, objects, |give| {
                let clock = CLOCK_PROCESS_CPUTIME_ID;
                let until = after(clock, LONG);
                let ended = (case.wait)(c, objects, clock, &raw const until);
                assert_eq!(ended, EINVAL.into(), "{}", case.name);
                give();
            });
        });
    }
}
