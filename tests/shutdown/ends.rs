//! What is left when a runtime ends, and what destructors may do then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::net::UdpSocket;
use greenroom::shims::sync::{self, mpsc};
use greenroom::shims::thread;
use greenroom::{
    Cancelled, JoinHandle, Runtime, RuntimeBuilder, Unparker, park, park_timeout, spawn,
    spawn_local, yield_now,
};

use crate::util::{self, Finally};

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

/// Joins a coroutine when dropped.
fn joins<T>(joined: JoinHandle<T>) -> Finally<impl FnMut()> {
    let mut joined = Some(joined);
    Finally(move || {
        let _ = joined.take().unwrap().join();
    })
}

#[test]
fn a_runtime_may_move_while_its_coroutines_wait() {
    util::on_an_os_thread(|| {
        let mut first_place = vec![runtime(1)];
        let sleeper = first_place[0].run(|| {
            let sleeper = spawn(|| {
                thread::sleep(20 * MILLI);
                7
            });
            yield_now();
            sleeper
        });
        let second_place = first_place.pop().unwrap();
        drop(first_place);
        // Something else in the place where the runtime was.
        let other = std::hint::black_box(vec![0x41_u8; size_of::<Runtime>()]);
        assert_eq!(second_place.run(|| sleeper.join().unwrap()), 7);
        assert!(other.iter().all(|&byte| byte == 0x41));
    });
}

#[test]
fn a_coroutine_whose_operations_never_wait_ends_with_its_runtime() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let addr = socket.local_addr().unwrap();
                loop {
                    let _ = socket.send_to(b"x", addr);
                }
            });
            thread::sleep(5 * MILLI);
        });
    }
}

#[test]
fn captures_of_a_coroutine_that_never_ran_may_wait_when_they_are_dropped() {
    let joined = Arc::new(AtomicUsize::new(0));
    for local in [false, true] {
        util::on_workers(1, || {
            let sleeper = spawn(|| thread::sleep(LONG));
            yield_now();
            let (joins, joined) = (joins(sleeper), Arc::clone(&joined));
            let waits = Finally(move || {
                // The captures of a closure are dropped in order. The drop of `joins` joins.
                let _ = &joins;
                thread::sleep(Duration::ZERO);
                joined.fetch_add(1, SeqCst);
            });
            let never_runs = move || {
                let _waits = waits;
                unreachable!();
            };
            match local {
                true => drop(spawn_local(never_runs)),
                false => drop(spawn(never_runs)),
            }
        });
    }
    assert_eq!(joined.load(SeqCst), 2);
}

#[test]
fn a_runtime_is_not_run_by_what_another_one_drops() {
    util::on_an_os_thread(|| {
        let other = Rc::new(runtime(1));
        let refused = Rc::new(AtomicBool::new(false));
        runtime(1).run({
            let (other, refused) = (Rc::clone(&other), Rc::clone(&refused));
            move || {
                let runs_it = Finally(move || {
                    let borrowed = [7; 16];
                    let run = AssertUnwindSafe(|| other.run(|| assert_eq!(borrowed, [7; 16])));
                    refused.store(catch_unwind(run).is_err(), SeqCst);
                });
                spawn_local(move || drop(runs_it));
            }
        });
        assert!(refused.load(SeqCst));
        assert_eq!(other.run(|| "its own main"), "its own main");
    });
}

#[test]
fn waits_with_deadlines_in_destructors_may_be_ended_by_others() {
    let start = Instant::now();
    util::on_workers(1, || {
        let waits = Arc::new(Mutex::new(None));
        let waiter = Arc::clone(&waits);
        spawn(move || {
            let _unparks = Finally(|| {
                let waiter: Option<Unparker> = waiter.lock().unwrap().take();
                waiter.unwrap().unpark();
            });
            thread::sleep(LONG);
        });
        spawn(move || {
            *waits.lock().unwrap() = Some(Unparker::current());
            let _parks = Finally(|| assert!(park_timeout(LONG)));
            thread::sleep(LONG);
        });
        thread::sleep(5 * MILLI);
    });
    assert!(start.elapsed() < LONG / 10);
}

#[test]
fn coroutines_that_spin_on_a_yield_let_others_unwind() {
    let flag = Arc::new(AtomicBool::new(false));
    util::on_workers(1, || {
        let sleeper = spawn(|| thread::sleep(LONG));
        let seen = Arc::clone(&flag);
        spawn(move || {
            while !seen.load(SeqCst) {
                yield_now();
            }
        });
        let sets = Finally(move || flag.store(true, SeqCst));
        spawn(move || {
            let (_then_sets, _joins) = (sets, joins(sleeper));
            thread::sleep(LONG);
        });
        thread::sleep(5 * MILLI);
    });
}

#[test]
fn a_panic_while_another_coroutine_unwinds_does_not_end_the_process() {
    let panicked = Arc::new(AtomicUsize::new(0));
    util::on_workers(1, || {
        let sleeper = spawn(|| thread::sleep(LONG));
        let victim = Arc::new(Mutex::new(None));
        spawn({
            let (victim, panicked) = (Arc::clone(&victim), Arc::clone(&panicked));
            move || {
                *victim.lock().unwrap() = Some(Unparker::current());
                let _sleeps = Finally(|| {
                    thread::sleep(5 * MILLI);
                    panicked.fetch_add(1, SeqCst);
                });
                park();
                panic!("a test's panic");
            }
        });
        spawn(move || {
            let _joins = joins(sleeper);
            let _unparks = Finally(|| {
                let victim: Option<Unparker> = victim.lock().unwrap().take();
                victim.unwrap().unpark();
            });
            thread::sleep(LONG);
        });
        thread::sleep(5 * MILLI);
    });
    assert_eq!(panicked.load(SeqCst), 1);
}

#[test]
fn coroutines_that_never_ran_are_cancelled_and_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = util::on_workers(4, || {
        (0..1_000)
            .map(|_| {
                let dropped = Arc::clone(&dropped);
                let counts = Finally(move || {
                    dropped.fetch_add(1, SeqCst);
                });
                spawn(move || {
                    let _counts = counts;
                    thread::sleep(LONG);
                })
            })
            .collect()
    });
    assert_eq!(dropped.load(SeqCst), 1_000);
    for handle in handles {
        assert!(handle.join().unwrap_err().is::<Cancelled>());
    }
}

#[test]
fn parents_unwind_with_the_children_they_wait_for() {
    for workers in [1, 4] {
        let went_on = Arc::new(AtomicUsize::new(0));
        util::on_workers(workers, || {
            let parent = |waits: fn()| {
                let went_on = Arc::clone(&went_on);
                spawn(move || {
                    waits();
                    went_on.fetch_add(1, SeqCst);
                })
            };
            parent(|| drop(spawn(|| thread::sleep(LONG)).join()));
            parent(|| {
                greenroom::scope(|s| drop(s.spawn(|| thread::sleep(LONG)).join()));
            });
            parent(|| {
                let (sender, receiver) = mpsc::channel::<()>();
                spawn(move || {
                    thread::sleep(LONG);
                    drop(sender);
                });
                let _ = receiver.recv();
            });
            parent(|| {
                let (sender, receiver) = mpsc::sync_channel(0);
                spawn(move || {
                    thread::sleep(LONG);
                    drop(receiver);
                });
                let _ = sender.send(());
            });
            thread::sleep(20 * MILLI);
        });
        assert_eq!(went_on.load(SeqCst), 0);
    }
}

#[test]
fn a_lock_is_waited_for_while_its_holder_unwinds() {
    for workers in [1, 4] {
        let had_it = Arc::new(AtomicBool::new(false));
        util::on_workers(workers, || {
            let lock = Arc::new(sync::Mutex::new(()));
            let (tell, told) = mpsc::channel();
            spawn({
                let (lock, tell) = (Arc::clone(&lock), tell.clone());
                move || {
                    let _guard = lock.lock();
                    tell.send("it is locked").unwrap();
                    let _takes_its_time = Finally(|| {
                        let start = Instant::now();
                        thread::sleep(20 * MILLI);
                        assert!(start.elapsed() >= 20 * MILLI);
                        greenroom::unblock(|| std::thread::sleep(20 * MILLI));
                    });
                    thread::sleep(LONG);
                }
            });
            assert_eq!(told.recv(), Ok("it is locked"));
            let seen = Arc::clone(&had_it);
            spawn(move || {
                tell.send("it is waited for").unwrap();
                let _guard = lock.lock();
                seen.store(true, SeqCst);
            });
            assert_eq!(told.recv(), Ok("it is waited for"));
            thread::sleep(5 * MILLI);
        });
        assert!(had_it.load(SeqCst));
    }
}

#[test]
fn a_destructor_that_waits_for_a_thread_does_not_keep_the_processor_busy() {
    const HELD: Duration = Duration::from_millis(500);
    util::in_one_of_ten(|| {
        let lock = Arc::new(sync::Mutex::new(()));
        let runtime = runtime(1);
        let (ends, is_ending) = std::sync::mpsc::channel();
        let holder = runtime.run(|| {
            let (told, is_told) = mpsc::channel();
            let holder = std::thread::spawn({
                let lock = Arc::clone(&lock);
                move || {
                    let _guard = lock.lock();
                    told.send(()).unwrap();
                    is_ending.recv().unwrap();
                    std::thread::sleep(HELD);
                }
            });
            is_told.recv().unwrap();
            util::begin(move || {
                let _locks = Finally(|| drop(lock.lock()));
                thread::sleep(LONG);
            });
            holder
        });
        let (start, before) = (Instant::now(), util::thread_cpu_time());
        ends.send(()).unwrap();
        drop(runtime);
        let (took, busy) = (start.elapsed(), util::thread_cpu_time() - before);
        holder.join().unwrap();
        // The lock may have been free when this got a processor.
        let was_idle = took > HELD / 5 && busy < HELD / 5;
        was_idle
            .then_some(())
            .ok_or_else(|| format!("busy for {busy:?} of {took:?}"))
    });
}

#[test]
fn a_coroutine_that_unwinds_out_of_a_scope_may_wait_in_destructors() {
    let ended = Arc::new(AtomicUsize::new(0));
    util::on_workers(1, || {
        let takes = |time: Duration| {
            let ended = Arc::clone(&ended);
            Finally(move || {
                greenroom::unblock(move || std::thread::sleep(time));
                ended.fetch_add(1, SeqCst);
            })
        };
        let lock = Arc::new(sync::Mutex::new(()));
        let (told, is_told) = mpsc::channel();
        std::thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let _guard = lock.lock();
                told.send(()).unwrap();
                std::thread::sleep(50 * MILLI);
            }
        });
        is_told.recv().unwrap();
        let unwinds_for_long = takes(100 * MILLI);
        spawn(move || {
            let _takes = unwinds_for_long;
            thread::sleep(LONG);
        });
        let after_its_scope = takes(MILLI);
        spawn(move || {
            let _takes = after_its_scope;
            greenroom::scope(|s| {
                s.spawn(|| drop(lock.lock()));
                thread::sleep(LONG);
            });
        });
        thread::sleep(5 * MILLI);
    });
    assert_eq!(ended.load(SeqCst), 2);
}

type Waits = Box<dyn FnOnce() + Send>;

/// Waits that std never unwinds. None of them ends.
fn waits_for_ever() -> [(&'static str, Waits); 6] {
    let locked = Arc::new(sync::Mutex::new(()));
    std::mem::forget(locked.lock());
    let notified = Arc::new((sync::Mutex::new(()), sync::Condvar::new()));
    [
        ("a park", Box::new(park)),
        ("a lock", Box::new(move || drop(locked.lock()))),
        (
            "a condition variable",
            Box::new(move || drop(notified.1.wait(notified.0.lock().unwrap()))),
        ),
        ("a barrier", Box::new(|| _ = sync::Barrier::new(2).wait())),
        (
            "the end of a scope",
            Box::new(|| {
                greenroom::scope(|s| {
                    s.spawn(park);
                });
            }),
        ),
        (
            "a park in a destructor",
            Box::new(|| {
                let _parks = Finally(park);
                thread::sleep(LONG);
            }),
        ),
    ]
}

#[test]
fn a_wait_that_std_never_unwinds_neither_unwinds_nor_returns() {
    for workers in [1, 4] {
        for (name, waits) in waits_for_ever() {
            let ended = Arc::new(AtomicBool::new(false));
            let ends = Arc::clone(&ended);
            let (waiting, is_waiting) = mpsc::channel();
            let handle = util::on_workers(workers, || {
                let handle = spawn(move || {
                    let _ends = Finally(|| ends.store(true, SeqCst));
                    waiting.send(()).unwrap();
                    waits();
                });
                is_waiting.recv().unwrap();
                thread::sleep(5 * MILLI);
                handle
            });
            assert!(!ended.load(SeqCst), "{name}");
            assert!(!handle.is_finished(), "{name}");
        }
    }
}

#[test]
fn coroutines_that_are_left_behind_hold_up_nobody_else() {
    for workers in [1, 4] {
        let unwound = Arc::new(AtomicUsize::new(0));
        let test = || {
            for (_, waits) in waits_for_ever() {
                spawn(waits);
                let unwound = Arc::clone(&unwound);
                let (begun, begins) = mpsc::channel();
                spawn(move || {
                    let _unwinds = Finally(|| {
                        thread::sleep(200 * MILLI);
                        unwound.fetch_add(1, SeqCst);
                    });
                    begun.send(()).unwrap();
                    thread::sleep(LONG);
                });
                begins.recv().unwrap();
            }
            thread::sleep(20 * MILLI);
        };
        // Each on a fresh thread, on which no coroutine was left behind before.
        std::thread::scope(|s| s.spawn(|| util::on_workers(workers, test)).join().unwrap());
        assert_eq!(unwound.load(SeqCst), 6);
    }
}

/// std's panic count of the thread stays raised. So later coroutines there are not unwound, because they
/// may be unwinding.
#[test]
fn a_thread_can_be_used_after_a_coroutine_was_left_behind_there_during_its_unwind() {
    util::on_an_os_thread(|| {
        for _ in 0..3 {
            runtime(1).run(|| {
                spawn(|| {
                    let _parks = Finally(park);
                    thread::sleep(LONG);
                });
                assert_eq!(spawn(|| 7).join().unwrap(), 7);
                let (sender, receiver) = mpsc::channel();
                spawn(move || {
                    thread::sleep(MILLI);
                    sender.send(8).unwrap();
                });
                assert_eq!(receiver.recv(), Ok(8));
                assert!(!thread::panicking());
            });
        }
    });
}

#[test]
fn a_coroutine_that_was_left_behind_is_passed_over_by_wakers() {
    for workers in [1, 4] {
        let lock = Arc::new(sync::Mutex::new(0));
        let guard = lock.lock().unwrap();
        util::on_workers(workers, || {
            let lock = Arc::clone(&lock);
            spawn(move || *lock.lock().unwrap() += 100);
            thread::sleep(20 * MILLI);
        });
        let second = std::thread::spawn({
            let lock = Arc::clone(&lock);
            move || *lock.lock().unwrap() += 1
        });
        std::thread::sleep(20 * MILLI);
        drop(guard);
        second.join().unwrap();
        assert_eq!(*lock.lock().unwrap(), 1);
    }
}

/// Other crates build scopes like this: they transmute the lifetime away, and wait by a lock and a
/// condition variable.
#[test]
fn what_is_lent_until_a_condition_variable_is_notified_outlives_the_borrower() {
    struct Member(Arc<(sync::Mutex<usize>, sync::Condvar)>);
    impl Drop for Member {
        fn drop(&mut self) {
            let mut running = self
                .0
                .0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            *running -= 1;
            self.0.1.notify_all();
        }
    }
    fn scope_of_one<'env>(f: impl FnOnce() + Send + 'env) {
        let running = Arc::new((sync::Mutex::new(1), sync::Condvar::new()));
        let member = Member(Arc::clone(&running));
        let f: Box<dyn FnOnce() + Send + 'env> = Box::new(move || {
            let _member = member;
            f();
        });
        // SAFETY: the closure and all that it borrows stay until the closure has ended, which is waited
        // for.
        let f: Box<dyn FnOnce() + Send> = unsafe { std::mem::transmute(f) };
        thread::spawn(f);
        let mut left = running.0.lock().unwrap();
        while *left > 0 {
            left = running.1.wait(left).unwrap();
        }
    }
    /// Sets the flag when it is dropped.
    struct Lent(Arc<AtomicBool>);
    impl Drop for Lent {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    for wait in [park as fn(), || thread::sleep(LONG)] {
        for workers in [1, 4] {
            let (gone, too_late) = (Arc::default(), Arc::new(AtomicBool::new(false)));
            util::on_workers(workers, || {
                let (lent, too_late) = (Lent(Arc::clone(&gone)), Arc::clone(&too_late));
                thread::spawn(move || {
                    scope_of_one(|| {
                        let _uses = Finally(|| {
                            thread::sleep(50 * MILLI);
                            too_late.store(lent.0.load(SeqCst), SeqCst);
                        });
                        wait();
                    });
                });
                thread::sleep(20 * MILLI);
            });
            assert!(!too_late.load(SeqCst));
        }
    }
}

#[test]
fn a_join_of_an_unchecked_coroutine_does_not_return_before_it_has_ended() {
    util::on_an_os_thread(|| {
        let (one, other) = (runtime(1), runtime(1));
        let stop = Arc::new(AtomicBool::new(false));
        let looks = Arc::clone(&stop);
        let (begun, is_begun) = mpsc::channel();
        let body = move || {
            begun.send(()).unwrap();
            std::thread::scope(|s| {
                s.spawn(move || {
                    while !looks.load(SeqCst) {
                        std::thread::sleep(MILLI);
                    }
                });
                park();
            });
        };
        let handle = one.run(|| {
            // SAFETY: nothing is borrowed.
            let handle = unsafe { greenroom::Builder::new().spawn_unchecked(body) };
            is_begun.recv().unwrap();
            handle.unwrap()
        });
        // The coroutine cannot run there, so it is left behind.
        other.run(move || drop(one));
        let joined = Arc::new(AtomicBool::new(false));
        let joins = Arc::clone(&joined);
        std::thread::spawn(move || {
            let _ = handle.join();
            joins.store(true, SeqCst);
        });
        std::thread::sleep(50 * MILLI);
        assert!(!joined.load(SeqCst));
        stop.store(true, SeqCst);
    });
}

#[test]
fn a_coroutine_that_yields_until_others_have_unwound_has_few_turns() {
    const OTHERS: usize = 2_000;
    struct Stops(Arc<AtomicBool>);
    impl Drop for Stops {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let (stop, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let runtime = runtime(1);
    runtime.run(|| {
        // The oldest coroutine, which unwinds last.
        let stops = Stops(Arc::clone(&stop));
        spawn(move || {
            let _stops = stops;
            thread::sleep(LONG);
        });
        let turns = Arc::clone(&turns);
        spawn(move || {
            while !stop.load(SeqCst) {
                turns.fetch_add(1, SeqCst);
                yield_now();
            }
        });
        for _ in 0..OTHERS {
            spawn(|| thread::sleep(LONG));
        }
        for _ in 0..10 {
            yield_now();
        }
    });
    turns.store(0, SeqCst);
    drop(runtime);
    assert!(turns.load(SeqCst) <= OTHERS, "{turns:?}");
}

/// On the first worker, a coroutine waits for an unpark that comes from one of the second worker, which
/// computes for longer than a runtime without events waits.
#[test]
fn a_coroutine_is_not_left_behind_while_another_worker_computes_that_will_wake_it() {
    /// Waits, and then unparks the coroutine of the second worker: during the shutdown, by an unwind.
    struct UnparkOnDrop(Unparker);

    impl Drop for UnparkOnDrop {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(30));
            self.0.unpark();
        }
    }

    let woken = Arc::new(AtomicBool::new(false));
    let runtime = runtime(2);
    let seen = Arc::clone(&woken);
    runtime.run(move || {
        let first = Arc::new(Mutex::new(None));
        let own = Arc::clone(&first);
        spawn_local(move || {
            *own.lock().unwrap() = Some(Unparker::current());
            park();
            seen.store(true, SeqCst);
        });
        yield_now();
        let (send, second) = std::sync::mpsc::channel();
        spawn(move || {
            send.send(Unparker::current()).unwrap();
            park();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(400) {
                std::hint::spin_loop();
            }
            first.lock().unwrap().take().unwrap().unpark();
        });
        // This keeps the first worker, so that the second one steals the coroutine.
        let second = second.recv().unwrap();
        spawn_local(move || {
            let _unpark = UnparkOnDrop(second);
            thread::sleep(Duration::MAX);
        });
        yield_now();
    });
    drop(runtime);
    assert!(woken.load(SeqCst));
}
