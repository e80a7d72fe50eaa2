//! Mutexes and condition variables of C, as libraries in C use them.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libc::{c_int, clockid_t, pthread_cond_t, pthread_mutex_t, timespec};

use crate::util::{Finally, again, contend_as_the_runtime_ends, on_one_worker, role, until};

const MOMENT: Duration = Duration::from_millis(20);

/// A mutex, what it guards, and a condition variable. They do not move.
struct Guarded {
    mutex: UnsafeCell<pthread_mutex_t>,
    condition: UnsafeCell<pthread_cond_t>,
    value: UnsafeCell<u32>,
    /// How many are inside, for the tests of exclusion.
    inside: AtomicU32,
}

// SAFETY: the mutex and the condition variable are for use by several threads. The value is used under the mutex.
unsafe impl Sync for Guarded {}

impl Guarded {
    const fn new() -> Guarded {
        Guarded {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            condition: UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER),
            value: UnsafeCell::new(0),
            inside: AtomicU32::new(0),
        }
    }

    /// With a mutex of this kind.
    fn of_kind(kind: c_int) -> Box<Guarded> {
        // SAFETY: the attributes are initialised.
        Guarded::with(|attributes| unsafe { libc::pthread_mutexattr_settype(attributes, kind) })
    }

    /// With a mutex of these attributes.
    fn with(set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) -> Box<Guarded> {
        let guarded = Box::new(Guarded::new());
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the calls initialise the attributes, and then the mutex, which nothing uses yet and does not move.
        unsafe {
            let attributes = attributes.as_mut_ptr();
            assert_eq!(libc::pthread_mutexattr_init(attributes), 0);
            assert_eq!(set(attributes), 0);
            assert_eq!(libc::pthread_mutex_init(guarded.mutex.get(), attributes), 0);
        }
        guarded
    }

    fn lock(&self) {
        // SAFETY: the mutex is initialised.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.mutex.get()) }, 0);
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0);
    }

    /// Returns the number of the error. The clock is the wall clock.
    fn lock_within(&self, time: Duration) -> c_int {
        self.lock_until(later(now(libc::CLOCK_REALTIME), time))
    }

    fn lock_until(&self, until: timespec) -> c_int {
        // SAFETY: the mutex is initialised.
        let locked = unsafe { libc::pthread_mutex_timedlock(self.mutex.get(), &raw const until) };
        if locked == 0 {
            assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0);
        }
        locked
    }

    fn unlock(&self) {
        assert_eq!(self.inside.fetch_sub(1, Ordering::Relaxed), 1);
        // SAFETY: the caller holds the mutex.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.mutex.get()) }, 0);
    }

    /// The caller holds the mutex, here and below.
    fn value(&self) -> u32 {
        // SAFETY: under the mutex.
        unsafe { *self.value.get() }
    }

    fn set(&self, value: u32) {
        // SAFETY: under the mutex.
        unsafe { *self.value.get() = value }
    }

    fn wait(&self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: both are initialised, and the caller holds the mutex.
        let waited = unsafe { libc::pthread_cond_wait(self.condition.get(), self.mutex.get()) };
        assert_eq!(waited, 0);
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0);
    }

    /// Waits until `until`, on the clock of the condition variable. Returns the number of the error.
    fn wait_until(&self, until: timespec) -> c_int {
        self.inside.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: both are initialised, the caller holds the mutex, and the time is valid.
        let waited = unsafe {
            libc::pthread_cond_timedwait(self.condition.get(), self.mutex.get(), &raw const until)
        };
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0);
        waited
    }

    fn signal(&self) {
        // SAFETY: the condition variable is initialised.
        let done = unsafe { libc::pthread_cond_signal(self.condition.get()) };
        assert_eq!(done, 0);
    }

    fn broadcast(&self) {
        // SAFETY: the condition variable is initialised.
        let done = unsafe { libc::pthread_cond_broadcast(self.condition.get()) };
        assert_eq!(done, 0);
    }

    /// Adds one to the value `times` times, and waits meanwhile in all the ways in which it can wait.
    fn count(&self, times: u32) {
        for time in 0..times {
            self.lock();
            let value = self.value();
            match time % 8 {
                0 => sleep(Duration::from_micros(50)),
                4 if greenroom::current().name() == Some("a coroutine") => greenroom::yield_now(),
                _ => {}
            }
            self.set(value + 1);
            self.unlock();
        }
    }

    /// Takes turns with another, who has the other `parity`.
    fn take_turns(&self, parity: u32, turns: u32) {
        for _ in 0..turns {
            self.lock();
            while self.value() % 2 != parity {
                self.wait();
            }
            self.set(self.value() + 1);
            self.unlock();
            self.signal();
        }
    }
}

fn now(clock: clockid_t) -> timespec {
    let mut now = MaybeUninit::uninit();
    // SAFETY: the call sets the time.
    unsafe {
        assert_eq!(libc::clock_gettime(clock, now.as_mut_ptr()), 0);
        now.assume_init()
    }
}

fn later(mut time: timespec, by: Duration) -> timespec {
    let nanos = time.tv_nsec + i64::from(by.subsec_nanos());
    time.tv_sec += by.as_secs() as i64 + nanos / 1_000_000_000;
    time.tv_nsec = nanos % 1_000_000_000;
    time
}

fn spawn_coroutine<'scope>(
    s: &'scope greenroom::Scope<'scope, '_>,
    f: impl FnOnce() + Send + 'scope,
) {
    let named = greenroom::Builder::new().name("a coroutine".into());
    named.spawn_scoped(s, f).unwrap();
}

#[test]
fn a_mutex_of_c_that_is_held_over_a_wait_parks_the_next_coroutine() {
    let shared = Guarded::new();
    on_one_worker(|| {
        greenroom::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| {
                    shared.lock();
                    let value = shared.value();
                    sleep(MOMENT);
                    shared.set(value + 1);
                    shared.unlock();
                });
            }
        });
        shared.lock();
        assert_eq!(shared.value(), 5);
        shared.unlock();
    });
}

#[test]
fn a_mutex_of_c_excludes_coroutines_of_several_workers_and_threads() {
    for workers in [1, 2, 4] {
        let shared = Guarded::new();
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| shared.count(200));
            }
            let runtime = greenroom::RuntimeBuilder::new().workers(workers);
            runtime.build().unwrap().run(|| {
                greenroom::scope(|s| {
                    for _ in 0..8 {
                        spawn_coroutine(s, || shared.count(200));
                    }
                });
            });
        });
        shared.lock();
        assert_eq!(shared.value(), 10 * 200);
        shared.unlock();
    }
}

#[test]
fn a_timed_lock_of_c_gives_up_while_another_coroutine_has_the_mutex() {
    let shared = Guarded::new();
    on_one_worker(|| {
        shared.lock();
        greenroom::scope(|s| {
            let start = Instant::now();
            let waiter = s.spawn(|| shared.lock_within(MOMENT));
            assert_eq!(waiter.join().unwrap(), libc::ETIMEDOUT);
            assert!(start.elapsed() >= MOMENT);
        });
        greenroom::scope(|s| {
            let waiter = s.spawn(|| {
                assert_eq!(shared.lock_within(Duration::from_secs(60)), 0);
                shared.unlock();
            });
            sleep(MOMENT);
            shared.unlock();
            waiter.join().unwrap();
        });
    });
}

/// The coroutine that waits first gives up while a thread has the mutex.
#[test]
fn a_waiter_for_a_mutex_of_c_does_not_rely_on_the_one_before_it() {
    let shared = Guarded::new();
    let (is_free, is_taken) = (AtomicU32::new(0), AtomicU32::new(0));
    let wait = |word: &AtomicU32| {
        while word.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| {
            wait(&is_free);
            shared.lock();
            is_taken.store(1, Ordering::Release);
            sleep(25 * MOMENT);
            shared.unlock();
        });
        on_one_worker(|| {
            shared.lock();
            greenroom::scope(|s| {
                s.spawn(|| match shared.lock_within(10 * MOMENT) {
                    0 => shared.unlock(),
                    error => assert_eq!(error, libc::ETIMEDOUT),
                });
                s.spawn(|| {
                    shared.lock();
                    shared.unlock();
                });
                sleep(MOMENT);
                // Both wait. They run again only after the thread has the mutex.
                shared.unlock();
                is_free.store(1, Ordering::Release);
                wait(&is_taken);
            });
        });
    });
}

#[test]
fn coroutines_and_threads_take_turns_by_a_condition_variable_of_c() {
    const TURNS: u32 = 1000;
    for workers in [1, 2] {
        let runtime = || {
            greenroom::RuntimeBuilder::new()
                .workers(workers)
                .build()
                .unwrap()
        };
        // Two coroutines.
        let shared = Guarded::new();
        runtime().run(|| {
            greenroom::scope(|s| {
                s.spawn(|| shared.take_turns(0, TURNS));
                s.spawn(|| shared.take_turns(1, TURNS));
            });
        });
        assert_eq!(shared.value.into_inner(), 2 * TURNS);
        // A coroutine and a thread.
        let shared = Guarded::new();
        std::thread::scope(|threads| {
            threads.spawn(|| shared.take_turns(1, TURNS));
            runtime().run(|| shared.take_turns(0, TURNS));
        });
        assert_eq!(shared.value.into_inner(), 2 * TURNS);
    }
}

#[test]
fn a_broadcast_of_c_wakes_coroutines_and_threads() {
    let shared = Guarded::new();
    let wait = || {
        shared.lock();
        while shared.value() < 100 {
            shared.set(shared.value() + 1);
            shared.wait();
        }
        shared.unlock();
    };
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(wait);
        }
        on_one_worker(|| {
            greenroom::scope(|s| {
                for _ in 0..5 {
                    s.spawn(wait);
                }
                // All of them have begun to wait.
                loop {
                    shared.lock();
                    let waiting = shared.value();
                    if waiting >= 8 {
                        shared.set(100);
                        shared.unlock();
                        break;
                    }
                    shared.unlock();
                    sleep(Duration::from_millis(1));
                }
                shared.broadcast();
            });
        });
    });
}

#[test]
fn a_wait_of_c_ends_at_its_time_on_either_clock() {
    on_one_worker(|| {
        for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC] {
            let shared = Guarded::new();
            let mut attributes = MaybeUninit::uninit();
            // SAFETY: the calls initialise the attributes, and then the condition variable, which nothing uses yet.
            unsafe {
                let attributes = attributes.as_mut_ptr();
                assert_eq!(libc::pthread_condattr_init(attributes), 0);
                assert_eq!(libc::pthread_condattr_setclock(attributes, clock), 0);
                let condition = shared.condition.get();
                assert_eq!(libc::pthread_cond_init(condition, attributes), 0);
            }
            // The worker is free meanwhile: what was spawned runs.
            let has_run = AtomicU32::new(0);
            greenroom::scope(|s| {
                s.spawn(|| has_run.store(1, Ordering::Relaxed));
                for _ in 0..100 {
                    let start = Instant::now();
                    shared.lock();
                    let waited = shared.wait_until(later(now(clock), MOMENT));
                    shared.unlock();
                    assert_eq!(waited, libc::ETIMEDOUT);
                    assert!(start.elapsed() >= MOMENT);
                    // If this thread does not get a processor, the time is over before the wait begins.
                    if has_run.load(Ordering::Relaxed) == 1 {
                        return;
                    }
                }
                panic!("waits of a condition variable block the worker");
            });
            // A signal that comes in time. A time that is far away on one clock may be past on the other.
            for limit in [60, 1_000_000_000] {
                greenroom::scope(|s| {
                    shared.set(0);
                    s.spawn(|| {
                        sleep(MOMENT);
                        shared.lock();
                        shared.set(1);
                        shared.unlock();
                        shared.signal();
                    });
                    shared.lock();
                    let until = later(now(clock), Duration::from_secs(limit));
                    while shared.value() == 0 {
                        assert_eq!(shared.wait_until(until), 0);
                    }
                    shared.unlock();
                });
            }
        }
    });
}

/// Locks or unlocks the mutex alone. Returns the number of the error.
type Plain = unsafe extern "C" fn(*mut pthread_mutex_t) -> c_int;

impl Guarded {
    fn plain(&self, f: Plain) -> c_int {
        // SAFETY: the mutex is initialised.
        unsafe { f(self.mutex.get()) }
    }
}

#[test]
fn a_mutex_of_c_that_its_holder_may_lock_again_keeps_out_other_coroutines() {
    let shared = Guarded::of_kind(libc::PTHREAD_MUTEX_RECURSIVE);
    on_one_worker(|| {
        greenroom::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| {
                    shared.lock();
                    assert_eq!(shared.plain(libc::pthread_mutex_lock), 0);
                    assert_eq!(shared.plain(libc::pthread_mutex_trylock), 0);
                    let value = shared.value();
                    sleep(MOMENT / 4);
                    assert_eq!(shared.plain(libc::pthread_mutex_unlock), 0);
                    sleep(MOMENT / 4);
                    assert_eq!(shared.plain(libc::pthread_mutex_unlock), 0);
                    sleep(MOMENT / 4);
                    shared.set(value + 1);
                    shared.unlock();
                });
            }
        });
        shared.lock();
        assert_eq!(shared.value(), 5);
        // Another coroutine, and another thread.
        let attempt = || {
            let timed = shared.lock_within(MOMENT);
            (shared.plain(libc::pthread_mutex_trylock), timed)
        };
        let refused = (libc::EBUSY, libc::ETIMEDOUT);
        greenroom::scope(|s| assert_eq!(s.spawn(attempt).join().unwrap(), refused));
        let on_a_thread = std::thread::scope(|s| s.spawn(attempt).join().unwrap());
        assert_eq!(on_a_thread, refused);
        shared.unlock();
    });
}

#[test]
fn any_number_of_mutexes_of_c_that_their_holder_may_lock_again_keep_out_other_coroutines() {
    let all: Vec<_> = (0..100)
        .map(|_| Guarded::of_kind(libc::PTHREAD_MUTEX_RECURSIVE))
        .collect();
    let each = |expected: c_int, f: Plain| {
        let done: Vec<_> = all.iter().map(|shared| shared.plain(f)).collect();
        assert_eq!(done, [expected; 100]);
    };
    on_one_worker(|| {
        for _ in 0..2 {
            each(0, libc::pthread_mutex_lock);
            each(0, libc::pthread_mutex_lock);
            greenroom::scope(|s| _ = s.spawn(|| each(libc::EBUSY, libc::pthread_mutex_trylock)));
            each(0, libc::pthread_mutex_unlock);
            greenroom::scope(|s| _ = s.spawn(|| each(libc::EBUSY, libc::pthread_mutex_trylock)));
            each(0, libc::pthread_mutex_unlock);
        }
        greenroom::scope(|s| {
            s.spawn(|| {
                each(0, libc::pthread_mutex_trylock);
                each(0, libc::pthread_mutex_unlock);
            });
        });
    });
}

#[test]
fn a_mutex_of_c_that_checks_its_holder_tells_coroutines_apart() {
    let shared = Guarded::of_kind(libc::PTHREAD_MUTEX_ERRORCHECK);
    on_one_worker(|| {
        greenroom::scope(|s| {
            for _ in 0..5 {
                s.spawn(|| {
                    shared.lock();
                    assert_eq!(shared.plain(libc::pthread_mutex_lock), libc::EDEADLK);
                    sleep(MOMENT / 4);
                    shared.unlock();
                    assert_eq!(shared.plain(libc::pthread_mutex_unlock), libc::EPERM);
                });
            }
        });
        shared.lock();
        let unlock = || shared.plain(libc::pthread_mutex_unlock);
        greenroom::scope(|s| assert_eq!(s.spawn(unlock).join().unwrap(), libc::EPERM));
        shared.unlock();
    });
}

const KINDS: [c_int; 4] = [
    libc::PTHREAD_MUTEX_NORMAL,
    libc::PTHREAD_MUTEX_ADAPTIVE_NP,
    libc::PTHREAD_MUTEX_RECURSIVE,
    libc::PTHREAD_MUTEX_ERRORCHECK,
];

/// Mutexes of all kinds that are robust, that inherit priorities, and that are for several processes.
#[allow(clippy::vec_box, reason = "a mutex does not move")]
fn of_all_attributes() -> Vec<Box<Guarded>> {
    let mut all = Vec::new();
    for kind in KINDS {
        for robust in [libc::PTHREAD_MUTEX_STALLED, libc::PTHREAD_MUTEX_ROBUST] {
            for protocol in [libc::PTHREAD_PRIO_NONE, libc::PTHREAD_PRIO_INHERIT] {
                for shared in [libc::PTHREAD_PROCESS_PRIVATE, libc::PTHREAD_PROCESS_SHARED] {
                    // SAFETY: the attributes are initialised.
                    all.push(Guarded::with(|attributes| unsafe {
                        libc::pthread_mutexattr_settype(attributes, kind)
                            | libc::pthread_mutexattr_setrobust(attributes, robust)
                            | libc::pthread_mutexattr_setprotocol(attributes, protocol)
                            | libc::pthread_mutexattr_setpshared(attributes, shared)
                    }));
                }
            }
        }
    }
    all
}

#[test]
fn a_mutex_of_c_keeps_out_other_coroutines_whatever_its_attributes() {
    for shared in of_all_attributes() {
        let refused = AtomicU32::new(0);
        on_one_worker(|| {
            shared.lock();
            let waiter = || {
                assert_eq!(shared.plain(libc::pthread_mutex_trylock), libc::EBUSY);
                assert_eq!(shared.lock_within(MOMENT / 20), libc::ETIMEDOUT);
                refused.fetch_add(1, Ordering::Relaxed);
                shared.lock();
                let value = shared.value();
                sleep(MOMENT / 20);
                shared.set(value + 1);
                shared.unlock();
            };
            greenroom::scope(|s| {
                for _ in 0..2 {
                    s.spawn(waiter);
                }
                until("both wait", || refused.load(Ordering::Relaxed) == 2);
                shared.unlock();
            });
            shared.lock();
            assert_eq!(shared.value(), 2);
            shared.unlock();
        });
    }
}

#[test]
fn a_robust_mutex_of_c_tells_coroutines_apart_after_its_holder_has_ended() {
    for kind in KINDS {
        // SAFETY: the attributes are initialised.
        let shared = Guarded::with(|attributes| unsafe {
            libc::pthread_mutexattr_settype(attributes, kind)
                | libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        });
        std::thread::scope(|s| {
            s.spawn(|| assert_eq!(shared.plain(libc::pthread_mutex_lock), 0));
        });
        on_one_worker(|| {
            assert_eq!(shared.plain(libc::pthread_mutex_lock), libc::EOWNERDEAD);
            let begins = AtomicU32::new(0);
            greenroom::scope(|s| {
                s.spawn(|| {
                    assert_eq!(shared.plain(libc::pthread_mutex_trylock), libc::EBUSY);
                    assert_eq!(shared.plain(libc::pthread_mutex_unlock), libc::EPERM);
                    begins.store(1, Ordering::Relaxed);
                    shared.lock();
                    shared.unlock();
                });
                until("it begins", || begins.load(Ordering::Relaxed) == 1);
                // SAFETY: the mutex is initialised.
                let repaired = unsafe { libc::pthread_mutex_consistent(shared.mutex.get()) };
                assert_eq!(repaired, 0);
                assert_eq!(shared.plain(libc::pthread_mutex_unlock), 0);
            });
        });
    }
}

#[test]
fn a_condition_variable_of_c_works_with_every_kind_of_mutex() {
    for shared in of_all_attributes() {
        on_one_worker(|| {
            greenroom::scope(|s| {
                s.spawn(|| shared.take_turns(0, 100));
                s.spawn(|| shared.take_turns(1, 100));
            });
        });
        assert_eq!(shared.value.into_inner(), 200);
    }
}

#[test]
fn a_destructor_waits_for_a_mutex_of_c_while_its_runtime_ends() {
    for kind in KINDS {
        let shared: Arc<Guarded> = Guarded::of_kind(kind).into();
        contend_as_the_runtime_ends(move |f| {
            shared.lock();
            let _later = Finally(|| shared.unlock());
            f();
        });
    }
}

/// Calls `f` in a destructor, during a panic.
fn during_a_panic(f: impl FnMut()) {
    let panic = || {
        let _later = Finally(f);
        panic!("boom");
    };
    catch_unwind(AssertUnwindSafe(panic)).unwrap_err();
}

#[test]
fn a_destructor_that_waits_for_a_mutex_of_c_of_its_own_worker_aborts_with_a_message() {
    let test = "a_destructor_that_waits_for_a_mutex_of_c_of_its_own_worker_aborts_with_a_message";
    if let Some(kind) = role() {
        let shared = Guarded::of_kind(kind.parse().unwrap());
        on_one_worker(|| {
            shared.lock();
            greenroom::scope(|s| _ = s.spawn(|| during_a_panic(|| shared.lock())));
        });
        return;
    }
    for kind in KINDS {
        let output = again!(test, &kind.to_string()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
        assert!(stderr.contains("waits for a mutex of C"), "{stderr}");
    }
}

#[test]
fn a_destructor_gives_up_a_timed_lock_of_c_of_its_own_worker() {
    for kind in KINDS {
        let shared = Guarded::of_kind(kind);
        on_one_worker(|| {
            shared.lock();
            let mut outcome = 0;
            let wait = || during_a_panic(|| outcome = shared.lock_within(MOMENT));
            greenroom::scope(|s| s.spawn(wait).join().unwrap());
            assert_eq!(outcome, libc::ETIMEDOUT);
            shared.unlock();
        });
    }
}

#[test]
fn a_time_that_is_past_or_not_valid_is_not_waited_for() {
    let shared = Guarded::new();
    let time = |tv_sec, tv_nsec| timespec { tv_sec, tv_nsec };
    on_one_worker(|| {
        shared.lock();
        let lock = |until: timespec| {
            greenroom::scope(|s| s.spawn(|| shared.lock_until(until)).join().unwrap())
        };
        assert_eq!(lock(time(-1, 0)), libc::ETIMEDOUT);
        assert_eq!(lock(time(0, 0)), libc::ETIMEDOUT);
        assert_eq!(lock(time(i64::MAX, 1_000_000_000)), libc::EINVAL);
        assert_eq!(lock(time(i64::MAX, -1)), libc::EINVAL);
        shared.unlock();
        assert_eq!(lock(time(-1, 0)), 0, "a free mutex needs no time");
        shared.unlock();
    });
}

#[test]
fn a_wait_of_c_for_a_time_that_never_comes_parks() {
    let shared = Guarded::new();
    on_one_worker(|| {
        greenroom::scope(|s| {
            s.spawn(|| {
                shared.lock();
                while shared.value() == 0 {
                    let never = timespec {
                        tv_sec: i64::MAX,
                        tv_nsec: 999_999_999,
                    };
                    assert_eq!(shared.wait_until(never), 0);
                }
                shared.unlock();
            });
            sleep(MOMENT);
            shared.lock();
            shared.set(1);
            shared.unlock();
            shared.signal();
        });
    });
}

#[test]
fn the_number_of_the_last_error_is_untouched_by_the_waits_of_c() {
    use crate::calls::{errno, set_errno};

    let shared = Guarded::new();
    on_one_worker(|| {
        greenroom::scope(|s| {
            shared.lock();
            let waiter = s.spawn(|| {
                set_errno(77);
                shared.lock();
                let after_lock = errno();
                while shared.value() == 0 {
                    shared.wait();
                }
                shared.unlock();
                (after_lock, errno())
            });
            let fail = || {
                sleep(MOMENT);
                set_errno(1);
            };
            fail();
            shared.unlock();
            fail();
            shared.lock();
            shared.set(1);
            shared.unlock();
            shared.signal();
            set_errno(1);
            assert_eq!(waiter.join().unwrap(), (77, 77));
        });
    });
}
