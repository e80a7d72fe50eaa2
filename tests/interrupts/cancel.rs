//! Cancelling a coroutine by its handles.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::channel::oneshot;
use greenroom::shims::sync::{Mutex, mpsc};
use greenroom::shims::thread::sleep;
use greenroom::{Cancelled, JoinHandle, coroutine_local, spawn, spawn_local};

use crate::util::{self, begin, message, ms, on_workers, until};

fn sleeper() -> JoinHandle<()> {
    spawn(|| sleep(Duration::MAX))
}

fn is_cancelled<T>(result: std::thread::Result<T>) -> bool {
    result.is_err_and(|payload| payload.is::<Cancelled>())
}

#[test]
fn a_coroutine_that_has_not_started_never_runs_and_drops_its_closure() {
    on_workers(1, || {
        let ran = Arc::new(AtomicBool::new(false));
        let coroutine = spawn({
            let ran = Arc::clone(&ran);
            move || ran.store(true, Ordering::Relaxed)
        });
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        assert!(!ran.load(Ordering::Relaxed));
        assert_eq!(Arc::strong_count(&ran), 1, "the closure was dropped");
    });
}

#[test]
fn a_coroutine_that_has_finished_keeps_its_result() {
    on_workers(1, || {
        let coroutine = spawn(|| 7);
        until("it has finished", || coroutine.is_finished());
        coroutine.cancel();
        assert_eq!(coroutine.join().unwrap(), 7);
    });
}

#[test]
fn a_coroutine_that_never_waits_again_finishes() {
    on_workers(2, || {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (started, has_started) = mpsc::channel();
        let coroutine = spawn({
            let cancelled = Arc::clone(&cancelled);
            move || {
                started.send(()).unwrap();
                while !cancelled.load(Ordering::Acquire) {
                    greenroom::yield_now(); // not an interruption point
                }
                "its result"
            }
        });
        has_started.recv().unwrap();
        coroutine.cancel();
        cancelled.store(true, Ordering::Release);
        assert_eq!(coroutine.join().unwrap(), "its result");
    });
}

#[test]
fn cancelling_twice_or_from_many_threads_is_cancelling_once() {
    on_workers(2, || {
        let coroutine = sleeper();
        let cancellers: Vec<_> = (0..8)
            .map(|_| {
                let canceller = coroutine.canceller();
                std::thread::spawn(move || canceller.cancel())
            })
            .collect();
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        for canceller in cancellers {
            canceller.join().unwrap();
        }
    });
}

#[test]
fn destructors_run_and_locks_descriptors_and_ends_of_channels_are_given_back() {
    on_workers(1, || {
        let lock = Arc::new(Mutex::new(0));
        let (sender, receiver) = mpsc::channel::<()>();
        let addr = (util::own_loopback(), 0);
        let listener = greenroom::shims::net::TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let coroutine = begin({
            let lock = Arc::clone(&lock);
            move || {
                let mut held = lock.lock().unwrap();
                *held = 1;
                let _sender = sender;
                drop(listener.accept());
            }
        });
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        // As after a panic: what the lock guards may be half done.
        assert_eq!(**lock.lock().unwrap_err().get_ref(), 1);
        assert_eq!(receiver.recv(), Err(mpsc::RecvError));
        // A child that another test has just forked has the listener until it executes its program.
        until("connections are refused", || {
            let connected = greenroom::shims::net::TcpStream::connect(addr);
            connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        });
    });
}

#[test]
fn cancel_wait_returns_when_the_coroutine_has_ended_or_the_time_is_over() {
    on_workers(1, || {
        let mut coroutine = sleeper();
        assert!(coroutine.cancel_wait(util::PATIENCE));
        assert!(is_cancelled(coroutine.join()));

        let mut parked = begin(greenroom::park);
        assert!(!parked.cancel_wait(ms(5)), "park is not interrupted");
        parked.thread().unpark();
        assert!(parked.cancel_wait(util::PATIENCE));
        parked.join().unwrap();
    });
}

#[test]
fn a_guard_cancels_when_it_is_dropped_and_only_then() {
    on_workers(1, || {
        let guard = sleeper().cancel_on_drop();
        let canceller = guard.canceller();
        sleep(ms(2));
        assert!(!canceller.is_finished());
        drop(guard);
        until("it has ended", || canceller.is_finished());

        let kept = spawn(|| sleep(ms(5))).cancel_on_drop().into_handle();
        kept.join().unwrap();
    });
}

#[test]
fn a_guard_that_is_unwound_cancels() {
    on_workers(1, || {
        let inner = Arc::new(Mutex::new(None));
        let outer = spawn({
            let inner = Arc::clone(&inner);
            move || {
                let guard = sleeper().cancel_on_drop();
                *inner.lock().unwrap() = Some(guard.canceller());
                sleep(Duration::MAX);
            }
        });
        until("it has spawned the inner one", || {
            inner.lock().unwrap().is_some()
        });
        outer.cancel();
        assert!(is_cancelled(outer.join()));
        let inner = inner.lock().unwrap().take().unwrap();
        until("the inner one has ended", || inner.is_finished());
    });
}

#[test]
fn a_coroutine_that_swallows_its_cancellation_lets_others_run_and_is_counted() {
    let forever = || sleep(Duration::MAX);
    swallow(move || catch_unwind(forever).is_err());
    swallow(move || greenroom::catch_cancel(forever).is_err());
}

/// Cancels a coroutine that waits inside `catch` in a loop.
fn swallow(catch: impl Fn() -> bool + Send + 'static) {
    on_workers(1, || {
        let before = greenroom::stats().swallowed_interrupts;
        let stop = Arc::new(AtomicBool::new(false));
        let caught = Arc::new(AtomicUsize::new(0));
        let coroutine = begin({
            let (stop, caught) = (Arc::clone(&stop), Arc::clone(&caught));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    assert!(catch());
                    caught.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        coroutine.cancel();
        // The same worker runs this coroutine, too.
        until("it has come round", || caught.load(Ordering::Relaxed) > 100);
        assert!(greenroom::stats().swallowed_interrupts >= before + 100);
        stop.store(true, Ordering::Relaxed);
        coroutine.join().unwrap();
    });
}

#[test]
fn a_panic_after_the_cancellation_was_caught_goes_to_the_joiner() {
    on_workers(1, || {
        let coroutine = begin(|| {
            let unwound = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX)));
            drop(unwound);
            resume_unwind(Box::new("a panic")); // without the message of the hook
        });
        coroutine.cancel();
        assert_eq!(message(&*coroutine.join().unwrap_err()), "a panic");
    });
}

#[test]
fn a_panic_of_the_closure_that_is_dropped_unrun_goes_to_the_joiner() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("from the drop"));
        }
    }
    on_workers(1, || {
        let bomb = Bomb;
        let coroutine = spawn(move || drop(bomb));
        coroutine.cancel();
        assert_eq!(message(&*coroutine.join().unwrap_err()), "from the drop");
    });
}

#[test]
fn a_local_coroutine_can_be_cancelled_from_any_thread() {
    on_workers(1, || {
        let mut local = spawn_local(|| sleep(Duration::MAX));
        sleep(ms(1));
        let canceller = local.canceller();
        std::thread::spawn(move || canceller.cancel())
            .join()
            .unwrap();
        assert!(local.cancel_wait(util::PATIENCE));
        assert!(is_cancelled(local.join()));
    });
}

#[test]
fn a_detached_coroutine_can_be_cancelled() {
    on_workers(1, || {
        let (sender, receiver) = mpsc::channel::<()>();
        let coroutine = spawn(move || {
            let _sender = sender;
            sleep(Duration::MAX);
        });
        let canceller = coroutine.canceller();
        drop(coroutine);
        sleep(ms(1));
        canceller.cancel();
        assert_eq!(receiver.recv(), Err(mpsc::RecvError));
    });
}

#[test]
fn ten_thousand_parked_coroutines_are_cancelled() {
    for workers in [1, 2] {
        on_workers(workers, || {
            let coroutines: Vec<_> = (0..10_000).map(|_| sleeper()).collect();
            sleep(ms(5));
            coroutines.iter().for_each(JoinHandle::cancel);
            for coroutine in coroutines {
                assert!(is_cancelled(coroutine.join()));
            }
        });
    }
}

#[test]
fn join_timeout_gives_the_handle_back() {
    on_workers(1, || {
        let slow = spawn(|| sleep(ms(20)));
        let slow = slow.join_timeout(ms(1)).expect_err("it sleeps");
        slow.join_timeout(util::PATIENCE).unwrap().unwrap();
        let quick = spawn(|| 3);
        assert_eq!(quick.join_timeout(util::PATIENCE).unwrap().unwrap(), 3);
    });
}

#[test]
fn a_coroutine_that_waits_for_a_cancelled_one_is_not_cancelled_itself() {
    on_workers(1, || {
        let inner = sleeper();
        let canceller = inner.canceller();
        let outer = spawn(move || is_cancelled(inner.join()));
        sleep(ms(1));
        canceller.cancel();
        assert!(outer.join().unwrap());
    });
}

#[test]
fn a_caught_cancellation_leaves_time_to_clean_up_in_a_shield_and_stays() {
    on_workers(1, || {
        let (told, told_of) = mpsc::channel();
        let coroutine = begin(move || {
            let caught = greenroom::catch_cancel(|| sleep(Duration::MAX));
            assert_eq!(caught, Err(Cancelled));
            greenroom::shield(|| sleep(ms(1)));
            told.send("cleaned up").unwrap();
            sleep(Duration::MAX);
        });
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        assert_eq!(told_of.recv(), Ok("cleaned up"));
    });
}

/// What a coroutine leaves is dropped as if nobody had cancelled it: there is nothing left to end.
#[test]
fn destructors_at_the_end_of_a_coroutine_are_not_cut_short() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            sleep(ms(2));
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    coroutine_local! {
        static LOCAL: Waits = Waits;
    }

    type End = (&'static str, fn() -> JoinHandle<Waits>);
    let ends: [End; 3] = [
        ("a coroutine local", || {
            spawn(|| {
                LOCAL.with(|_| ());
                sleep(Duration::MAX);
                unreachable!("it is cancelled")
            })
        }),
        ("a closure that never runs", || {
            let waits = Waits;
            let coroutine = spawn(move || waits);
            coroutine.cancel();
            coroutine
        }),
        ("a result that nobody takes", || {
            spawn(|| {
                greenroom::yield_now();
                Waits
            })
        }),
    ];
    for (what, end) in ends {
        for moment in [ms(0), ms(1)] {
            on_workers(1, || {
                let before = DROPPED.load(Ordering::SeqCst);
                let coroutine = end();
                sleep(moment); // zero only yields
                let canceller = coroutine.canceller();
                drop(coroutine);
                canceller.cancel();
                until(what, || canceller.is_finished());
                // The result of a finished coroutine is dropped after its end, if at all.
                until(what, || DROPPED.load(Ordering::SeqCst) == before + 1);
            });
        }
    }
}

#[test]
fn the_end_of_a_runtime_cuts_destructors_at_the_end_of_a_coroutine_short() {
    struct WaitsForEver;
    impl Drop for WaitsForEver {
        fn drop(&mut self) {
            sleep(Duration::MAX);
        }
    }
    coroutine_local! {
        static LOCAL: WaitsForEver = WaitsForEver;
    }
    for workers in [1, 4] {
        let cancellers = on_workers(workers, || {
            let with_local = spawn(|| LOCAL.with(|_| ()));
            let (unrun, captured) = (WaitsForEver, WaitsForEver);
            let never_runs = spawn(move || drop(unrun));
            never_runs.cancel();
            let (is_detached, detached) = oneshot();
            let result = spawn(move || {
                detached.recv().unwrap();
                captured
            });
            let coroutines = [
                with_local.canceller(),
                never_runs.canceller(),
                result.canceller(),
            ];
            // If it had a result by now, this would drop it here.
            drop(result);
            is_detached.send(()).unwrap();
            sleep(ms(5));
            coroutines
        });
        for canceller in cancellers {
            assert!(canceller.is_finished());
        }
    }
}
