//! Which timeout interrupts what, and when.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{Deadline, Elapsed, timeout, timeout_at};

use crate::util::{message, ms, on_workers};

/// Which of three nested timeouts has returned the error, with these limits from the outermost to the
/// innermost; 0 for none.
fn nested(limits: [Duration; 3]) -> u32 {
    let hit = Cell::new(0);
    let note = |number, result: Result<(), Elapsed>| {
        if result.is_err() {
            assert_eq!(hit.get(), 0, "one timeout returns the error");
            hit.set(number);
        }
    };
    let first = timeout(limits[0], || {
        let second = timeout(limits[1], || {
            let third = timeout(limits[2], || sleep(ms(60)));
            note(3, third);
        });
        note(2, second);
    });
    note(1, first);
    hit.get()
}

#[test]
fn the_timeout_that_passes_first_returns_the_error() {
    on_workers(1, || {
        let long = Duration::from_secs(100);
        assert_eq!(nested([long, long, long]), 0);
        assert_eq!(nested([ms(5), long, long]), 1, "the outermost");
        assert_eq!(nested([long, ms(5), long]), 2, "the middle one");
        assert_eq!(nested([long, long, ms(5)]), 3, "the innermost");
        // Far apart, because they do not begin at the same time.
        let (longer, longest) = (long / 10, long / 5);
        assert_eq!(nested([longest, longer, ms(5)]), 3);
        assert_eq!(nested([ms(5), longer, longest]), 1);
        assert_eq!(nested([longer, ms(5), longest]), 2);
        assert_eq!(nested([Duration::MAX, Duration::MAX, ms(5)]), 3);
        assert_eq!(nested([ms(5), Duration::MAX, Duration::MAX]), 1);
    });
}

#[test]
fn of_timeouts_with_the_same_moment_the_outermost_returns_the_error() {
    on_workers(1, || {
        let deadline = Deadline::after(ms(5));
        let inner = Cell::new(None);
        let outer = timeout_at(deadline, || {
            inner.set(Some(timeout_at(deadline, || sleep(ms(50)))));
        });
        assert_eq!(outer, Err(Elapsed));
        assert_eq!(inner.get(), None, "it was unwound");
    });
}

#[test]
fn both_timeouts_interrupt_if_the_caller_goes_on_after_the_first() {
    on_workers(1, || {
        let outer = timeout(ms(20), || {
            assert_eq!(timeout(ms(5), || sleep(ms(100))), Err(Elapsed));
            sleep(Duration::MAX);
        });
        assert_eq!(outer, Err(Elapsed));
    });
}

#[test]
fn what_ends_in_time_is_returned() {
    on_workers(1, || {
        assert_eq!(timeout(Duration::from_secs(100), || 1), Ok(1));
        assert_eq!(timeout(Duration::MAX, || 2), Ok(2));
        assert_eq!(timeout(Duration::ZERO, || 3), Ok(3), "it need not wait");
        assert_eq!(timeout_at(Deadline::NEVER, || 4), Ok(4));
        assert_eq!(timeout_at(Instant::now(), || 5), Ok(5));
        let slept = timeout(Duration::from_secs(100), || sleep(ms(1)));
        assert_eq!(slept, Ok(()));
    });
}

#[test]
fn a_timeout_of_zero_lets_pass_what_is_ready_and_interrupts_what_waits() {
    on_workers(1, || {
        let (sender, receiver) = mpsc::channel();
        sender.send(1).unwrap();
        assert_eq!(timeout(Duration::ZERO, || receiver.recv()), Ok(Ok(1)));
        assert_eq!(timeout(Duration::ZERO, || receiver.recv()), Err(Elapsed));
    });
}

/// A timeout interrupts waits, not computations.
#[test]
fn code_that_does_not_wait_is_not_interrupted_however_long_it_takes() {
    on_workers(1, || {
        let start = Instant::now();
        let computed = timeout(ms(5), || {
            while start.elapsed() < ms(10) {
                std::hint::spin_loop();
            }
            "done"
        });
        assert_eq!(computed, Ok("done"));
    });
}

#[test]
fn nothing_is_interrupted_after_the_timeout_has_returned() {
    on_workers(1, || {
        for _ in 0..20 {
            timeout(ms(3), || ()).unwrap();
            let _ = timeout(ms(1), || sleep(ms(1)));
            // Longer than the rest of the timeouts.
            sleep(ms(5));
        }
    });
}

#[test]
fn a_loop_of_timeouts_counts_each_anew() {
    on_workers(1, || {
        let start = Instant::now();
        for _ in 0..5 {
            assert_eq!(timeout(ms(4), || sleep(ms(500))), Err(Elapsed));
        }
        assert!(start.elapsed() >= ms(20));
    });
}

#[test]
fn an_operation_with_an_earlier_deadline_of_its_own_times_out_by_itself() {
    on_workers(1, || {
        let (_sender, receiver) = mpsc::channel::<()>();
        let received = timeout(Duration::from_secs(100), || receiver.recv_timeout(ms(5)));
        assert_eq!(received, Ok(Err(mpsc::RecvTimeoutError::Timeout)));
        let received = timeout(ms(5), || receiver.recv_timeout(Duration::from_secs(100)));
        assert_eq!(received, Err(Elapsed));
    });
}

#[test]
fn several_operations_share_one_deadline() {
    on_workers(1, || {
        let deadline = Deadline::after(ms(30));
        let mut done = 0;
        while timeout_at(deadline, || sleep(ms(4))).is_ok() {
            done += 1;
        }
        assert!(deadline.has_passed() && deadline.remaining().is_zero());
        assert!((1..=8).contains(&done), "{done} sleeps of 4 ms in 30 ms");
    });
}

#[test]
fn destructors_run_on_the_way_from_the_wait_to_the_timeout_and_not_beyond() {
    struct Noted(Rc<Cell<u32>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    on_workers(1, || {
        let dropped = Rc::new(Cell::new(0));
        let outside = Noted(Rc::clone(&dropped));
        let result = timeout(ms(2), || {
            let _first = Noted(Rc::clone(&dropped));
            let _second = Noted(Rc::clone(&dropped));
            sleep(Duration::MAX);
        });
        assert_eq!((result, dropped.get()), (Err(Elapsed), 2));
        drop(outside);
        assert_eq!(dropped.get(), 3);
    });
}

#[test]
fn a_panic_inside_goes_through() {
    on_workers(1, || {
        let panicked = catch_unwind(|| {
            timeout(ms(1000), || {
                // Without the message of the hook.
                resume_unwind(Box::new("a panic"));
            })
        });
        assert_eq!(message(&*panicked.unwrap_err()), "a panic");
    });
}

#[test]
fn who_catches_the_unwind_is_interrupted_again_and_counted() {
    on_workers(1, || {
        let before = greenroom::stats().swallowed_interrupts;
        let caught = Cell::new(0);
        let result = timeout(ms(2), || {
            while caught.get() < 5 {
                let unwound = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX)));
                assert!(unwound.is_err());
                caught.set(caught.get() + 1);
            }
            "its own decision"
        });
        assert_eq!(result, Ok("its own decision"));
        assert!(greenroom::stats().swallowed_interrupts >= before + 4);
        sleep(ms(1)); // after the scope, nothing is left of it
    });
}

/// The payload of an unwind belongs to one call. A later one does not take it for its own.
#[test]
fn an_unwind_that_is_resumed_elsewhere_is_not_mistaken() {
    on_workers(1, || {
        let mut kept = None;
        let first = timeout(ms(1), || {
            kept = catch_unwind(|| sleep(Duration::MAX)).err();
        });
        assert_eq!(first, Ok(()));
        let kept = kept.unwrap();
        let second = catch_unwind(AssertUnwindSafe(|| {
            timeout(Duration::from_secs(100), || resume_unwind(kept))
        }));
        assert!(second.is_err(), "it passes through");
    });
}

/// Code that catches a panic, cleans up, and resumes the panic may be interrupted in the cleaning up, too.
#[test]
fn the_first_of_several_unwinds_that_were_caught_still_belongs_to_its_timeout() {
    on_workers(1, || {
        let result = timeout(ms(2), || {
            let first = catch_unwind(|| sleep(Duration::MAX)).unwrap_err();
            let second = catch_unwind(|| sleep(Duration::MAX));
            assert!(second.is_err());
            resume_unwind(first)
        });
        assert_eq!(result, Err(Elapsed));
    });
}

#[test]
fn a_timeout_does_not_reach_coroutines_that_are_spawned_inside() {
    on_workers(1, || {
        let child = timeout(ms(200), || {
            let child = greenroom::spawn(|| sleep(ms(400)));
            let _ = timeout(Duration::from_secs(1), || sleep(ms(1)));
            child
        });
        child.unwrap().join().unwrap();
    });
}

#[test]
fn timeouts_of_many_coroutines_are_their_own() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let coroutines: Vec<_> = (0..200_u64)
                .map(|i| {
                    greenroom::spawn(move || {
                        let limit = ms(i % 7 * 3);
                        let start = Instant::now();
                        let result = timeout(limit, || sleep(ms(i % 5 * 4)));
                        assert!(result.is_ok() || start.elapsed() >= limit);
                    })
                })
                .collect();
            for coroutine in coroutines {
                coroutine.join().unwrap();
            }
        });
    }
}

#[test]
fn an_elapsed_timeout_becomes_an_io_error() {
    let error = std::io::Error::from(Elapsed);
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "the deadline has passed");
}
