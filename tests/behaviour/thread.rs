//! What threads promise.
//!
//! Tests of the park token run in a new thread: the test harness, or `scope`, may have used the token of
//! the calling thread.

use super::{std, util};
use ::std::collections::HashSet;
use ::std::io::{Read, Write};
use ::std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use util::{Counted, PATIENCE, counter, everywhere, ms, until};

/// Runs `body` in a new thread. Returns its result or resumes its panic.
fn in_a_fresh_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match thread::spawn(body).join() {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

/// Whether a park returns early, because there was a token.
fn park_finds_a_token() -> bool {
    let start = Instant::now();
    thread::park_timeout(PATIENCE + ms(5000));
    start.elapsed() < PATIENCE
}

/// Whether a park lasts for its timeout, because there was no token. A park may return spuriously, but
/// hardly three times in a row.
fn park_finds_no_token() -> bool {
    (0..3).any(|_| {
        let start = Instant::now();
        thread::park_timeout(ms(100));
        start.elapsed() >= ms(80)
    })
}

/// Checks that `drops` becomes 1 and stays 1.
#[track_caller]
fn assert_dropped_once(drops: &AtomicUsize) {
    until("it is dropped", || drops.load(SeqCst) > 0);
    thread::sleep(ms(30));
    assert_eq!(drops.load(SeqCst), 1);
}

// ---------------------------------------------------------- spawning, joining

#[test]
fn join_returns_the_value() {
    everywhere(|| {
        assert_eq!(thread::spawn(|| 6 * 7).join().unwrap(), 42);
        let text = String::from("moved in ");
        let text = thread::spawn(move || text + "and out").join().unwrap();
        assert_eq!(text, "moved in and out");
        thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn join_waits_for_a_thread_that_takes_its_time() {
    everywhere(|| {
        let start = Instant::now();
        let slow = thread::spawn(|| {
            thread::sleep(ms(80));
            "done"
        });
        assert_eq!(slow.join().unwrap(), "done");
        assert!(start.elapsed() >= ms(80));
    });
}

#[test]
fn join_returns_at_once_when_the_thread_is_long_done() {
    everywhere(|| {
        let handle = thread::spawn(|| 1);
        until("it is finished", || handle.is_finished());
        thread::sleep(ms(20));
        assert_eq!(handle.join().unwrap(), 1);
    });
}

#[test]
fn a_handle_can_be_joined_by_another_thread() {
    everywhere(|| {
        let first = thread::spawn(|| {
            thread::sleep(ms(30));
            20
        });
        let second = thread::spawn(move || first.join().unwrap() + 1);
        assert_eq!(second.join().unwrap(), 21);
    });
}

#[test]
fn threads_joined_in_any_order_give_their_own_values() {
    everywhere(|| {
        let handles: Vec<_> = (0..50u64)
            .map(|n| {
                thread::spawn(move || {
                    thread::sleep(ms(n * 7 % 20));
                    n * n
                })
            })
            .collect();
        for (n, handle) in handles.into_iter().enumerate().rev() {
            assert_eq!(handle.join().unwrap(), (n * n) as u64);
        }
    });
}

#[test]
fn join_gives_the_payload_of_a_panic_untouched() {
    everywhere(|| {
        #[derive(Debug, PartialEq)]
        struct Special(u32, String);

        let payload = thread::spawn(|| panic!("fixed text")).join().unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "fixed text");

        let n = 5;
        let payload = thread::spawn(move || panic!("made text {n}"))
            .join()
            .unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), "made text 5");

        let thrown = || panic_any(Special(9, "nine".into()));
        let payload = thread::spawn(thrown).join().unwrap_err();
        let wanted = Special(9, "nine".into());
        assert_eq!(*payload.downcast::<Special>().unwrap(), wanted);

        let quiet = || resume_unwind(Box::new(77u64));
        let payload = thread::spawn(quiet).join().unwrap_err();
        assert_eq!(*payload.downcast::<u64>().unwrap(), 77);
    });
}

#[test]
fn a_panic_leaves_the_other_threads_alone() {
    everywhere(|| {
        let rounds = counter();
        let stop = Arc::new(AtomicBool::new(false));
        let bystander = thread::spawn({
            let (rounds, stop) = (Arc::clone(&rounds), Arc::clone(&stop));
            move || {
                while !stop.load(SeqCst) {
                    rounds.fetch_add(1, SeqCst);
                    thread::sleep(ms(1));
                }
                "fine"
            }
        });
        for n in 0..10 {
            let failing = thread::spawn(move || {
                thread::sleep(ms(n % 3));
                panic!("one of ten");
            });
            failing.join().unwrap_err();
        }
        let then = rounds.load(SeqCst);
        until("the bystander goes on", || rounds.load(SeqCst) > then + 2);
        stop.store(true, SeqCst);
        assert_eq!(bystander.join().unwrap(), "fine");
    });
}

#[test]
fn a_panic_that_a_thread_catches_itself_does_not_show() {
    everywhere(|| {
        let handle = thread::spawn(|| {
            let caught = catch_unwind(|| {
                thread::sleep(ms(5));
                panic!("caught");
            });
            thread::sleep(ms(5));
            caught.is_err() && !thread::panicking()
        });
        assert!(handle.join().unwrap());
    });
}

/// 40 threads panic at the same time, each with its number. Each calls `amid` while it unwinds.
fn forty_panics(amid: fn()) {
    struct Amid(fn());
    impl Drop for Amid {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let handles: Vec<thread::JoinHandle<()>> = (0..40usize)
        .map(|n| {
            thread::spawn(move || {
                thread::sleep(ms(20));
                let _amid = Amid(amid);
                resume_unwind(Box::new(n))
            })
        })
        .collect();
    for (n, handle) in handles.into_iter().enumerate() {
        let payload = handle.join().unwrap_err();
        assert_eq!(*payload.downcast::<usize>().unwrap(), n);
    }
}

#[test]
fn threads_panicking_at_the_same_time_keep_their_own_payloads() {
    everywhere(|| forty_panics(|| ()));
}

#[test]
fn threads_waiting_amid_unwinding_keep_their_own_payloads() {
    everywhere(|| forty_panics(|| thread::sleep(ms(10))));
}

#[test]
fn is_finished_tells_running_from_done() {
    everywhere(|| {
        let go = Arc::new(AtomicBool::new(false));
        let waiting = thread::spawn({
            let go = Arc::clone(&go);
            move || until("told to go", || go.load(SeqCst))
        });
        let failing = thread::spawn(|| panic!("on purpose"));
        thread::sleep(ms(30));
        assert!(!waiting.is_finished());
        go.store(true, SeqCst);
        until("it is finished", || waiting.is_finished());
        until("so is one that panicked", || failing.is_finished());
        assert!(waiting.is_finished());
        waiting.join().unwrap();
        failing.join().unwrap_err();
    });
}

#[test]
fn spawning_inside_spawning_a_hundred_deep_works() {
    everywhere(|| {
        fn deep(levels: u32) -> u32 {
            match levels {
                0 => 0,
                n => 1 + thread::spawn(move || deep(n - 1)).join().unwrap(),
            }
        }
        assert_eq!(deep(100), 100);
    });
}

#[test]
fn dropping_the_handle_lets_the_thread_run_on() {
    everywhere(|| {
        let steps = counter();
        let seen = Arc::clone(&steps);
        drop(thread::spawn(move || {
            for _ in 0..3 {
                thread::sleep(ms(10));
                seen.fetch_add(1, SeqCst);
            }
        }));
        until("it has run to its end", || steps.load(SeqCst) == 3);
    });
}

#[test]
fn a_parent_may_end_before_its_child() {
    everywhere(|| {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let parent = thread::spawn(move || {
            thread::spawn(move || {
                thread::sleep(ms(60));
                seen.store(true, SeqCst);
            });
        });
        parent.join().unwrap();
        until("the child is done", || done.load(SeqCst));
    });
}

// ------------------------------------------------------ names and ids

#[test]
fn a_name_given_to_the_builder_is_seen_inside_and_outside() {
    everywhere(|| {
        let handle = thread::Builder::new()
            .name("peer 7".to_string())
            .spawn(|| {
                let before = thread::current().name().map(str::to_owned);
                thread::sleep(ms(20)); // the name stays
                (before, thread::current().name().map(str::to_owned))
            })
            .unwrap();
        assert_eq!(handle.thread().name(), Some("peer 7"));
        let (before, after) = handle.join().unwrap();
        assert_eq!(before.as_deref(), Some("peer 7"));
        assert_eq!(after.as_deref(), Some("peer 7"));
    });
}

#[test]
fn a_thread_without_a_name_has_none_and_inherits_none() {
    everywhere(|| {
        let handle = thread::Builder::new()
            .name("parent".into())
            .spawn(|| {
                let child = thread::spawn(|| thread::current().name().map(str::to_owned));
                assert_eq!(child.thread().name(), None);
                child.join().unwrap()
            })
            .unwrap();
        assert_eq!(handle.join().unwrap(), None);
    });
}

#[test]
fn a_builder_may_set_the_stack_size_and_still_runs_and_joins() {
    everywhere(|| {
        let builder = thread::Builder::new()
            .stack_size(256 << 10)
            .name("s".into());
        assert_eq!(builder.spawn(|| 3).unwrap().join().unwrap(), 3);
        assert_eq!(
            thread::Builder::new().spawn(|| 4).unwrap().join().unwrap(),
            4
        );
    });
}

#[test]
fn ids_are_distinct_and_the_same_inside_and_outside() {
    everywhere(|| {
        let mut ids = HashSet::from([thread::current().id()]);
        let handles: Vec<_> = (0..50)
            .map(|_| {
                thread::spawn(|| {
                    let before = thread::current().id();
                    thread::sleep(ms(10));
                    assert_eq!(thread::current().id(), before);
                    before
                })
            })
            .collect();
        for handle in handles {
            let outside = handle.thread().id();
            assert_eq!(handle.join().unwrap(), outside);
            assert!(ids.insert(outside), "{outside:?} twice");
        }
        // The ids of finished threads are not reused.
        let next = thread::spawn(|| thread::current().id()).join().unwrap();
        assert!(ids.insert(next));
    });
}

#[test]
fn a_thread_handle_outlives_its_thread() {
    everywhere(|| {
        let handle = thread::Builder::new()
            .name("gone".into())
            .spawn(|| ())
            .unwrap();
        let gone = handle.thread().clone();
        handle.join().unwrap();
        gone.unpark(); // has no effect
        assert_eq!(gone.name(), Some("gone"));
        assert!(!format!("{gone:?}").is_empty());
    });
}

// --------------------------------------------------------------------- scope

#[test]
fn a_scope_lets_threads_borrow_and_hands_on_the_value() {
    everywhere(|| {
        let words = ["lend", "me", "your", "ears"];
        let mut left = 0;
        let mut right = 0;
        let value = thread::scope(|s| {
            s.spawn(|| left = words[..2].iter().map(|w| w.len()).sum());
            s.spawn(|| {
                thread::sleep(ms(10));
                right = words[2..].iter().map(|w| w.len()).sum();
            });
            "value"
        });
        assert_eq!((value, left, right), ("value", 6, 8));
    });
}

#[test]
fn a_scope_waits_for_all_its_threads() {
    everywhere(|| {
        let done = AtomicUsize::new(0);
        thread::scope(|s| {
            for n in 0..20 {
                let done = &done;
                s.spawn(move || {
                    thread::sleep(ms(10 + n));
                    done.fetch_add(1, SeqCst);
                });
            }
        });
        assert_eq!(done.load(SeqCst), 20);
    });
}

#[test]
fn a_scope_waits_for_threads_its_threads_have_spawned_in_it() {
    everywhere(|| {
        let done = AtomicUsize::new(0);
        thread::scope(|s| {
            s.spawn(|| {
                s.spawn(|| {
                    thread::sleep(ms(30));
                    s.spawn(|| {
                        thread::sleep(ms(30));
                        done.fetch_add(1, SeqCst);
                    });
                });
            });
        });
        assert_eq!(done.load(SeqCst), 1);
    });
}

#[test]
fn a_scope_with_no_threads_and_scopes_in_scopes_work() {
    everywhere(|| {
        assert_eq!(thread::scope(|_| 5), 5);
        let total = AtomicUsize::new(0);
        thread::scope(|outer| {
            for _ in 0..4 {
                outer.spawn(|| {
                    thread::scope(|inner| {
                        for _ in 0..4 {
                            inner.spawn(|| {
                                thread::sleep(ms(5));
                                total.fetch_add(1, SeqCst)
                            });
                        }
                    });
                });
            }
        });
        assert_eq!(total.load(SeqCst), 16);
    });
}

#[test]
fn a_scope_panics_when_an_unjoined_child_did_but_only_after_the_others_are_done() {
    everywhere(|| {
        let done = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn(|| panic!("unjoined"));
                s.spawn(|| {
                    thread::sleep(ms(60));
                    done.fetch_add(1, SeqCst);
                });
            })
        }));
        assert!(outcome.is_err());
        assert_eq!(done.load(SeqCst), 1);
    });
}

#[test]
fn a_scope_with_a_panicking_closure_waits_and_resumes_that_panic() {
    everywhere(|| {
        let done = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn(|| {
                    thread::sleep(ms(60));
                    done.fetch_add(1, SeqCst);
                });
                panic!("the closure itself");
            })
        }));
        let payload = outcome.unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "the closure itself");
        assert_eq!(done.load(SeqCst), 1);
    });
}

#[test]
fn joined_threads_of_a_scope_give_their_results_even_panics() {
    everywhere(|| {
        let text = String::from("borrowed");
        thread::scope(|s| {
            let good = s.spawn(|| text.len());
            let bad = s.spawn(|| -> u8 { panic!("joined") });
            assert_eq!(good.join().unwrap(), 8);
            let payload = bad.join().unwrap_err();
            assert_eq!(*payload.downcast::<&str>().unwrap(), "joined");
        }); // the scope does not panic
    });
}

#[test]
fn scoped_threads_have_names_ids_and_know_when_they_are_finished() {
    everywhere(|| {
        let go = AtomicBool::new(false);
        thread::scope(|s| {
            let handle = thread::Builder::new()
                .name("scoped".into())
                .spawn_scoped(s, || {
                    until("told to go", || go.load(SeqCst));
                    let me = thread::current();
                    (me.name().map(str::to_owned), me.id())
                })
                .unwrap();
            assert!(!handle.is_finished());
            assert_eq!(handle.thread().name(), Some("scoped"));
            let id = handle.thread().id();
            go.store(true, SeqCst);
            until("it is finished", || handle.is_finished());
            assert_eq!(handle.join().unwrap(), (Some("scoped".to_string()), id));
        });
    });
}

// ------------------------------------------------------------ park and unpark

#[test]
fn unpark_wakes_a_parked_thread() {
    everywhere(|| {
        let woken = Arc::new(AtomicBool::new(false));
        let parked = thread::spawn({
            let woken = Arc::clone(&woken);
            move || {
                while !woken.load(SeqCst) {
                    thread::park();
                }
            }
        });
        thread::sleep(ms(50));
        assert!(!parked.is_finished());
        woken.store(true, SeqCst);
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
fn an_unpark_before_the_park_makes_it_return_at_once() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            thread::current().unpark();
            thread::park();
            thread::current().unpark();
            assert!(park_finds_a_token());
        });
        // Another thread unparks a thread that is not parked.
        let phase = counter();
        let busy = thread::spawn({
            let phase = Arc::clone(&phase);
            move || {
                phase.store(1, SeqCst);
                // Does not wait, because a wait could take the token.
                while phase.load(SeqCst) != 2 {
                    thread::yield_now();
                }
                park_finds_a_token()
            }
        });
        until("it runs", || phase.load(SeqCst) == 1);
        busy.thread().unpark();
        phase.store(2, SeqCst);
        assert!(busy.join().unwrap());
    });
}

#[test]
fn unparking_twice_leaves_one_token() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            thread::current().unpark();
            thread::current().unpark();
            assert!(park_finds_a_token());
            assert!(park_finds_no_token());
        });
    });
}

#[test]
fn park_timeout_returns_without_an_unpark() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            let start = Instant::now();
            assert!(park_finds_no_token());
            assert!(start.elapsed() < PATIENCE);
            thread::park_timeout(Duration::ZERO);
            // A park that times out leaves no token behind, and takes no later token away.
            assert!(park_finds_no_token());
            thread::current().unpark();
            assert!(park_finds_a_token());
        });
    });
}

#[test]
fn unpark_ends_a_park_timeout_early() {
    everywhere(|| {
        let parked = thread::spawn(park_finds_a_token);
        thread::sleep(ms(50));
        parked.thread().unpark();
        assert!(parked.join().unwrap());
    });
}

#[test]
fn a_token_survives_sleeping_joining_and_socket_reads() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            thread::current().unpark();
            thread::sleep(ms(30));
            thread::yield_now();
            let writer = thread::spawn(move || {
                thread::sleep(ms(50));
                far.write_all(b"x").unwrap();
                thread::sleep(ms(50));
            });
            near.read_exact(&mut [0; 1]).unwrap(); // parks
            writer.join().unwrap(); // parks
            near.set_read_timeout(Some(ms(20))).unwrap();
            let _ = near.read(&mut [0; 1]);
            assert!(park_finds_a_token());
            assert!(park_finds_no_token());
        });
    });
}

#[test]
fn an_unpark_does_not_wake_a_sleep_a_join_or_a_socket_read_and_is_kept() {
    everywhere(|| {
        let phase = counter();
        let target = thread::spawn({
            let phase = Arc::clone(&phase);
            move || {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut far, _) = listener.accept().unwrap();

                phase.store(1, SeqCst);
                let start = Instant::now();
                thread::sleep(ms(150));
                assert!(start.elapsed() >= ms(150), "a sleep was cut short");
                assert!(park_finds_a_token(), "lost in the sleep");

                let writer = thread::spawn(move || {
                    thread::sleep(ms(150));
                    far.write_all(b"x").unwrap();
                });
                phase.store(2, SeqCst);
                near.read_exact(&mut [0; 1]).unwrap();
                assert!(park_finds_a_token(), "lost in the read");
                writer.join().unwrap();

                let slow = thread::spawn(|| thread::sleep(ms(150)));
                phase.store(3, SeqCst);
                slow.join().unwrap();
                assert!(park_finds_a_token(), "lost in the join");
            }
        });
        for n in 1..=3 {
            until("it is there", || {
                phase.load(SeqCst) == n || target.is_finished()
            });
            thread::sleep(ms(30));
            target.thread().unpark();
        }
        target.join().unwrap();
    });
}

#[test]
fn two_threads_pass_a_turn_to_and_fro_by_park_and_unpark() {
    everywhere(|| {
        const TURNS: usize = 500;
        let turn = counter();
        let wait_for = |turn: &AtomicUsize, odd: usize| {
            while turn.load(SeqCst) % 2 != odd {
                thread::park();
            }
        };
        let first = thread::spawn({
            let turn = Arc::clone(&turn);
            move || {
                let me = thread::current();
                let second = thread::spawn({
                    let turn = Arc::clone(&turn);
                    move || {
                        for _ in 0..TURNS {
                            wait_for(&turn, 1);
                            turn.fetch_add(1, SeqCst);
                            me.unpark();
                        }
                    }
                });
                for _ in 0..TURNS {
                    wait_for(&turn, 0);
                    turn.fetch_add(1, SeqCst);
                    second.thread().unpark();
                }
                second.join().unwrap();
            }
        });
        first.join().unwrap();
        assert_eq!(turn.load(SeqCst), 2 * TURNS);
    });
}

// ----------------------------------------------------------- sleep and yield

#[test]
fn a_sleep_lasts_at_least_its_time() {
    everywhere(|| {
        for length in [0, 1, 20, 60].map(ms) {
            let start = Instant::now();
            thread::sleep(length);
            let took = start.elapsed();
            assert!(took >= length, "{took:?} instead of {length:?}");
            assert!(took < PATIENCE, "{took:?} instead of {length:?}");
        }
        let start = Instant::now();
        thread::sleep(Duration::from_micros(300));
        assert!(start.elapsed() >= Duration::from_micros(300));
    });
}

#[test]
fn a_hundred_sleeps_pass_side_by_side() {
    everywhere(|| {
        let start = Instant::now();
        let sleepers: Vec<_> = (0..100)
            .map(|_| {
                thread::spawn(|| {
                    let start = Instant::now();
                    thread::sleep(ms(200));
                    start.elapsed()
                })
            })
            .collect();
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap() >= ms(200));
        }
        let took = start.elapsed();
        assert!(took < PATIENCE, "{took:?}, the sum being 20 s");
    });
}

#[test]
fn shorter_sleeps_end_before_longer_ones_started_earlier() {
    let order = || {
        let ended = counter();
        let sleepers = [600, 300, 10].map(|length| {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                thread::sleep(ms(length));
                ended.fetch_add(1, SeqCst)
            })
        });
        sleepers.map(|sleeper| sleeper.join().unwrap())
    };
    everywhere(|| {
        // On a machine that stands still for longer, several end at the same time.
        let mut orders = Vec::new();
        let is_right = (0..5).any(|_| {
            orders.push(order());
            orders.ends_with(&[[2, 1, 0]])
        });
        assert!(is_right, "{orders:?}");
    });
}

#[test]
fn yield_now_lets_others_run() {
    everywhere(|| {
        // Each of the two waits for the other, and only yields.
        let ball = counter();
        let players: Vec<_> = (0..2)
            .map(|me| {
                let ball = Arc::clone(&ball);
                thread::spawn(move || {
                    for _ in 0..100 {
                        while ball.load(SeqCst) % 2 != me {
                            thread::yield_now();
                        }
                        ball.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for player in players {
            player.join().unwrap();
        }
        assert_eq!(ball.load(SeqCst), 200);
    });
}

#[test]
fn available_parallelism_is_known() {
    everywhere(|| {
        assert!(thread::available_parallelism().unwrap().get() >= 1);
    });
}

// --------------------------------------------------------------------- drops

#[test]
fn the_result_of_a_detached_thread_is_dropped_once() {
    everywhere(|| {
        // The handle is dropped before the thread ends.
        let drops = counter();
        let value = Counted(Arc::clone(&drops));
        drop(thread::spawn(move || {
            thread::sleep(ms(30));
            value
        }));
        assert_dropped_once(&drops);
        // The thread ends before the handle is dropped. The handle keeps the result.
        let drops = counter();
        let value = Counted(Arc::clone(&drops));
        let handle = thread::spawn(move || value);
        until("it is finished", || handle.is_finished());
        assert_eq!(drops.load(SeqCst), 0);
        drop(handle);
        assert_dropped_once(&drops);
    });
}

#[test]
fn a_joined_result_is_dropped_by_the_joiner() {
    everywhere(|| {
        let drops = counter();
        let value = Counted(Arc::clone(&drops));
        let value = thread::spawn(move || value).join().unwrap();
        thread::sleep(ms(10));
        assert_eq!(drops.load(SeqCst), 0);
        drop(value);
        assert_dropped_once(&drops);
    });
}

#[test]
fn what_a_closure_captured_is_dropped_once_and_before_join_returns() {
    everywhere(|| {
        let drops = counter();
        let captured = Counted(Arc::clone(&drops));
        let handle = thread::spawn(move || {
            let _held = &captured;
            thread::sleep(ms(10));
        });
        handle.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        // The same if the thread panics, and if nothing joins the thread.
        let drops = counter();
        let captured = Counted(Arc::clone(&drops));
        let handle = thread::spawn(move || {
            let _held = &captured;
            panic!("with something in hand");
        });
        handle.join().unwrap_err();
        assert_eq!(drops.load(SeqCst), 1);
        let drops = counter();
        let captured = Counted(Arc::clone(&drops));
        drop(thread::spawn(move || {
            let _held = &captured;
        }));
        assert_dropped_once(&drops);
    });
}

#[test]
fn the_payload_of_an_unjoined_panic_is_dropped_once() {
    everywhere(|| {
        let drops = counter();
        let payload = Counted(Arc::clone(&drops));
        let handle = thread::spawn(move || panic_any(payload));
        until("it is finished", || handle.is_finished());
        drop(handle);
        assert_dropped_once(&drops);
    });
}

// ----------------------------------------------------------------- panicking

/// When dropped, checks whether its thread is panicking, calls `between`, and checks again.
struct Witness {
    saw: Arc<AtomicUsize>,
    between: fn(),
}

/// The result of a witness: 10, plus 1 for each check that found a panic.
const CALM: usize = 10;
const PANIC_TWICE: usize = 12;

impl Drop for Witness {
    fn drop(&mut self) {
        let mut seen = thread::panicking() as usize;
        (self.between)();
        seen += thread::panicking() as usize;
        self.saw.store(CALM + seen, SeqCst);
    }
}

#[test]
fn panicking_is_true_while_unwinding_and_false_elsewhere() {
    everywhere(|| {
        assert!(!thread::panicking());
        for (fails, wanted) in [(true, PANIC_TWICE), (false, CALM)] {
            let saw = counter();
            let witness = Witness {
                saw: Arc::clone(&saw),
                between: || (),
            };
            let handle = thread::spawn(move || {
                let _witness = witness;
                assert!(!thread::panicking());
                assert!(!fails, "to be seen");
            });
            assert_eq!(handle.join().is_err(), fails);
            assert_eq!(saw.load(SeqCst), wanted);
            assert!(!thread::panicking());
        }
    });
}

// The hard case: a thread waits during an unwind, and other threads run meanwhile.
#[test]
fn a_thread_waiting_amid_unwinding_is_the_only_one_panicking() {
    everywhere(|| {
        let wait: fn() = || thread::sleep(ms(60));
        let (unwound, ended) = (counter(), counter());
        let witness = Witness {
            saw: Arc::clone(&unwound),
            between: wait,
        };
        let failing = thread::spawn(move || {
            let _witness = witness;
            panic!("to be seen");
        });
        let witness = Witness {
            saw: Arc::clone(&ended),
            between: wait,
        };
        let calm = thread::spawn(move || {
            let _witness = witness;
            (0..40).any(|_| {
                thread::sleep(ms(2));
                thread::panicking()
            })
        });
        while !failing.is_finished() {
            assert!(!thread::panicking());
            thread::sleep(ms(2));
        }
        assert!(!calm.join().unwrap());
        failing.join().unwrap_err();
        assert_eq!(unwound.load(SeqCst), PANIC_TWICE);
        assert_eq!(ended.load(SeqCst), CALM);
        assert!(!thread::panicking());
    });
}

// ------------------------------------------------------- names and signatures

#[test]
#[allow(deprecated, reason = "they are there all the same")]
fn functions_and_methods_have_these_signatures() {
    type Io<T> = ::std::io::Result<T>;
    type F = fn() -> u8;
    let _: fn(F) -> thread::JoinHandle<u8> = thread::spawn;
    let _: fn() -> thread::Thread = thread::current;
    let _: [fn(); 2] = [thread::park, thread::yield_now];
    let _: [fn(Duration); 2] = [thread::sleep, thread::park_timeout];
    let _: [fn(u32); 2] = [thread::sleep_ms, thread::park_timeout_ms];
    let _: fn() -> bool = thread::panicking;
    let _: fn() -> Io<::std::num::NonZero<usize>> = thread::available_parallelism;

    use thread::Builder;
    let _: fn() -> Builder = Builder::new;
    let _: fn(Builder, String) -> Builder = Builder::name;
    let _: fn(Builder, usize) -> Builder = Builder::stack_size;
    let _: fn(Builder, F) -> Io<thread::JoinHandle<u8>> = Builder::spawn;
    let _: unsafe fn(Builder, F) -> Io<thread::JoinHandle<u8>> = Builder::spawn_unchecked;

    use thread::JoinHandle;
    let _: fn(JoinHandle<u8>) -> thread::Result<u8> = JoinHandle::join;
    let _: fn(&JoinHandle<u8>) -> &thread::Thread = JoinHandle::thread;
    let _: fn(&JoinHandle<u8>) -> bool = JoinHandle::is_finished;

    use thread::{Scope, ScopedJoinHandle};
    fn of_a_scope<'scope, 'env: 'scope>() {
        type Spawn<'s, 'e> = fn(&'s Scope<'s, 'e>, F) -> ScopedJoinHandle<'s, u8>;
        type SpawnBy<'s, 'e> = fn(Builder, &'s Scope<'s, 'e>, F) -> Io<ScopedJoinHandle<'s, u8>>;
        let _: Spawn<'scope, 'env> = Scope::spawn;
        let _: SpawnBy<'scope, 'env> = Builder::spawn_scoped;
        let _: fn(ScopedJoinHandle<'scope, u8>) -> thread::Result<u8> = ScopedJoinHandle::join;
        let _: for<'a> fn(&'a ScopedJoinHandle<'scope, u8>) -> &'a thread::Thread =
            ScopedJoinHandle::thread;
        let _: fn(&ScopedJoinHandle<'scope, u8>) -> bool = ScopedJoinHandle::is_finished;
        let _: fn(for<'s> fn(&'s Scope<'s, 'env>) -> u8) -> u8 = thread::scope;
    }
    of_a_scope();

    let _: fn(&thread::Thread) = thread::Thread::unpark;
    let _: fn(&thread::Thread) -> thread::ThreadId = thread::Thread::id;
    let _: fn(&thread::Thread) -> Option<&str> = thread::Thread::name;
}

/// For each trait, whether `$type` implements the trait. An inherent item of `Has` is found before the
/// item of the trait `Lacks`.
macro_rules! has {
    ($type:ty: $($trait:ident)+) => {{
        #[allow(dead_code, reason = "used for what lacks the trait")]
        trait Lacks {
            const HAS: bool = false;
        }
        [$({
            struct Asked<T: ?Sized>(::std::marker::PhantomData<T>);
            impl<T: ?Sized> Lacks for Asked<T> {}
            #[allow(dead_code, reason = "used for what has the trait")]
            impl<T: ?Sized + $trait> Asked<T> {
                const HAS: bool = true;
            }
            <Asked<$type>>::HAS
        }),+]
    }};
}

#[test]
fn types_have_and_lack_these_auto_traits() {
    use ::std::panic::{RefUnwindSafe, UnwindSafe};
    use ::std::rc::Rc;

    macro_rules! auto {
        ($type:ty) => {
            has!($type: Send Sync Unpin UnwindSafe RefUnwindSafe)
        };
    }
    let all = [true; 5];
    assert_eq!(auto!(thread::Builder), all);
    assert_eq!(auto!(thread::Thread), all);
    assert_eq!(auto!(thread::ThreadId), all);
    assert_eq!(
        auto!(thread::Scope<'_, '_>),
        [true, true, true, false, true]
    );
    // `spawn` demands that the result is `Send`, so the handle demands nothing of the result.
    let crosses = [true, true, true, false, false];
    assert_eq!(auto!(thread::JoinHandle<u8>), crosses);
    assert_eq!(auto!(thread::JoinHandle<Rc<u8>>), crosses);
    assert_eq!(auto!(thread::ScopedJoinHandle<'_, u8>), crosses);
    assert_eq!(
        auto!(thread::ScopedJoinHandle<'_, ::std::cell::Cell<u8>>),
        crosses
    );
    let stays = [false, false, true, false, false];
    assert_eq!(auto!(thread::ScopedJoinHandle<'_, Rc<u8>>), stays);
}

#[test]
fn types_have_and_lack_these_other_traits() {
    use ::std::fmt::Debug;
    use ::std::hash::Hash;

    macro_rules! other {
        ($type:ty) => {
            has!($type: Debug Clone Copy Eq Hash Ord)
        };
    }
    assert_eq!(
        other!(thread::ThreadId),
        [true, true, true, true, true, false]
    );
    assert_eq!(
        other!(thread::Thread),
        [true, true, false, false, false, false]
    );
    let debug_alone = [true, false, false, false, false, false];
    assert_eq!(other!(thread::Builder), debug_alone);
    assert_eq!(other!(thread::JoinHandle<u8>), debug_alone);
    assert_eq!(other!(thread::Scope<'_, '_>), debug_alone);
    assert_eq!(other!(thread::ScopedJoinHandle<'_, u8>), debug_alone);
    // The result need not implement `Debug`.
    struct Opaque;
    assert_eq!(other!(thread::JoinHandle<Opaque>), debug_alone);
    assert_eq!(other!(thread::ScopedJoinHandle<'_, Opaque>), debug_alone);
}

#[test]
fn an_id_leaves_room_for_none() {
    assert_eq!(
        size_of::<Option<thread::ThreadId>>(),
        size_of::<thread::ThreadId>()
    );
}

#[test]
fn debug_output_names_the_thread() {
    everywhere(|| {
        let named = thread::Builder::new().name("a \"name\"".into());
        let settings = format!("{named:?}");
        assert!(
            settings.starts_with("Builder { name: Some(\"a \\\"name\\\"\"), "),
            "{settings}"
        );
        let handle = named.spawn(|| ()).unwrap();
        assert_eq!(format!("{handle:?}"), "JoinHandle { .. }");
        let id = format!("{:?}", handle.thread().id());
        let number = id
            .strip_prefix("ThreadId(")
            .and_then(|id| id.strip_suffix(')'));
        assert!(
            number.is_some_and(|n| n.parse::<u64>().unwrap() > 0),
            "{id}"
        );
        let thread = format!("Thread {{ id: {id}, name: Some(\"a \\\"name\\\"\"), .. }}");
        assert_eq!(format!("{:?}", handle.thread()), thread);
        handle.join().unwrap();

        let main = format!("{:?}", thread::current());
        thread::scope(|s| {
            let empty = format!(
                "Scope {{ num_running_threads: 0, a_thread_panicked: false, main_thread: {main}, .. }}"
            );
            assert_eq!(format!("{s:?}"), empty);
            let go = AtomicBool::new(false);
            let go = Arc::new(go);
            let theirs = Arc::clone(&go);
            let running = s.spawn(move || until("told to go", || theirs.load(SeqCst)));
            assert_eq!(format!("{running:?}"), "ScopedJoinHandle { .. }");
            let one = empty.replace("threads: 0", "threads: 1");
            // Any thread may look at the scope.
            assert_eq!(s.spawn(|| 0).join().unwrap(), 0);
            until("the other one is gone", || format!("{s:?}") == one);
            go.store(true, SeqCst);
        });
    });
}

#[test]
fn a_scoped_handle_does_for_shorter_scopes() {
    fn both<'a>(
        first: thread::ScopedJoinHandle<'a, u32>,
        second: thread::ScopedJoinHandle<'a, u32>,
    ) -> u32 {
        first.join().unwrap() + second.join().unwrap()
    }
    everywhere(|| {
        let sum = thread::scope(|outer| {
            let first = outer.spawn(|| 20);
            thread::scope(|inner| both(first, inner.spawn(|| 22)))
        });
        assert_eq!(sum, 42);
    });
}

// ------------------------------------------------- what spawning may be asked

#[test]
fn a_name_with_a_nul_panics_where_it_is_spawned_and_drops_the_closure() {
    everywhere(|| {
        let drops = counter();
        let bad = || thread::Builder::new().name("nul\0inside".into());
        let _ = bad(); // does not panic yet
        let refused = |spawn: &dyn Fn(Counted)| {
            let captured = Counted(Arc::clone(&drops));
            let before = drops.load(SeqCst);
            let payload = catch_unwind(AssertUnwindSafe(|| spawn(captured))).unwrap_err();
            let message = payload.downcast::<String>().map(|text| *text);
            let message = message.or_else(|other| other.downcast::<&str>().map(|s| s.to_string()));
            let message = message.unwrap();
            assert_eq!(
                message,
                "thread name may not contain interior null bytes: \
                 NulError(3, [110, 117, 108, 0, 105, 110, 115, 105, 100, 101])"
            );
            assert_eq!(drops.load(SeqCst), before + 1);
        };
        refused(&|captured| drop(bad().spawn(move || drop(captured))));
        // SAFETY: the closure borrows nothing.
        refused(&|captured| drop(unsafe { bad().spawn_unchecked(move || drop(captured)) }));
        let sum = thread::scope(|s| {
            refused(&|captured| drop(bad().spawn_scoped(s, move || drop(captured))));
            s.spawn(|| 3).join().unwrap()
        });
        assert_eq!(sum, 3);
    });
}

#[test]
fn names_may_be_empty_long_and_in_any_script() {
    everywhere(|| {
        let long = "all of it is kept ".repeat(40);
        for name in ["", "\n", "Ада Лавлейс 🦀", &long] {
            let handle = thread::Builder::new()
                .name(name.to_owned())
                .spawn(|| thread::current().name().map(str::to_owned))
                .unwrap();
            assert_eq!(handle.thread().name(), Some(name));
            assert_eq!(handle.join().unwrap().as_deref(), Some(name));
        }
    });
}

#[test]
fn any_small_stack_size_is_rounded_up_to_one_that_works() {
    everywhere(|| {
        for size in [0, 1, 4095, 4097, 70_000] {
            let builder = thread::Builder::new().stack_size(size);
            assert_eq!(builder.spawn(move || size).unwrap().join().unwrap(), size);
        }
    });
}

#[test]
fn a_stack_that_no_machine_has_is_an_error_and_drops_the_closure() {
    everywhere(|| {
        for size in [1 << 60, usize::MAX / 2] {
            let huge = || thread::Builder::new().stack_size(size);
            let drops = counter();
            let captured = || Counted(Arc::clone(&drops));
            let first = captured();
            let _: ::std::io::Error = huge().spawn(move || drop(first)).unwrap_err();
            assert_eq!(drops.load(SeqCst), 1);
            thread::scope(|s| {
                let second = captured();
                huge().spawn_scoped(s, move || drop(second)).unwrap_err();
                assert_eq!(drops.load(SeqCst), 2);
            }); // the scope does not wait for a thread that was not made
            let third = captured();
            // SAFETY: the closure borrows nothing.
            unsafe { huge().spawn_unchecked(move || drop(third)) }.unwrap_err();
            assert_eq!(drops.load(SeqCst), 3);
        }
        assert_eq!(thread::spawn(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn closures_and_results_may_be_large_and_aligned() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    #[repr(align(512))]
    struct Aligned([u8; 8 << 10]);

    fn is_aligned(value: &Aligned) -> bool {
        ::std::ptr::from_ref(value).is_aligned()
    }
    everywhere(|| {
        let large = Aligned([7; 8 << 10]);
        let handle = thread::spawn(move || {
            assert!(is_aligned(&large));
            Aligned(large.0.map(|byte| byte + 1))
        });
        let result = handle.join().unwrap();
        assert!(is_aligned(&result));
        assert_eq!(result, Aligned([8; 8 << 10]));
        thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn what_is_in_a_box_stays_where_it_is() {
    everywhere(|| {
        let boxed = Box::new(5);
        let address = ::std::ptr::from_ref(&*boxed).addr();
        let handle = thread::spawn(move || (::std::ptr::from_ref(&*boxed).addr(), boxed));
        let (inside, boxed) = handle.join().unwrap();
        assert_eq!(
            (inside, ::std::ptr::from_ref(&*boxed).addr()),
            (address, address)
        );
    });
}

#[test]
fn an_unchecked_thread_may_borrow_until_it_is_joined() {
    everywhere(|| {
        let mut words = vec!["lend", "me"];
        let borrowed = &mut words;
        let builder = thread::Builder::new().name("borrows".into());
        let borrow = move || {
            thread::sleep(ms(20));
            borrowed.push("your ears");
            borrowed.last().copied()
        };
        // SAFETY: the thread borrows `words`, and is joined before `words` is used again.
        let handle = unsafe { builder.spawn_unchecked(borrow) }.unwrap();
        assert_eq!(handle.thread().name(), Some("borrows"));
        assert_eq!(handle.join().unwrap(), Some("your ears"));
        assert_eq!(words, ["lend", "me", "your ears"]);
    });
}

#[test]
fn a_thread_that_joins_itself_panics() {
    everywhere(|| {
        let own: Arc<::std::sync::Mutex<Option<thread::JoinHandle<bool>>>> = Arc::default();
        let (finished, theirs) = (counter(), Arc::clone(&own));
        let seen = Arc::clone(&finished);
        let joins = thread::spawn(move || {
            until("it has its own handle", || theirs.lock().unwrap().is_some());
            let own = theirs.lock().unwrap().take().unwrap();
            let joined = catch_unwind(AssertUnwindSafe(|| own.join()));
            seen.store(1, SeqCst);
            let payload = joined.map(drop).unwrap_err();
            let message = payload.downcast_ref::<String>().map(String::as_str);
            let message = message.or(payload.downcast_ref::<&str>().copied()).unwrap();
            assert!(message.starts_with("failed to join thread"), "{message}");
            seen.store(2, SeqCst);
            true
        });
        *own.lock().unwrap() = Some(joins);
        until("that has been refused", || finished.load(SeqCst) == 2);
    });
}

#[test]
fn the_destructor_of_a_panicking_thread_may_spawn() {
    struct Spawns(Arc<AtomicUsize>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let seen = Arc::clone(&self.0);
            thread::spawn(move || {
                assert!(!thread::panicking());
                seen.fetch_add(1, SeqCst);
            });
        }
    }
    everywhere(|| {
        let ran = counter();
        let spawns = Spawns(Arc::clone(&ran));
        let panics = thread::spawn(move || {
            let _spawns = spawns;
            resume_unwind(Box::new("enough"));
        });
        panics.join().unwrap_err();
        until("what it spawned has run", || ran.load(SeqCst) == 1);
    });
}

#[test]
fn ids_are_not_used_again_by_hundreds_one_after_another() {
    everywhere(|| {
        let mut ids = HashSet::new();
        for _ in 0..300 {
            let handle = thread::spawn(|| thread::current().id());
            assert!(ids.insert(handle.join().unwrap()));
        }
    });
}

#[test]
fn one_that_is_finished_has_dropped_what_it_captured() {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(ms(30));
            self.0.store(true, SeqCst);
        }
    }
    everywhere(|| {
        for fails in [false, true] {
            let dropped = Arc::new(AtomicBool::new(false));
            let captured = Slow(Arc::clone(&dropped));
            let handle = thread::spawn(move || {
                let _captured = captured;
                if fails {
                    resume_unwind(Box::new(()));
                }
            });
            until("it is finished", || {
                let before = dropped.load(SeqCst);
                let finished = handle.is_finished();
                assert!(before || !finished || dropped.load(SeqCst));
                finished
            });
            assert!(dropped.load(SeqCst));
            assert_eq!(handle.join().is_err(), fails);
        }
    });
}

// ------------------------------------------------------- more on scopes

/// The message of the panic of a scope.
fn message_of_a_panicking_scope(body: impl for<'s> FnOnce(&'s thread::Scope<'s, '_>)) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| thread::scope(body))).unwrap_err();
    payload.downcast::<&str>().unwrap().to_string()
}

#[test]
fn a_scope_panics_for_an_unjoined_thread_that_panicked() {
    const MESSAGE: &str = "a scoped thread panicked";
    fn fails() {
        resume_unwind(Box::new("its own message"))
    }
    everywhere(|| {
        // The handle is dropped before the thread ends, after the thread ends, or at the end of the scope.
        let dropped_at_once = message_of_a_panicking_scope(|s| {
            drop(s.spawn(|| {
                thread::sleep(ms(20));
                fails();
            }));
        });
        assert_eq!(dropped_at_once, MESSAGE);
        let dropped_afterwards = message_of_a_panicking_scope(|s| {
            let handle = s.spawn(fails);
            until("it has panicked", || handle.is_finished());
            drop(handle);
            thread::sleep(ms(5));
        });
        assert_eq!(dropped_afterwards, MESSAGE);
        let one_of_many = message_of_a_panicking_scope(|s| {
            for _ in 0..5 {
                s.spawn(|| ());
            }
            s.spawn(fails);
            s.spawn(fails).join().unwrap_err();
        });
        assert_eq!(one_of_many, MESSAGE);
        // If the closure of the scope panics, too, that panic is resumed.
        let own = message_of_a_panicking_scope(|s| {
            s.spawn(fails);
            resume_unwind(Box::new("of the closure"));
        });
        assert_eq!(own, "of the closure");
    });
}

#[test]
fn a_panic_within_a_scope_in_a_scoped_thread_is_that_threads() {
    everywhere(|| {
        let payload = thread::scope(|outer| {
            let nested = outer.spawn(|| {
                thread::scope(|inner| {
                    inner.spawn(|| resume_unwind(Box::new("innermost")));
                });
            });
            nested.join().unwrap_err()
        });
        assert_eq!(
            *payload.downcast::<&str>().unwrap(),
            "a scoped thread panicked"
        );
    });
}

#[test]
fn a_scope_waits_for_destructors_of_results_and_what_they_spawn() {
    struct Spawns<'scope, 'env>(&'scope thread::Scope<'scope, 'env>, &'env AtomicUsize);
    impl Drop for Spawns<'_, '_> {
        fn drop(&mut self) {
            thread::sleep(ms(20));
            let steps = self.1;
            steps.fetch_add(1, SeqCst);
            self.0.spawn(move || {
                thread::sleep(ms(20));
                steps.fetch_add(10, SeqCst);
            });
        }
    }
    everywhere(|| {
        let steps = AtomicUsize::new(0);
        thread::scope(|s| {
            let steps = &steps;
            // The first result is dropped by the thread, the second by the handle.
            s.spawn(move || {
                thread::sleep(ms(10));
                Spawns(s, steps)
            });
            let kept = s.spawn(move || Spawns(s, steps));
            until("it is finished", || kept.is_finished());
        });
        assert_eq!(steps.load(SeqCst), 22);
    });
}

#[test]
fn a_scope_waits_for_destructors_of_what_its_threads_captured() {
    struct Slow<'a>(&'a AtomicUsize);
    impl Drop for Slow<'_> {
        fn drop(&mut self) {
            thread::sleep(ms(20));
            self.0.fetch_add(1, SeqCst);
        }
    }
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        thread::scope(|s| {
            let (first, second) = (Slow(&drops), Slow(&drops));
            s.spawn(move || drop(first));
            let caught = s.spawn(move || {
                let _second = second;
                resume_unwind(Box::new(()));
            });
            s.spawn(move || caught.join().unwrap_err());
        });
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn a_scoped_thread_is_joined_by_another_and_hands_on_borrows() {
    everywhere(|| {
        let text = String::from("first second");
        let second = thread::scope(|s| {
            let words = s.spawn(|| text.split(' ').collect::<Vec<&str>>());
            let second = s.spawn(move || words.join().unwrap()[1]);
            second.join().unwrap() // the result outlives the scope
        });
        assert_eq!(second, "second");
    });
}

#[test]
fn a_scope_with_many_short_threads_ends_each_time() {
    everywhere(|| {
        for round in 0..50 {
            let count = AtomicUsize::new(0);
            thread::scope(|s| {
                for _ in 0..10 {
                    s.spawn(|| count.fetch_add(1, SeqCst));
                }
            });
            assert_eq!(count.load(SeqCst), 10, "in round {round}");
        }
    });
}

#[test]
fn a_scoped_thread_may_capture_by_an_empty_pattern() {
    fn looks(value: &u8) {
        thread::scope(|s| {
            s.spawn(|| {
                let _ = value;
            });
        });
    }
    everywhere(|| looks(&42));
}

// ------------------------------------------------ more on park and sleep

#[test]
fn the_longest_of_timeouts_is_ended_by_a_token_like_any_other() {
    everywhere(|| {
        let longest = [
            Duration::MAX,
            ms(u32::MAX.into()),
            Duration::from_secs(1 << 40),
        ];
        for timeout in longest {
            in_a_fresh_thread(move || {
                thread::current().unpark();
                thread::park_timeout(timeout);
            });
            let parks = thread::spawn(move || thread::park_timeout(timeout));
            thread::sleep(ms(5));
            assert!(!parks.is_finished());
            parks.thread().unpark();
            parks.join().unwrap();
        }
    });
}

#[test]
fn a_park_of_no_time_takes_a_token_that_is_there() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            thread::park_timeout(Duration::ZERO); // does not wait for a token
            thread::current().unpark();
            thread::park_timeout(Duration::ZERO);
            assert!(park_finds_no_token());
        });
    });
}

#[test]
fn an_unpark_may_come_from_any_thread_of_the_process() {
    everywhere(|| {
        let done = Arc::new(AtomicBool::new(false));
        let parks = thread::spawn({
            let done = Arc::clone(&done);
            move || {
                while !done.load(SeqCst) {
                    thread::park();
                }
            }
        });
        let target = parks.thread().clone();
        thread::sleep(ms(5));
        ::std::thread::spawn(move || {
            done.store(true, SeqCst);
            target.unpark();
        });
        parks.join().unwrap();
        // The other way round: a thread of the real std unparks this one.
        let me = thread::current();
        let told = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&told);
        let teller = ::std::thread::spawn(move || {
            tells.store(true, SeqCst);
            me.unpark();
        });
        while !told.load(SeqCst) {
            thread::park();
        }
        teller.join().unwrap();
    });
}

#[test]
fn a_sleep_of_next_to_no_time_returns_and_one_without_end_does_not() {
    everywhere(|| {
        for nanos in [0, 1, 50_000] {
            let (start, length) = (Instant::now(), Duration::from_nanos(nanos));
            thread::sleep(length);
            assert!(start.elapsed() >= length);
        }
        let woken = counter();
        let sleepers: Vec<_> = [Duration::MAX, Duration::from_secs(u64::MAX)]
            .into_iter()
            .map(|length| {
                let woken = Arc::clone(&woken);
                thread::spawn(move || {
                    thread::sleep(length);
                    woken.fetch_add(1, SeqCst);
                })
            })
            .collect();
        thread::sleep(ms(50));
        assert_eq!(woken.load(SeqCst), 0);
        assert!(!sleepers.iter().any(|sleeper| sleeper.is_finished()));
    });
}

#[test]
#[allow(deprecated, reason = "they work all the same")]
fn what_counts_in_milliseconds_does_so() {
    everywhere(|| {
        in_a_fresh_thread(|| {
            let start = Instant::now();
            thread::sleep_ms(20);
            assert!(start.elapsed() >= ms(20));
            thread::current().unpark();
            thread::park_timeout_ms(u32::MAX);
            thread::park_timeout_ms(1);
        });
    });
}

#[test]
fn those_that_sleep_for_no_time_or_yield_let_sockets_and_sleepers_go_on() {
    everywhere(|| {
        for turn in [thread::yield_now, || thread::sleep(Duration::ZERO)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let reader = thread::spawn(move || {
                let (mut far, _) = listener.accept().unwrap();
                far.read_exact(&mut [0; 1]).unwrap();
            });
            let writer = thread::spawn(move || {
                thread::sleep(ms(5));
                near.write_all(b"x").unwrap();
            });
            let start = Instant::now();
            while !(reader.is_finished() && writer.is_finished()) {
                assert!(start.elapsed() < PATIENCE);
                turn();
            }
        }
    });
}
