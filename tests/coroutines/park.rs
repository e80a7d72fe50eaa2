//! Parking: what the functions return, and that no wake is lost or reaches the wrong task.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use greenroom::{Unparker, park, park_timeout, park_until, yield_now};

use crate::util;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

#[test]
fn a_park_with_a_deadline_tells_whether_the_token_came() {
    util::everywhere(|| {
        thread::spawn(|| {
            let own = Unparker::current();
            assert!(!park_timeout(5 * MILLI));
            assert!(!park_until(Instant::now() + 5 * MILLI));
            own.unpark();
            assert!(park_timeout(LONG));
            own.unpark();
            assert!(park_until(Instant::now() + LONG));
            assert!(!park_timeout(5 * MILLI), "a token was used twice");
        })
        .join()
        .unwrap();
        // The calling coroutine or OS thread can be the target, too.
        assert!(!park_timeout(5 * MILLI));
        Unparker::current().unpark();
        assert!(park_until(Instant::now() + LONG));
        assert!(!park_until(Instant::now() + 5 * MILLI));
    });
}

#[test]
fn a_park_whose_deadline_has_passed_still_takes_an_available_token() {
    util::everywhere(|| {
        let past = Instant::now();
        assert!(!park_until(past));
        assert!(!park_timeout(Duration::ZERO));
        Unparker::current().unpark();
        assert!(park_until(past));
        Unparker::current().unpark();
        assert!(park_timeout(Duration::ZERO));
        assert!(!park_timeout(Duration::ZERO));
    });
}

#[test]
fn a_park_that_times_out_lasts_no_less_than_its_timeout() {
    util::everywhere(|| {
        for micros in [300, 1_000, 10_500] {
            let (time, start) = (Duration::from_micros(micros), Instant::now());
            assert!(!park_timeout(time));
            assert!(start.elapsed() >= time);
        }
    });
}

#[test]
fn a_timeout_beyond_the_clock_is_no_timeout() {
    util::everywhere(|| {
        let own = Unparker::current();
        let waker = thread::spawn(move || {
            thread::sleep(5 * MILLI);
            own.unpark();
        });
        assert!(park_timeout(Duration::MAX));
        waker.join().unwrap();
    });
}

#[test]
fn all_clones_of_an_unparker_unpark_the_same_task() {
    fn is_send_and_sync<T: Send + Sync + Clone>(_: &T) {}
    util::everywhere(|| {
        let own = Unparker::current();
        is_send_and_sync(&own);
        let rounds = Arc::new(AtomicUsize::new(0));
        for round in 0..10 {
            let (own, rounds) = (own.clone(), Arc::clone(&rounds));
            let wake = move || {
                rounds.fetch_add(1, SeqCst);
                own.unpark();
            };
            let (os_thread, coroutine) = match round % 2 {
                0 => (Some(std::thread::spawn(wake)), None),
                _ => (None, Some(thread::spawn(wake))),
            };
            park();
            if let Some(handle) = os_thread {
                handle.join().unwrap();
            }
            if let Some(handle) = coroutine {
                handle.join().unwrap();
            }
        }
        assert_eq!(rounds.load(SeqCst), 10);
    });
}

#[test]
fn an_unpark_of_a_coroutine_that_has_ended_or_not_begun_is_harmless() {
    util::everywhere(|| {
        let ended = thread::spawn(Unparker::current);
        let handle = ended.thread().clone();
        // Mostly the coroutine has not begun yet.
        handle.unpark();
        let unparker = ended.join().unwrap();
        for _ in 0..10 {
            unparker.unpark();
            handle.unpark();
        }
        // The coroutine that has the slot now must not notice.
        let next = thread::spawn(move || {
            let waker = thread::spawn(move || {
                for _ in 0..10 {
                    unparker.unpark();
                    thread::sleep(MILLI);
                }
            });
            assert!(!park_timeout(20 * MILLI));
            waker.join().unwrap();
        });
        next.join().unwrap();
        let early = thread::spawn(|| park_timeout(LONG));
        early.thread().unpark();
        assert!(early.join().unwrap());
    });
}

/// Two tasks that wake each other in turns. Each park ends by the other's unpark, and by nothing else.
fn ping_pong(rounds: usize, os_thread: bool) {
    let count = Arc::new(AtomicUsize::new(0));
    let pong = {
        let (ping, count) = (Unparker::current(), Arc::clone(&count));
        move || {
            for round in 0..rounds {
                park();
                assert_eq!(count.fetch_add(1, SeqCst), 2 * round + 1);
                ping.unpark();
            }
        }
    };
    let play = |pong: &dyn Fn()| {
        for round in 0..rounds {
            assert_eq!(count.fetch_add(1, SeqCst), 2 * round);
            pong();
            park();
        }
    };
    if os_thread {
        let (known, is_known) = (Arc::new(std::sync::OnceLock::new()), Unparker::current());
        let handle = std::thread::spawn({
            let known = Arc::clone(&known);
            move || {
                known.set(Unparker::current()).unwrap();
                is_known.unpark();
                pong();
            }
        });
        park();
        let known = known.get().unwrap();
        play(&|| known.unpark());
        // The coroutine has nothing left to wait for.
        handle.join().unwrap();
    } else {
        let handle = thread::spawn(pong);
        play(&|| handle.thread().unpark());
        handle.join().unwrap();
    }
}

#[test]
fn no_unpark_is_lost_between_coroutines_of_one_worker() {
    util::on_workers(1, || {
        let pairs: Vec<_> = (0..10)
            .map(|_| thread::spawn(|| ping_pong(2_000, false)))
            .collect();
        for pair in pairs {
            pair.join().unwrap();
        }
    });
}

/// After every thousandth call, a thread waits until the coroutine has seen that call. Often all threads wait
/// at once, and then no later `unpark` makes up for one that was lost.
#[test]
fn no_unpark_by_many_os_threads_is_lost_and_none_wakes_twice() {
    // Fewer without optimisation, where each takes longer.
    const EACH: usize = if cfg!(debug_assertions) {
        250_000
    } else {
        1_000_000
    };
    const UNTIL_AN_ANSWER: usize = 1_000;

    /// What one thread has done, and what the coroutine has seen of that.
    #[derive(Default)]
    struct Calls {
        made: AtomicUsize,
        seen: AtomicUsize,
    }

    for workers in [1, 4] {
        util::on_workers(workers, || {
            let all: [Arc<Calls>; 8] = Default::default();
            let threads = all.clone().map(|calls| {
                let coroutine = Unparker::current();
                std::thread::spawn(move || {
                    for n in 1..=EACH {
                        calls.made.store(n, SeqCst);
                        coroutine.unpark();
                        while n % UNTIL_AN_ANSWER == 0 && calls.seen.load(SeqCst) < n {
                            std::thread::park();
                        }
                    }
                })
            });
            let mut wakes = 0;
            while all.iter().any(|calls| calls.seen.load(SeqCst) < EACH) {
                park();
                wakes += 1;
                for (calls, thread) in all.iter().zip(&threads) {
                    let made = calls.made.load(SeqCst);
                    calls.seen.store(made, SeqCst);
                    if made % UNTIL_AN_ANSWER == 0 {
                        thread.thread().unpark();
                    }
                }
            }
            assert!(wakes <= all.len() * EACH);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}

#[test]
fn no_unpark_is_lost_between_workers_and_os_threads() {
    util::on_workers(4, || {
        let pairs: Vec<_> = (0..50)
            .map(|n| thread::spawn(move || ping_pong(2_000, n % 10 == 0)))
            .collect();
        for pair in pairs {
            pair.join().unwrap();
        }
    });
}

/// Unparks race with deadlines. In each round either the token is taken or the deadline passes. A token
/// that came too late is there for the next park.
#[test]
fn an_unpark_that_races_with_a_deadline_is_taken_once() {
    util::on_workers(4, || {
        let pairs: Vec<_> = (0..20)
            .map(|_| {
                thread::spawn(|| {
                    let own = Unparker::current();
                    for round in 0..200 {
                        let own = own.clone();
                        let waker = thread::spawn(move || {
                            thread::sleep(Duration::from_micros(round % 7 * 300));
                            own.unpark();
                        });
                        let before = park_timeout(MILLI);
                        waker.join().unwrap();
                        let after = park_timeout(Duration::ZERO);
                        assert!(before != after, "one token, but {before} and {after}");
                    }
                })
            })
            .collect();
        for pair in pairs {
            pair.join().unwrap();
        }
    });
}

#[test]
fn unparks_do_not_end_sleeps_reads_and_joins() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let waits = thread::spawn(move || {
                // A park that timed out must not leave a waker behind either.
                park_timeout(MILLI);
                for _ in 0..5 {
                    let start = Instant::now();
                    thread::sleep(30 * MILLI);
                    assert!(start.elapsed() >= 30 * MILLI);
                    let joined = thread::spawn(|| {
                        thread::sleep(10 * MILLI);
                        17
                    });
                    assert_eq!(joined.join().unwrap(), 17);
                    far.read_exact(&mut [0]).unwrap();
                }
            });
            let nuisances = [(); 2].map(|()| {
                let (target, over) = (waits.thread().clone(), Arc::clone(&over));
                std::thread::spawn(move || {
                    while !over.load(SeqCst) {
                        target.unpark();
                        std::thread::sleep(Duration::from_micros(100));
                    }
                })
            });
            for _ in 0..5 {
                thread::sleep(40 * MILLI);
                near.write_all(&[1]).unwrap();
            }
            waits.join().unwrap();
            over.store(true, SeqCst);
            for nuisance in nuisances {
                nuisance.join().unwrap();
            }
        });
    }
}

#[test]
fn a_park_that_timed_out_does_not_end_the_next_wait() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let sleepers: Vec<_> = (0..50)
                .map(|n| {
                    thread::spawn(move || {
                        for _ in 0..10 {
                            let own = Unparker::current();
                            thread::spawn(move || own.unpark());
                            // Ended early, so that the deadline falls into the sleep.
                            park_timeout(Duration::from_micros(500 + 100 * n));
                            let start = Instant::now();
                            thread::sleep(10 * MILLI);
                            assert!(start.elapsed() >= 10 * MILLI);
                        }
                    })
                })
                .collect();
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
        });
    }
}

#[test]
fn a_task_that_never_parks_keeps_its_token_to_the_end() {
    util::everywhere(|| {
        let busy = thread::spawn(|| {
            for _ in 0..100 {
                yield_now();
            }
            park_timeout(LONG)
        });
        busy.thread().unpark();
        assert!(busy.join().unwrap());
    });
}

#[test]
fn a_token_survives_scopes_and_calls_of_the_pool() {
    util::everywhere(|| {
        Unparker::current().unpark();
        thread::scope(|s| {
            s.spawn(|| thread::sleep(MILLI));
        });
        greenroom::unblock(|| std::thread::sleep(MILLI));
        assert!(park_timeout(Duration::ZERO));
    });
}
