//! What is left when a runtime ends, and what its destructors may do.

mod util;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::net::UdpSocket;
use greenroom::shims::sync::{self, mpsc};
use greenroom::shims::{panic, thread};
use greenroom::{
    Cancelled, JoinHandle, Runtime, RuntimeBuilder, Unparker, park, park_timeout, spawn,
    spawn_local, yield_now,
};
use util::Finally;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

/// Joins a coroutine where it is dropped.
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
        // Where it was.
        let other = std::hint::black_box(vec![0x41_u8; size_of::<Runtime>()]);
        assert_eq!(second_place.run(|| sleeper.join().unwrap()), 7);
        assert!(other.iter().all(|&byte| byte == 0x41));
    });
}

#[test]
fn a_coroutine_whose_operations_never_have_to_wait_ends_with_its_runtime() {
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
fn what_a_coroutine_captured_that_never_ran_may_wait_when_it_is_dropped() {
    let joined = Arc::new(AtomicUsize::new(0));
    for local in [false, true] {
        util::on_workers(1, || {
            let sleeper = spawn(|| thread::sleep(LONG));
            yield_now();
            let (joins, joined) = (joins(sleeper), Arc::clone(&joined));
            let waits = Finally(move || {
                // A closure's captures are dropped in order; this joins by its capture's drop.
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
fn destructors_that_wait_with_a_deadline_may_be_ended_by_others() {
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
fn a_destructor_that_parks_in_a_panic_goes_on_when_its_runtime_ends() {
    let went_on = Arc::new(AtomicBool::new(false));
    util::on_workers(2, || {
        let parks = Arc::new(AtomicBool::new(false));
        spawn({
            let (parks, went_on) = (Arc::clone(&parks), Arc::clone(&went_on));
            move || {
                let _parks = Finally(|| {
                    parks.store(true, SeqCst);
                    park();
                    went_on.store(true, SeqCst);
                });
                panic!("a test's panic");
            }
        });
        while !parks.load(SeqCst) {
            std::thread::sleep(MILLI); // the other worker runs it, this one must not
        }
    });
    assert!(went_on.load(SeqCst));
}

#[test]
fn those_that_spin_on_a_yield_let_others_unwind() {
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
fn a_panic_while_another_unwinds_does_not_end_the_process() {
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
fn those_that_never_ran_are_cancelled_and_dropped() {
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
fn a_destructor_that_parks_again_and_again_does_not_keep_the_shutdown() {
    struct Parks;
    impl Drop for Parks {
        fn drop(&mut self) {
            for _ in 0..3 {
                greenroom::park();
            }
        }
    }
    for workers in [1, 4] {
        util::on_workers(workers, || {
            greenroom::spawn(|| {
                let _parks = Parks;
                greenroom::park();
            });
            greenroom::park_timeout(Duration::from_millis(5));
        });
    }
}

#[test]
fn parents_unwind_with_those_they_wait_for() {
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
            spawn({
                let lock = Arc::clone(&lock);
                move || {
                    let _guard = lock.lock();
                    let _takes_its_time = Finally(|| {
                        let start = Instant::now();
                        thread::sleep(20 * MILLI);
                        assert!(start.elapsed() >= 20 * MILLI);
                        greenroom::unblock(|| std::thread::sleep(20 * MILLI));
                    });
                    thread::sleep(LONG);
                }
            });
            thread::sleep(5 * MILLI);
            let seen = Arc::clone(&had_it);
            spawn(move || {
                let _guard = lock.lock();
                seen.store(true, SeqCst);
            });
            thread::sleep(5 * MILLI);
        });
        assert!(had_it.load(SeqCst));
    }
}

#[test]
fn a_destructor_that_waits_for_a_thread_does_not_keep_the_processor_busy() {
    fn processor_time() -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer is to a `timespec`, which is written.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
    const HELD: Duration = Duration::from_millis(500);
    let lock = Arc::new(sync::Mutex::new(()));
    let runtime = runtime(1);
    let holder = runtime.run(|| {
        let (told, is_told) = mpsc::channel();
        let holder = std::thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let _guard = lock.lock();
                told.send(()).unwrap();
                std::thread::sleep(HELD);
            }
        });
        is_told.recv().unwrap();
        spawn(move || {
            let _locks = Finally(|| drop(lock.lock()));
            thread::sleep(LONG);
        });
        yield_now();
        holder
    });
    let (start, before) = (Instant::now(), processor_time());
    drop(runtime);
    assert!(start.elapsed() > HELD / 5, "it was locked");
    assert!(processor_time() - before < HELD / 5);
    holder.join().unwrap();
}

#[test]
fn one_that_has_caught_an_unwind_amid_that_of_another_is_interrupted_as_ever() {
    let caught = Arc::new(AtomicUsize::new(0));
    util::on_workers(1, || {
        let catches = Arc::clone(&caught);
        let helper = spawn(move || {
            loop {
                let slept = panic::catch_unwind(|| thread::sleep(LONG));
                assert!(slept.is_err());
                assert!(!thread::panicking());
                catches.fetch_add(1, SeqCst);
                thread::sleep(LONG);
            }
        });
        // The younger one, which unwinds first.
        spawn(move || {
            let _joins = joins(helper);
            thread::sleep(LONG);
        });
        thread::sleep(5 * MILLI);
    });
    assert_eq!(caught.load(SeqCst), 1);
}

#[test]
fn one_that_goes_on_unwinding_out_of_a_scope_amid_others_may_wait_in_destructors() {
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
