//! Runtimes: what they run, what they leave behind, how they end.

mod util;

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::thread;
use greenroom::{
    Builder, Cancelled, JoinHandle, Runtime, RuntimeBuilder, park, spawn, spawn_local, wait_idle,
    yield_now,
};
use serial_test::serial;
use util::{Counted, message};

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(10_000);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
#[serial]
fn run_returns_the_result_of_main_and_lends_the_callers_borrows() {
    util::on_an_os_thread(|| {
        let mut text = String::from("lent");
        let length = greenroom::run(|| {
            thread::sleep(MILLI);
            text.push_str(" and changed");
            text.len()
        });
        assert_eq!((length, &*text), (16, "lent and changed"));
        // The result of main may borrow, and need not be `Send`.
        let borrowed: Rc<&str> = runtime(4).run(|| Rc::new(&*text));
        assert_eq!(*borrowed, text);
    });
}

#[test]
#[serial]
fn run_runs_main_on_the_calling_thread() {
    util::on_an_os_thread(|| {
        let here = std::thread::current().id();
        for workers in [1, 4] {
            runtime(workers).run(|| {
                assert_eq!(std::thread::current().id(), here);
                thread::sleep(MILLI);
                assert_eq!(std::thread::current().id(), here);
                assert_eq!(thread::current().name(), Some("main"));
            });
        }
    });
}

#[test]
#[serial]
fn a_panic_of_main_comes_out_of_run_after_the_others_were_unwound() {
    util::on_an_os_thread(|| {
        for workers in [1, 4] {
            let drops = Arc::new(AtomicUsize::new(0));
            let seen = Arc::new(AtomicUsize::new(usize::MAX));
            struct Witness<'a>(&'a AtomicUsize, Arc<AtomicUsize>);
            impl Drop for Witness<'_> {
                fn drop(&mut self) {
                    self.1.store(self.0.load(SeqCst), SeqCst);
                }
            }
            let result = catch_unwind(AssertUnwindSafe(|| {
                let _witness = Witness(&drops, Arc::clone(&seen));
                runtime(workers).run(|| {
                    let started = Arc::new(AtomicUsize::new(0));
                    for _ in 0..50 {
                        let (guard, started) = (Counted(Arc::clone(&drops)), Arc::clone(&started));
                        spawn(move || {
                            let _guard = guard;
                            started.fetch_add(1, SeqCst);
                            thread::sleep(LONG);
                        });
                    }
                    while started.load(SeqCst) < 50 {
                        thread::sleep(MILLI);
                    }
                    resume_unwind(Box::new(String::from("of main")));
                })
            }));
            let payload = result.map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref::<String>().unwrap(), "of main");
            assert_eq!(seen.load(SeqCst), 50, "on {workers} workers");
        }
    });
}

#[test]
#[serial]
fn a_runtime_whose_main_has_panicked_says_that_it_is_over() {
    util::on_an_os_thread(|| {
        let runtime = runtime(1);
        let first = catch_unwind(AssertUnwindSafe(|| {
            runtime.run(|| resume_unwind(Box::new(1)))
        }));
        first.map(|(): ()| ()).unwrap_err();
        let second = catch_unwind(AssertUnwindSafe(|| runtime.run(|| 2)));
        assert_eq!(message(&*second.unwrap_err()), "the runtime has shut down");
    });
}

/// A way to wait for ever. Counts itself before it waits.
type Waits = Box<dyn FnOnce(&AtomicUsize) + Send>;

/// All ways to wait, each for a coroutine of its own.
fn all_ways_to_wait() -> Vec<(&'static str, Waits)> {
    let (listener, udp) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let (near, mut far) = connection();
    let (full, unread) = connection();
    let sign = |ready: &AtomicUsize| {
        ready.fetch_add(1, SeqCst);
    };
    vec![
        (
            "sleep",
            Box::new(move |ready| {
                sign(ready);
                thread::sleep(LONG);
            }),
        ),
        (
            "read",
            Box::new(move |ready| {
                let _near = near;
                sign(ready);
                let end = far.read(&mut [0]).unwrap();
                unreachable!("the read returned {end}");
            }),
        ),
        (
            "write",
            Box::new(move |ready| {
                let _unread = unread;
                sign(ready);
                loop {
                    (&full).write_all(&[0; 1 << 16]).unwrap();
                }
            }),
        ),
        (
            "accept",
            Box::new(move |ready| {
                sign(ready);
                listener.accept().unwrap();
            }),
        ),
        (
            "recv_from",
            Box::new(move |ready| {
                sign(ready);
                udp.recv_from(&mut [0]).unwrap();
            }),
        ),
        (
            "join",
            Box::new(move |ready| {
                let other = spawn(|| thread::sleep(LONG));
                sign(ready);
                other.join().unwrap();
                unreachable!("the other never ends by itself");
            }),
        ),
        (
            "scope",
            Box::new(move |ready| {
                sign(ready);
                thread::scope(|s| {
                    s.spawn(|| thread::sleep(LONG));
                });
            }),
        ),
        (
            "yield and sleep",
            Box::new(move |ready| {
                sign(ready);
                loop {
                    yield_now();
                    thread::sleep(Duration::ZERO);
                    thread::sleep(MILLI);
                }
            }),
        ),
    ]
}

#[test]
#[serial]
fn the_end_of_a_runtime_unwinds_all_waits_and_tells_the_joiners() {
    for workers in [1, 4] {
        util::on_an_os_thread(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let runtime = runtime(workers);
            let handles: Vec<_> = runtime.run(|| {
                let ready = Arc::new(AtomicUsize::new(0));
                let ways = all_ways_to_wait();
                let number = ways.len();
                let spawn_one = |(way, wait): (&'static str, Waits)| {
                    let (guard, ready) = (Counted(Arc::clone(&drops)), Arc::clone(&ready));
                    let handle = spawn(move || {
                        let _guard = guard;
                        wait(&ready);
                    });
                    (way, handle)
                };
                let handles = ways.into_iter().map(spawn_one).collect();
                while ready.load(SeqCst) < number {
                    thread::sleep(MILLI);
                }
                thread::sleep(20 * MILLI);
                handles
            });
            for (way, handle) in &handles {
                assert!(!handle.is_finished(), "{way} ended by itself");
            }
            assert_eq!(drops.load(SeqCst), 0);
            drop(runtime);
            assert_eq!(drops.load(SeqCst), handles.len());
            let otherwise = handles.into_iter().filter_map(|(way, handle)| {
                assert!(handle.is_finished());
                let payload = handle.join().unwrap_err();
                (!payload.is::<Cancelled>()).then_some(way)
            });
            let otherwise = Vec::from_iter(otherwise);
            assert!(otherwise.is_empty(), "not cancelled: {otherwise:?}");
        });
    }
}

#[test]
#[serial]
fn run_unwinds_what_is_left_before_it_returns() {
    util::on_an_os_thread(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        greenroom::run(|| {
            for _ in 0..20 {
                let guard = Counted(Arc::clone(&drops));
                spawn(move || {
                    let _guard = guard;
                    thread::sleep(LONG);
                });
            }
            thread::sleep(5 * MILLI);
        });
        assert_eq!(drops.load(SeqCst), 20);
    });
}

#[test]
#[serial]
fn coroutines_that_never_started_are_dropped_and_their_joiners_told() {
    util::on_an_os_thread(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = util::on_workers(1, || {
            (0..20)
                .map(|n| {
                    let guard = Counted(Arc::clone(&drops));
                    let ran = move || {
                        let _guard = guard;
                        unreachable!("main has returned before this could run");
                    };
                    match n % 2 {
                        0 => spawn(ran),
                        _ => Builder::new().name("late".into()).spawn(ran).unwrap(),
                    }
                })
                .collect()
        });
        assert_eq!(drops.load(SeqCst), 20);
        for handle in handles {
            let payload: Box<dyn Any + Send> = handle.join().map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&Cancelled));
        }
    });
    util::on_an_os_thread(|| {
        for _ in 0..20 {
            let drops = Arc::new(AtomicUsize::new(0));
            let handles: Vec<_> = util::on_workers(4, || {
                (0..100)
                    .map(|n| {
                        let guard = Counted(Arc::clone(&drops));
                        spawn(move || {
                            let _guard = guard;
                            n
                        })
                    })
                    .collect()
            });
            assert_eq!(drops.load(SeqCst), 100);
            for (n, handle) in handles.into_iter().enumerate() {
                match handle.join() {
                    Ok(value) => assert_eq!(value, n),
                    Err(payload) => assert!(payload.is::<Cancelled>()),
                }
            }
        }
    });
}

#[test]
#[serial]
fn scoped_children_are_unwound_before_what_they_borrow_from_their_parent() {
    struct Parents<'a> {
        borrowers: &'a AtomicUsize,
        wrong: &'a AtomicBool,
    }
    impl Drop for Parents<'_> {
        fn drop(&mut self) {
            if self.borrowers.load(SeqCst) != 0 {
                self.wrong.store(true, SeqCst);
            }
        }
    }
    struct Borrower<'a>(&'a Parents<'a>);
    impl Drop for Borrower<'_> {
        fn drop(&mut self) {
            self.0.borrowers.fetch_sub(1, SeqCst);
        }
    }
    static BORROWERS: [AtomicUsize; 20] = [const { AtomicUsize::new(0) }; 20];
    static WRONG: AtomicBool = AtomicBool::new(false);
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for borrowers in &BORROWERS {
                spawn(move || {
                    let parents = Parents {
                        borrowers,
                        wrong: &WRONG,
                    };
                    thread::scope(|s| {
                        for n in 0..10 {
                            let parents = &parents;
                            s.spawn(move || {
                                // Here, so that the test waits until all have started.
                                parents.borrowers.fetch_add(1, SeqCst);
                                let borrower = Borrower(parents);
                                match n % 3 {
                                    0 | 1 => thread::sleep(LONG),
                                    // Makes the unwind take longer.
                                    _ => {
                                        let _ = catch_unwind(|| thread::sleep(LONG));
                                        for _ in 0..50 {
                                            yield_now();
                                        }
                                    }
                                }
                                drop(borrower);
                            });
                        }
                        thread::sleep(LONG);
                    });
                });
            }
            while BORROWERS.iter().any(|number| number.load(SeqCst) < 10) {
                thread::sleep(MILLI);
            }
            thread::sleep(10 * MILLI);
        });
        assert!(BORROWERS.iter().all(|number| number.load(SeqCst) == 0));
        assert!(!WRONG.load(SeqCst));
    }
}

#[test]
#[serial]
fn coroutines_spawned_while_a_runtime_ends_do_not_outlive_it() {
    for workers in [1, 4] {
        util::on_an_os_thread(|| {
            struct Spawns(Arc<AtomicUsize>, Arc<Mutex<Vec<JoinHandle<()>>>>);
            impl Drop for Spawns {
                fn drop(&mut self) {
                    let guard = Counted(Arc::clone(&self.0));
                    let late = spawn(move || {
                        let _guard = guard;
                        thread::sleep(LONG);
                    });
                    self.1.lock().unwrap().push(late);
                }
            }
            let (drops, late) = (Arc::new(AtomicUsize::new(0)), Arc::default());
            runtime(workers).run(|| {
                for _ in 0..20 {
                    let spawns = Spawns(Arc::clone(&drops), Arc::clone(&late));
                    spawn(move || {
                        let _spawns = spawns;
                        thread::sleep(LONG);
                    });
                }
                thread::sleep(5 * MILLI);
            });
            assert_eq!(drops.load(SeqCst), 20);
            for late in late.lock().unwrap().drain(..) {
                assert!(late.join().unwrap_err().is::<Cancelled>());
            }
        });
    }
}

#[test]
#[serial]
fn a_destructor_may_wait_while_a_runtime_ends() {
    struct Waits(fn(), Arc<AtomicUsize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0();
            self.1.fetch_add(1, SeqCst);
        }
    }
    let ways: [(&str, fn()); 5] = [
        ("sleep", || thread::sleep(5 * MILLI)),
        ("yield", yield_now),
        ("park", || {
            greenroom::park_timeout(5 * MILLI);
        }),
        ("join", || {
            let fresh = spawn(|| ()).join();
            fresh.unwrap_or_else(|payload| assert!(payload.is::<Cancelled>()));
        }),
        ("pool", || {
            greenroom::unblock(|| std::thread::sleep(5 * MILLI))
        }),
    ];
    for workers in [1, 4] {
        for (name, way) in &ways {
            let ended = Arc::new(AtomicUsize::new(0));
            util::on_workers(workers, || {
                for _ in 0..10 {
                    let waits = Waits(*way, Arc::clone(&ended));
                    spawn(move || {
                        let _waits = waits;
                        thread::sleep(LONG);
                    });
                }
                thread::sleep(5 * MILLI);
            });
            assert_eq!(ended.load(SeqCst), 10, "{name} on {workers} workers");
        }
    }
}

#[test]
#[serial]
fn parked_coroutines_survive_between_two_runs() {
    util::on_an_os_thread(|| {
        for workers in [1, 4] {
            let runtime = runtime(workers);
            let (mut near, mut far) = connection();
            let (parks, sleeps, reads) = runtime.run(|| {
                let parks = spawn(|| {
                    park();
                    1
                });
                let sleeps = spawn(|| {
                    thread::sleep(20 * MILLI);
                    2
                });
                let reads = spawn(move || {
                    let mut byte = [0];
                    far.read_exact(&mut byte).unwrap();
                    byte[0]
                });
                thread::sleep(5 * MILLI);
                (parks, sleeps, reads)
            });
            for n in 0..3 {
                assert_eq!(runtime.run(|| spawn(move || n).join().unwrap()), n);
            }
            std::thread::sleep(30 * MILLI);
            // From outside, while no thread drives worker 0.
            parks.thread().unpark();
            near.write_all(&[3]).unwrap();
            let values = runtime.run(|| {
                [
                    parks.join().unwrap(),
                    sleeps.join().unwrap(),
                    reads.join().unwrap(),
                ]
            });
            assert_eq!(values, [1, 2, 3]);
        }
    });
}

/// The number of threads of this process that belong to greenroom, without those of the pool, which come and go.
fn greenroom_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("greenroom") && !name.starts_with("greenroom-pool"))
        .count()
}

/// The same, once the threads that earlier tests have joined are not listed any more.
fn greenroom_threads_at_rest() -> usize {
    let samples = (0..50).map(|_| {
        std::thread::sleep(MILLI);
        greenroom_threads()
    });
    samples.min().unwrap()
}

/// A thread that was joined may still be listed for a moment.
fn wait_for_threads(number: usize) {
    let start = Instant::now();
    while greenroom_threads() != number {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} threads instead of {number}",
            greenroom_threads()
        );
        std::thread::sleep(MILLI);
    }
}

#[test]
#[serial]
fn a_runtime_that_is_dropped_leaves_no_thread() {
    util::on_an_os_thread(|| {
        let before = greenroom_threads_at_rest();
        let unused = runtime(4);
        wait_for_threads(before + 3);
        drop(unused);
        wait_for_threads(before);

        let used = runtime(4);
        used.run(|| {
            for _ in 0..100 {
                spawn(|| thread::sleep(LONG));
            }
            thread::sleep(5 * MILLI);
        });
        wait_for_threads(before + 3);
        drop(used);
        wait_for_threads(before);

        let result = catch_unwind(|| runtime(4).run(|| resume_unwind(Box::new(()))));
        result.map(|(): ()| ()).unwrap_err();
        wait_for_threads(before);
    });
}

#[test]
#[serial]
fn fifty_runtimes_one_after_another_leave_nothing_behind() {
    util::on_an_os_thread(|| {
        let threads = greenroom_threads_at_rest();
        let descriptors = util::open_descriptors();
        for n in 0..50 {
            let runtime = runtime(1 + n % 4);
            runtime.run(|| {
                let (mut near, mut far) = connection();
                let reads = spawn(move || far.read_exact(&mut [0]).unwrap());
                spawn(|| thread::sleep(LONG));
                near.write_all(&[0]).unwrap();
                reads.join().unwrap();
                let (waits, _other) = connection();
                spawn(move || (&waits).read(&mut [0]));
                thread::sleep(MILLI);
            });
            drop(runtime);
            util::assert_no_more_descriptors(descriptors);
        }
        wait_for_threads(threads);
    });
}

#[test]
#[serial]
fn two_runtimes_at_once_wake_and_join_each_others_coroutines() {
    for (left, right) in [(1, 1), (1, 4), (4, 4)] {
        util::on_an_os_thread(|| {
            let (hand_over, handed_over) = mpsc::channel();
            let other = std::thread::spawn(move || {
                runtime(left).run(|| {
                    let handles: Vec<JoinHandle<usize>> = (0..100)
                        .map(|n| {
                            spawn(move || {
                                for _ in 0..10 {
                                    park();
                                }
                                n
                            })
                        })
                        .collect();
                    let own = thread::current();
                    hand_over.send((handles, own)).unwrap();
                    park();
                });
            });
            runtime(right).run(|| {
                let (handles, mains) = handed_over.recv().unwrap();
                let joiners: Vec<_> = handles
                    .into_iter()
                    .map(|handle| {
                        spawn(move || {
                            while !handle.is_finished() {
                                handle.thread().unpark();
                                yield_now();
                            }
                            handle.join().unwrap()
                        })
                    })
                    .collect();
                for (n, joiner) in joiners.into_iter().enumerate() {
                    assert_eq!(joiner.join().unwrap(), n);
                }
                mains.unpark();
            });
            other.join().unwrap();
        });
    }
}

#[test]
#[serial]
fn a_join_waits_for_a_coroutine_of_another_runtime() {
    util::on_an_os_thread(|| {
        let (hand_over, handed_over) = mpsc::channel::<JoinHandle<u8>>();
        let other = std::thread::spawn(move || {
            runtime(1).run(|| {
                let main = thread::current();
                let slow = spawn(move || {
                    thread::sleep(20 * MILLI);
                    main.unpark();
                    23
                });
                hand_over.send(slow).unwrap();
                park();
                // Cancels a coroutine that is joined from the other runtime.
                hand_over.send(spawn(|| 0)).unwrap();
            });
        });
        runtime(1).run(|| {
            let slow = handed_over.recv().unwrap();
            assert_eq!(slow.join().unwrap(), 23);
            let cancelled = handed_over.recv().unwrap();
            assert!(cancelled.join().unwrap_err().is::<Cancelled>());
        });
        other.join().unwrap();
    });
}

#[test]
#[serial]
fn a_runtime_inside_a_coroutine_panics_with_the_reason() {
    util::on_an_os_thread(|| {
        runtime(1).run(|| {
            let payload = catch_unwind(|| greenroom::run(|| ())).unwrap_err();
            assert!(message(&*payload).contains("inside a coroutine"));
        });
        let outer = runtime(1);
        outer.run(|| {
            let again = catch_unwind(AssertUnwindSafe(|| outer.run(|| ())));
            assert!(message(&*again.unwrap_err()).contains("inside a coroutine"));
        });
        assert_eq!(outer.run(|| 5), 5);
    });
}

#[test]
#[serial]
fn a_local_spawn_off_a_worker_is_unsupported() {
    util::on_an_os_thread(|| {
        let error = Builder::new().spawn_local(|| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("spawn_local"));
        let panics = catch_unwind(|| spawn_local(|| ()));
        assert!(panics.is_err());
    });
}

#[test]
#[serial]
fn a_local_coroutine_may_share_values_that_are_not_send() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let here = std::thread::current().id();
            let shared = Rc::new(std::cell::RefCell::new(Vec::new()));
            let locals: Vec<_> = (0..10)
                .map(|n| {
                    let shared = Rc::clone(&shared);
                    spawn_local(move || {
                        assert_eq!(std::thread::current().id(), here);
                        thread::sleep(MILLI);
                        shared.borrow_mut().push(n);
                        assert_eq!(std::thread::current().id(), here);
                        Rc::new(n)
                    })
                })
                .collect();
            for (n, local) in locals.into_iter().enumerate() {
                assert_eq!(*local.join().unwrap(), n);
            }
            assert_eq!(Rc::strong_count(&shared), 1);
            shared.borrow_mut().sort_unstable();
            assert_eq!(*shared.borrow(), Vec::from_iter(0..10));
        });
    }
}

#[test]
#[serial]
fn a_runtime_takes_coroutines_from_outside() {
    util::on_an_os_thread(|| {
        let one = runtime(1);
        let waits = one.spawn(|| 1);
        std::thread::sleep(5 * MILLI);
        assert!(!waits.is_finished(), "nothing runs it yet");
        assert_eq!(one.run(|| waits.join().unwrap()), 1);

        let four = runtime(4);
        let handles: Vec<_> = (0..100).map(|n| four.spawn(move || n)).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n);
        }
        let never = one.spawn(|| 2);
        drop(one);
        assert!(never.join().unwrap_err().is::<Cancelled>());
    });
}

#[test]
#[serial]
fn wait_idle_in_main_waits_for_all_others_and_those_they_spawn() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            wait_idle();
            let ended = Arc::new(AtomicUsize::new(0));
            for n in 0..50 {
                let ended = Arc::clone(&ended);
                spawn(move || {
                    thread::sleep(n % 4 * MILLI);
                    let inner = Arc::clone(&ended);
                    spawn(move || {
                        thread::sleep(n % 3 * MILLI);
                        spawn(move || inner.fetch_add(1, SeqCst));
                    });
                    ended.fetch_add(1, SeqCst);
                });
            }
            wait_idle();
            assert_eq!(ended.load(SeqCst), 100);
            let local = Rc::new(());
            let other = Rc::clone(&local);
            spawn_local(move || drop(other));
            wait_idle();
            assert_eq!(Rc::strong_count(&local), 1);
        });
    }
}

#[test]
#[serial]
fn wait_idle_does_not_wait_for_what_the_worker_of_the_last_coroutine_runs_next() {
    util::on_an_os_thread(|| {
        let (tell, told) = mpsc::channel();
        runtime(2).run(|| {
            let has_started = Arc::new(AtomicBool::new(false));
            let started = Arc::clone(&has_started);
            spawn(move || {
                started.store(true, SeqCst);
                // It begins when this coroutine has ended, and blocks the worker.
                let daemon = Builder::new().daemon(true);
                daemon.spawn_local(move || told.recv().unwrap()).unwrap();
                std::thread::sleep(50 * MILLI);
            });
            // Keeps this worker until the other one has taken the coroutine.
            while !has_started.load(SeqCst) {
                std::hint::spin_loop();
            }
            wait_idle();
            tell.send(()).unwrap();
        });
    });
}

#[test]
#[serial]
fn wait_idle_from_several_coroutines_at_once_returns_for_all() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for _ in 0..20 {
                let ended = Arc::new(AtomicUsize::new(0));
                for _ in 0..10 {
                    let ended = Arc::clone(&ended);
                    spawn(move || {
                        thread::sleep(MILLI);
                        ended.fetch_add(1, SeqCst);
                    });
                }
                let waiters = [(); 3].map(|()| {
                    let ended = Arc::clone(&ended);
                    spawn(move || {
                        wait_idle();
                        ended.load(SeqCst)
                    })
                });
                wait_idle();
                assert_eq!(ended.load(SeqCst), 10);
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap(), 10);
                }
            }
        });
    }
}

#[test]
#[serial]
fn a_runtime_without_workers_is_refused() {
    let payload = catch_unwind(|| RuntimeBuilder::new().workers(0)).unwrap_err();
    assert!(message(&*payload).contains("at least one worker"));
}

/// Waits on `stream`, in the runtime of the caller.
fn wait_once(stream: &mut TcpStream, peer: &TcpStream) {
    let mut peer = peer.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(5 * MILLI);
        peer.write_all(b"x").unwrap();
    });
    // If no readiness comes, this fails instead of hanging.
    let timeout = Some(Duration::from_secs(10));
    stream.set_read_timeout(timeout).unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    writer.join().unwrap();
}

#[test]
#[serial]
fn a_descriptor_that_waited_in_one_runtime_works_in_the_next_and_in_none() {
    util::on_an_os_thread(|| {
        let (mut stream, peer) = connection();
        for workers in [1, 4, 1] {
            stream = greenroom::run(|| {
                let mut again = stream.try_clone().unwrap();
                wait_once(&mut stream, &peer);
                wait_once(&mut again, &peer);
                stream
            });
            wait_once(&mut stream, &peer);
            stream = runtime(workers).run(|| {
                wait_once(&mut stream, &peer);
                stream
            });
            wait_once(&mut stream, &peer);
        }
    });
}

#[test]
#[serial]
fn a_descriptor_that_waited_in_a_runtime_that_is_not_run_works_in_another() {
    util::on_an_os_thread(|| {
        let (mut stream, peer) = connection();
        let (first, second) = (runtime(1), runtime(1));
        for _ in 0..2 {
            first.run(|| wait_once(&mut stream, &peer));
            second.run(|| wait_once(&mut stream, &peer));
        }
    });
}

#[test]
#[serial]
fn a_stack_is_as_large_as_asked_for() {
    /// Uses at least `kilobytes` KiB of stack, nearly all of them in large frames.
    #[inline(never)]
    fn deep(kilobytes: usize) -> usize {
        let mut frame = [0_u8; 16 << 10];
        std::hint::black_box(&mut frame).fill(1);
        let rest = if kilobytes > 16 {
            deep(kilobytes - 16)
        } else {
            0
        };
        rest + usize::from(frame[kilobytes])
    }
    const DEPTH: usize = 3 << 10;
    util::everywhere(|| {
        let large = Builder::new().stack_size(4 << 20);
        let large = large.spawn(|| deep(DEPTH)).unwrap();
        assert_eq!(large.join().unwrap(), DEPTH / 16);
        // One frame with exactly the size that was asked for.
        let one = Builder::new().stack_size(4 << 20).spawn(|| {
            let mut frame = [0_u8; 3 << 20];
            std::hint::black_box(&mut frame).fill(1);
            frame.iter().map(|&byte| usize::from(byte)).sum::<usize>()
        });
        assert_eq!(one.unwrap().join().unwrap(), 3 << 20);
    });
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new().workers(1).stack_size(4 << 20);
        let runtime = runtime.build().unwrap();
        let depth = runtime.run(|| spawn(|| deep(DEPTH)).join().unwrap());
        assert_eq!(depth, DEPTH / 16);
    });
}

#[test]
#[serial]
fn a_stack_that_is_too_large_is_invalid_input() {
    util::everywhere(|| {
        for size in [(1 << 30) + 1, 1 << 40, usize::MAX] {
            let error = Builder::new().stack_size(size).spawn(|| ()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{size}");
        }
        let scoped = thread::scope(|s| {
            let builder = Builder::new().stack_size((1 << 30) + 1);
            builder.spawn_scoped(s, || ()).map(drop)
        });
        assert_eq!(scoped.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(spawn(|| 3).join().unwrap(), 3);
    });
    let error = RuntimeBuilder::new().stack_size(2 << 30).build();
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    // The largest and the smallest size.
    util::on_workers(1, || {
        for size in [0, 1, 1 << 30] {
            let handle = Builder::new().stack_size(size).spawn(|| 4).unwrap();
            assert_eq!(handle.join().unwrap(), 4);
        }
    });
}

/// Runs the test `name` in a process of its own with this environment; returns its output.
fn in_a_child(name: &str, environment: &[(&str, &str)]) -> String {
    let output = util::again!(name, "child")
        .env_remove("GREENROOM_WORKERS")
        .env_remove("GREENROOM_STACK_SIZE")
        .env_remove("RUST_MIN_STACK")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let output = [output.stdout, output.stderr].concat();
    String::from_utf8(output).unwrap()
}

#[test]
#[serial]
fn settings_in_the_environment_are_used_or_refused() {
    const NAME: &str = "settings_in_the_environment_are_used_or_refused";
    if util::role().is_some() {
        match RuntimeBuilder::new().build() {
            Ok(runtime) => eprintln!("built {runtime:?}"),
            Err(error) => {
                eprintln!("refused {:?}: {error}", error.kind());
                let spawned = Builder::new().spawn(|| ()).unwrap_err();
                eprintln!("spawn refused {:?}: {spawned}", spawned.kind());
                let run = catch_unwind(|| greenroom::run(|| ())).unwrap_err();
                eprintln!("run refused: {}", message(&*run));
                // Settings by code override the environment.
                let both = RuntimeBuilder::new().workers(1).stack_size(1 << 16);
                both.build().unwrap().run(|| spawn(|| ()).join().unwrap());
            }
        }
        eprintln!("end of child");
        return;
    }
    for (name, value, says) in [
        ("GREENROOM_WORKERS", "0", "GREENROOM_WORKERS is 0"),
        ("GREENROOM_WORKERS", "many", "\"many\""),
        ("GREENROOM_WORKERS", "-1", "\"-1\""),
        ("GREENROOM_WORKERS", "2.5", "\"2.5\""),
        ("GREENROOM_STACK_SIZE", "256K", "\"256K\""),
        ("GREENROOM_STACK_SIZE", "4294967296", "1 GiB"),
    ] {
        let output = in_a_child(NAME, &[(name, value)]);
        assert!(output.contains("refused InvalidInput: "), "{output}");
        assert!(output.contains("spawn refused InvalidInput: "), "{output}");
        assert!(output.contains("run refused: no runtime: "), "{output}");
        assert!(output.contains(says), "{output}");
        assert!(output.contains("end of child"), "{output}");
    }
    for environment in [
        [
            ("GREENROOM_WORKERS", "3"),
            ("GREENROOM_STACK_SIZE", "65536"),
        ],
        [
            ("GREENROOM_WORKERS", " 3 "),
            ("RUST_MIN_STACK", "no number"),
        ],
    ] {
        let output = in_a_child(NAME, &environment);
        assert!(output.contains("built Runtime { workers: 3 }"), "{output}");
        assert!(output.contains("end of child"), "{output}");
    }
}

#[test]
#[serial]
fn an_unjoined_result_of_a_scoped_coroutine_is_dropped_once() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    struct Counted(#[allow(dead_code, reason = "freed twice, it would show")] Box<u8>);
    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, SeqCst);
        }
    }
    for workers in [1, 2] {
        util::on_workers(workers, || {
            for n in 0..5_000 {
                ALIVE.store(1, SeqCst);
                greenroom::scope(|s| {
                    s.spawn(move || Counted(Box::new(n as u8)));
                });
                assert_eq!(ALIVE.load(SeqCst), 0, "round {n}");
            }
        });
    }
}

fn assert_cancelled<T>(handle: JoinHandle<T>) {
    let payload = handle.join().map(drop).unwrap_err();
    assert!(payload.is::<Cancelled>());
}

/// Runs `test`. Then waits until nothing is left of runtimes that end by themselves.
fn until_nothing_is_left<T>(test: impl FnOnce() -> T) -> T {
    let threads = greenroom_threads_at_rest();
    let descriptors = util::open_descriptors();
    let value = test();
    let start = Instant::now();
    // Those of earlier tests may go meanwhile.
    while util::open_descriptors() > descriptors {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} descriptors instead of {descriptors}",
            util::open_descriptors()
        );
        std::thread::sleep(MILLI);
    }
    // The threads have ended their workers, so they have their names by now.
    wait_for_threads(threads);
    value
}

#[test]
#[serial]
fn a_runtime_dropped_on_a_coroutine_drops_what_has_not_started_and_leaves_nothing_behind() {
    let drops = Arc::new(AtomicUsize::new(0));
    for outer in [1, 4] {
        until_nothing_is_left(|| {
            util::on_workers(outer, || {
                for n in 0..20 {
                    drop(runtime(1 + n % 3));
                    let inner = runtime(1 + n % 3);
                    let guard = Counted(Arc::clone(&drops));
                    let handle = inner.spawn(move || {
                        let _guard = guard;
                        thread::sleep(LONG);
                    });
                    drop(inner);
                    assert_cancelled(handle);
                }
            });
        });
    }
    assert_eq!(drops.load(SeqCst), 40);
}

#[test]
#[serial]
fn a_runtime_dropped_on_a_coroutine_does_not_touch_that_coroutines_locals() {
    greenroom::coroutine_local! {
        static VALUE: RefCell<Option<Counted>> = const { RefCell::new(None) };
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let (value, count) = (Counted(Arc::clone(&drops)), Arc::clone(&drops));
    util::on_workers(1, move || {
        VALUE.set(Some(value));
        VALUE.with(|value| {
            let inner = runtime(1);
            assert_cancelled({
                let handle = inner.spawn(|| ());
                drop(inner);
                handle
            });
            assert!(value.borrow().is_some());
        });
        assert_eq!(count.load(SeqCst), 0);
    });
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
#[serial]
fn a_runtime_dropped_on_a_coroutine_unwinds_the_coroutines_of_its_other_workers() {
    until_nothing_is_left(|| {
        util::on_workers(1, || {
            let inner = runtime(3);
            let started = Arc::new(AtomicUsize::new(0));
            let parked: Vec<_> = (0..10)
                .map(|_| {
                    let started = Arc::clone(&started);
                    inner.spawn(move || {
                        started.fetch_add(1, SeqCst);
                        thread::sleep(LONG);
                    })
                })
                .collect();
            while started.load(SeqCst) < 10 {
                thread::sleep(MILLI);
            }
            drop(inner);
            parked.into_iter().for_each(assert_cancelled);
        });
    });
}

#[test]
#[serial]
fn a_runtime_dropped_during_a_panic_tells_all_joiners() {
    util::on_a_thread_that_stays(|| {
        for workers in [1, 3] {
            let handles = Mutex::new(Vec::new());
            let threads = greenroom_threads_at_rest();
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let runtime = runtime(workers);
                wait_for_threads(threads + workers - 1);
                let started = AtomicUsize::new(0);
                runtime.run(|| {
                    for _ in 0..10 {
                        let (begun, begins) = mpsc::channel();
                        handles.lock().unwrap().push(spawn(move || {
                            begun.send(()).unwrap();
                            thread::sleep(LONG);
                        }));
                        while begins.try_recv().is_err() {
                            yield_now();
                        }
                        started.fetch_add(1, SeqCst);
                    }
                });
                assert_eq!(started.load(SeqCst), 10);
                handles
                    .lock()
                    .unwrap()
                    .push(runtime.spawn(|| thread::sleep(LONG)));
                resume_unwind(Box::new("amid this"));
            }));
            wait_for_threads(threads);
            unwound.map(|(): ()| ()).unwrap_err();
            let handles = handles.into_inner().unwrap();
            handles.into_iter().for_each(assert_cancelled);
        }
    });
}

thread_local! {
    static KEPT: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

#[test]
#[serial]
fn a_runtime_may_be_dropped_with_the_thread_locals_of_its_thread() {
    util::on_an_os_thread(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        for workers in [1, 3] {
            let drops = Arc::clone(&drops);
            let guards = [(); 2].map(|()| Counted(Arc::clone(&drops)));
            let thread = std::thread::spawn(move || {
                KEPT.with_borrow_mut(|kept| {
                    let kept = kept.insert(runtime(workers));
                    assert_eq!(kept.run(|| spawn(|| 42).join().unwrap()), 42);
                    for guard in guards {
                        drop(kept.spawn(|| drop(guard)));
                    }
                });
            });
            thread.join().unwrap();
        }
        assert_eq!(drops.load(SeqCst), 4);
    });
}
