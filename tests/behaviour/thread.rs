// What threads promise. Included by ../thread.rs, once for std and once for the shims: `use std::…`
// names the one or the other, `::std::…` is always the real one. (Nested modules would not inherit
// the name: there are none.)
//
// Tests of the park token run in a thread of their own: the token of the calling one may have been
// touched by the harness, and by `scope`.

use ::std::collections::HashSet;
use ::std::io::{Read, Write};
use ::std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use util::everywhere;

const PATIENCE: Duration = Duration::from_secs(10);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(ms(1));
    }
}

/// Runs `body` in a fresh thread and hands on its result, or its panic.
fn in_a_fresh_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match thread::spawn(body).join() {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

/// Whether a park returns early, that is, a token was there.
fn park_finds_a_token() -> bool {
    let start = Instant::now();
    thread::park_timeout(PATIENCE + ms(5000));
    start.elapsed() < PATIENCE
}

/// Whether a park lasts its time, that is, no token was there. (A park may
/// return for no reason, but hardly three times in a row.)
fn park_finds_no_token() -> bool {
    (0..3).any(|_| {
        let start = Instant::now();
        thread::park_timeout(ms(100));
        start.elapsed() >= ms(80)
    })
}

/// Counts how often it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

/// It becomes 1 and is still 1 a while later.
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
fn a_panic_caught_inside_is_nobodys_business() {
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

/// 40 threads that panic together, each with its number; `amid` happens while
/// they unwind.
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

// ------------------------------------------------------ who a thread is

#[test]
fn a_name_given_to_the_builder_is_seen_inside_and_outside() {
    everywhere(|| {
        let handle = thread::Builder::new()
            .name("peer 7".to_string())
            .spawn(|| {
                let before = thread::current().name().map(str::to_owned);
                thread::sleep(ms(20)); // and it keeps it
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
        // Nor are those of finished threads given out again.
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
        gone.unpark(); // no effect, no harm
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
fn a_scope_whose_own_closure_panics_waits_and_hands_on_that_panic() {
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
        }); // and does not panic
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
        // From outside, while the thread is not parked.
        let phase = counter();
        let busy = thread::spawn({
            let phase = Arc::clone(&phase);
            move || {
                phase.store(1, SeqCst);
                // No waiting in here, it could be what eats the token.
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
            // A timeout leaves no token behind, nor takes a later one away.
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
            near.read_exact(&mut [0; 1]).unwrap(); // waits
            writer.join().unwrap(); // waits
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
                    thread::sleep(ms(50));
                    start.elapsed()
                })
            })
            .collect();
        for sleeper in sleepers {
            assert!(sleeper.join().unwrap() >= ms(50));
        }
        let took = start.elapsed();
        assert!(took < ms(2500), "{took:?}, the sum being 5 s");
    });
}

#[test]
fn shorter_sleeps_end_before_longer_ones_started_earlier() {
    everywhere(|| {
        let ended = counter();
        let sleepers: Vec<_> = [600, 300, 10]
            .into_iter()
            .map(|length| {
                let ended = Arc::clone(&ended);
                thread::spawn(move || {
                    thread::sleep(ms(length));
                    ended.fetch_add(1, SeqCst)
                })
            })
            .collect();
        let order: Vec<_> = sleepers.into_iter().map(|s| s.join().unwrap()).collect();
        assert_eq!(order, [2, 1, 0]);
    });
}

#[test]
fn yield_now_lets_others_run() {
    everywhere(|| {
        // Each waits for the other by nothing but yielding.
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
        // The handle goes first.
        let drops = counter();
        let value = Counted(Arc::clone(&drops));
        drop(thread::spawn(move || {
            thread::sleep(ms(30));
            value
        }));
        assert_dropped_once(&drops);
        // The thread ends first; its result is kept for the handle.
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
fn a_joined_result_is_dropped_by_who_joined() {
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
        // The same when it panics, and when nobody joins.
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

/// Looks, when dropped, whether its thread is panicking; before and after
/// doing what it was told to do in between.
struct Witness {
    saw: Arc<AtomicUsize>,
    between: fn(),
}

/// What a witness notes: 10, and 1 for each time it saw a panic.
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

// The hard one: a thread waits amid unwinding, and others run meanwhile.
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
