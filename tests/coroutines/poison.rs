//! Panics of coroutines that share a thread: std's state per thread comes out right for each coroutine.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::panicking;
use std::time::Duration;

use greenroom::shims::thread;
use serial_test::serial;

use crate::util;

const COUNT: usize = 100;

/// Waits, so that other coroutines of the worker run.
fn wait(n: usize) {
    thread::sleep(Duration::from_micros(n as u64 % 7 * 100));
}

/// Waits in its destructor. Records whether its thread panics, before and after the wait.
struct WaitsInDrop<'a>(&'a Cell<[bool; 2]>);

impl Drop for WaitsInDrop<'_> {
    fn drop(&mut self) {
        let before = panicking();
        wait(3);
        self.0.set([before, panicking()]);
    }
}

/// Panics with the payload `n`, without the hook.
fn panic_with(n: usize) {
    resume_unwind(Box::new(n));
}

/// Holds its locks; with a panic, if `n` is odd.
fn hold(n: usize, mutex: &Mutex<usize>, lock: &RwLock<usize>) {
    let saw = Cell::new([false; 2]);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = mutex.lock().unwrap();
        let mut writer = lock.write().unwrap();
        let _waits = WaitsInDrop(&saw);
        for _ in 0..5 {
            wait(n);
            *guard += 1;
            *writer += 1;
            assert!(!panicking());
        }
        if n % 2 == 1 {
            panic_with(n);
        }
    }));
    assert!(!panicking());
    wait(n);
    assert_eq!(saw.get(), [n % 2 == 1; 2]);
    if let Err(payload) = outcome {
        assert_eq!(*payload.downcast::<usize>().unwrap(), n);
    }
}

#[test]
#[serial]
fn a_panic_poisons_the_locks_of_its_own_coroutine_and_no_others() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let locks: Vec<_> = (0..COUNT)
                .map(|_| Arc::new((Mutex::new(0), RwLock::new(0))))
                .collect();
            let holders: Vec<_> = (0..COUNT)
                .map(|n| {
                    let locks = Arc::clone(&locks[n]);
                    thread::spawn(move || hold(n, &locks.0, &locks.1))
                })
                .collect();
            for holder in holders {
                holder.join().unwrap();
            }
            for (n, locks) in locks.iter().enumerate() {
                let poisoned = (locks.0.is_poisoned(), locks.1.is_poisoned());
                assert_eq!(poisoned, (n % 2 == 1, n % 2 == 1), "those of {n}");
                assert_eq!(
                    *locks.0.lock().unwrap_or_else(|poison| poison.into_inner()),
                    5
                );
            }
        });
    }
}

#[test]
#[serial]
fn a_guard_held_across_anothers_panic_does_not_poison() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let locks: Vec<_> = (0..COUNT).map(|_| Arc::new(Mutex::new(()))).collect();
            let holders: Vec<_> = (0..COUNT)
                .map(|n| {
                    let lock = Arc::clone(&locks[n]);
                    thread::spawn(move || {
                        let guard = lock.lock().unwrap();
                        let child = thread::spawn(move || {
                            wait(n);
                            let _waits = WaitsInDrop(&Cell::new([false; 2]));
                            panic_with(n);
                        });
                        let payload = child.join().unwrap_err();
                        // The guard is also held across a panic of its own coroutine, which catches it.
                        let caught = catch_unwind(AssertUnwindSafe(|| panic_with(n))).unwrap_err();
                        for payload in [payload, caught] {
                            assert_eq!(*payload.downcast::<usize>().unwrap(), n);
                        }
                        drop(guard);
                    })
                })
                .collect();
            for holder in holders {
                holder.join().unwrap();
            }
            assert!(locks.iter().all(|lock| !lock.is_poisoned()));
        });
    }
}

/// Many coroutines of each worker check the value and the address of thread-locals.
#[test]
#[serial]
fn thread_locals_keep_their_place_and_belong_to_the_worker() {
    thread_local! {
        static CONST: Cell<u64> = const { Cell::new(0) };
        static LAZY: Cell<u64> = Cell::new(own_id());
        static DROPPED: Noted = Noted(Cell::new(own_id()));
    }
    struct Noted(Cell<u64>);
    impl Drop for Noted {
        fn drop(&mut self) {
            assert_eq!(self.0.get(), own_id(), "dropped by its own thread");
        }
    }
    fn own_id() -> u64 {
        // SAFETY: the call has no preconditions.
        unsafe { libc::gettid() as u64 }
    }
    for workers in [1, 2, 4] {
        util::on_workers(workers, || {
            let crowd: Vec<_> = (0..4 * COUNT)
                .map(|n| {
                    thread::spawn(move || {
                        let of_thread = own_id();
                        CONST.with(|cell| {
                            LAZY.with(|lazy| {
                                DROPPED.with(|dropped| {
                                    for round in 0..10 {
                                        // No other coroutine of the thread runs between these.
                                        cell.set(of_thread + n as u64);
                                        assert_eq!(CONST.get(), of_thread + n as u64);
                                        wait(n + round);
                                        assert_eq!(own_id(), of_thread);
                                        assert!(CONST.with(|now| std::ptr::eq(now, cell)));
                                        assert!(LAZY.with(|now| std::ptr::eq(now, lazy)));
                                        assert!(DROPPED.with(|now| std::ptr::eq(now, dropped)));
                                        assert_eq!(lazy.get(), of_thread);
                                        assert_eq!(dropped.0.get(), of_thread);
                                    }
                                });
                            });
                        });
                    })
                })
                .collect();
            for coroutine in crowd {
                coroutine.join().unwrap();
            }
        });
    }
}
