//! Coroutines that run only if there is nothing else to run.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::os::unix::net::UnixStream as Stream;
use greenroom::shims::thread::sleep;
use greenroom::{
    Cancelled, RuntimeBuilder, on_idle, shield, spawn, spawn_local, timeout, wait_idle, yield_now,
    yield_until_idle,
};

use crate::util::{message, ms, on_an_os_thread, on_workers};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn an_idler_runs_after_all_that_is_ready() {
    on_workers(1, || {
        let order = Rc::new(RefCell::new(Vec::new()));
        let idler = spawn_local({
            let order = Rc::clone(&order);
            move || {
                yield_until_idle();
                order.borrow_mut().push("idle");
            }
        });
        let others = ["a", "b"].map(|name| {
            let order = Rc::clone(&order);
            spawn_local(move || {
                for _ in 0..300 {
                    yield_now();
                }
                order.borrow_mut().push(name);
                let order = Rc::clone(&order);
                spawn_local(move || order.borrow_mut().push("fresh"));
            })
        });
        idler.join().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap());
        let order = order.borrow();
        assert_eq!(order.len(), 5);
        assert_eq!(order.last(), Some(&"idle"), "{order:?}");
    });
}

#[test]
fn events_and_deadlines_come_before_an_idler() {
    on_workers(1, || {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::from(OwnedFd::from(ours));
        let order = Rc::new(RefCell::new(Vec::new()));
        let reader = spawn_local({
            let order = Rc::clone(&order);
            move || {
                ours.read_exact(&mut [0]).unwrap();
                order.borrow_mut().push("event");
            }
        });
        let sleeper = spawn_local({
            let order = Rc::clone(&order);
            move || {
                sleep(ms(5));
                order.borrow_mut().push("deadline");
            }
        });
        yield_now();
        let idler = spawn_local({
            let order = Rc::clone(&order);
            move || {
                theirs.write_all(&[1]).unwrap();
                std::thread::sleep(ms(10));
                yield_until_idle();
                order.borrow_mut().push("idle");
            }
        });
        idler.join().unwrap();
        reader.join().unwrap();
        sleeper.join().unwrap();
        assert_eq!(*order.borrow(), ["event", "deadline", "idle"]);
    });
}

#[test]
fn the_worker_does_not_block_while_there_is_idle_work() {
    on_an_os_thread(|| {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let builder = RuntimeBuilder::new().workers(1);
        let runtime = builder.after_poll(move || _ = counted.fetch_add(1, Ordering::SeqCst));
        runtime.build().unwrap().run(|| {
            // A far deadline, for which the worker would block.
            let sleeper = spawn(|| sleep(LONG));
            let begun = Instant::now();
            let before = polls.load(Ordering::SeqCst);
            let mut left = 1_000;
            let idle = on_idle(move || {
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
            idle.join().unwrap();
            assert!(begun.elapsed() < LONG);
            let looks = polls.load(Ordering::SeqCst) - before;
            assert!(looks >= 1_000, "it looks for events before each: {looks}");
            sleeper.cancel();
        });
    });
}

#[test]
fn the_worker_blocks_when_the_idle_work_is_done() {
    on_an_os_thread(|| {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let builder = RuntimeBuilder::new().workers(1);
        let runtime = builder.before_poll(move || _ = counted.fetch_add(1, Ordering::SeqCst));
        runtime.build().unwrap().run(|| {
            on_idle(|| ControlFlow::Break(())).join().unwrap();
            let before = polls.load(Ordering::SeqCst);
            sleep(ms(100));
            let looks = polls.load(Ordering::SeqCst) - before;
            assert!(looks < 20, "{looks}");
        });
    });
}

#[test]
fn several_idlers_take_turns() {
    on_workers(1, || {
        let order = Rc::new(RefCell::new(String::new()));
        let idlers = ["a", "b", "c"].map(|name| {
            let order = Rc::clone(&order);
            let mut left = 3;
            on_idle(move || {
                order.borrow_mut().push_str(name);
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
        });
        idlers.into_iter().for_each(|idler| idler.join().unwrap());
        assert_eq!(*order.borrow(), "abcabcabc");
    });
}

#[test]
fn an_idler_may_wait_itself() {
    on_workers(1, || {
        let steps = Rc::new(Cell::new(0));
        let idler = on_idle({
            let steps = Rc::clone(&steps);
            move || {
                sleep(ms(1));
                steps.set(steps.get() + 1);
                match steps.get() {
                    5 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        });
        idler.join().unwrap();
        assert_eq!(steps.get(), 5);
    });
}

#[test]
fn idle_work_is_cancelled_by_its_handle_and_does_not_count_as_a_coroutine() {
    for workers in [1, 3] {
        on_workers(workers, || {
            let idler = on_idle(|| ControlFlow::Continue(()));
            spawn(|| sleep(ms(1)));
            wait_idle();
            idler.cancel();
            assert!(idler.join().unwrap_err().is::<Cancelled>());
        });
    }
}

#[test]
fn an_idler_is_interrupted_while_others_keep_its_worker_busy() {
    on_workers(1, || {
        let busy = spawn(|| {
            loop {
                yield_now();
                greenroom::interruption_point();
            }
        });
        assert!(timeout(ms(5), yield_until_idle).is_err());
        busy.cancel();
        assert!(busy.join().unwrap_err().is::<Cancelled>());
        yield_until_idle();
    });
}

#[test]
fn the_end_of_the_runtime_does_not_wait_for_idlers() {
    for workers in [1, 3] {
        let begun = Instant::now();
        let finished = Arc::new(AtomicUsize::new(0));
        on_workers(workers, || {
            on_idle(|| ControlFlow::Continue(()));
            let counted = Arc::clone(&finished);
            let has_begun = Rc::new(Cell::new(false));
            let begins = Rc::clone(&has_begun);
            spawn_local(move || {
                begins.set(true);
                shield(yield_until_idle);
                shield(yield_until_idle);
                counted.fetch_add(1, Ordering::SeqCst);
            });
            while !has_begun.get() {
                yield_now();
            }
        });
        assert_eq!(finished.load(Ordering::SeqCst), 1, "a shielded one goes on");
        assert!(
            begun.elapsed() < Duration::from_secs(25),
            "within the grace"
        );
    }
}

#[test]
fn an_idler_that_unwinds_from_a_panic_goes_on() {
    struct Yields;
    impl Drop for Yields {
        fn drop(&mut self) {
            yield_until_idle();
        }
    }
    on_workers(1, || {
        let busy = spawn(|| (0..100).for_each(|_| yield_now()));
        let panics = spawn(|| {
            let _yields = Yields;
            resume_unwind(Box::new("amid a panic"));
        });
        assert_eq!(message(&*panics.join().unwrap_err()), "amid a panic");
        busy.join().unwrap();
    });
}

#[test]
fn idlers_of_several_workers_leave_fresh_coroutines_the_precedence() {
    on_workers(3, || {
        let idlers: Vec<_> = (0..6)
            .map(|_| spawn(|| (0..500).for_each(|_| yield_until_idle())))
            .collect();
        let sums: Vec<_> = (0..500).map(|n| spawn(move || n)).collect();
        let sum: u32 = sums.into_iter().map(|one| one.join().unwrap()).sum();
        assert_eq!(sum, 124_750);
        idlers.into_iter().for_each(|idler| idler.join().unwrap());
    });
}

#[test]
fn off_a_coroutine_it_yields_the_thread() {
    on_an_os_thread(yield_until_idle);
}
