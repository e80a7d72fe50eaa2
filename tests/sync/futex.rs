//! Waits at an address: first come, first woken, coroutines and OS threads alike.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use greenroom::sync::futex::{self, Waited};
use greenroom::{Unparker, park, spawn, unblock, yield_now};
use serial_test::{parallel, serial};

use crate::util;

const MILLI: Duration = Duration::from_millis(1);

/// Returns when so many coroutines wait. A test that calls this is serial, so none of them is another test's.
fn until_waiting(count: impl Fn() -> usize) {
    util::until("they wait", || {
        let count = count();
        let reasons = greenroom::parked_by_reason().unwrap();
        reasons.contains(&("futex", count))
    });
}

/// Has a coroutine wait at `word`, beside `others`. Returns when it waits.
fn wait_at(
    word: &Arc<AtomicU32>,
    log: &Arc<Mutex<Vec<usize>>>,
    me: usize,
    others: impl Fn() -> usize,
) -> thread::JoinHandle<()> {
    let (word, log) = (Arc::clone(word), Arc::clone(log));
    let handle = spawn(move || {
        assert_eq!(futex::wait(&word, 0, None), Waited::Woken);
        log.lock().unwrap().push(me);
    });
    until_waiting(|| others() + 1);
    handle
}

#[test]
#[parallel]
fn a_wait_for_a_word_that_has_changed_returns_at_once() {
    util::everywhere(|| {
        let word = AtomicU32::new(1);
        assert_eq!(futex::wait(&word, 0, None), Waited::Changed);
        let long = Instant::now() + Duration::from_secs(1_000);
        assert_eq!(futex::wait(&word, 2, Some(long)), Waited::Changed);
        assert_eq!(futex::wake(&word, usize::MAX), 0);
    });
}

#[test]
#[parallel]
fn a_wait_times_out_at_its_deadline_and_leaves_nothing_behind() {
    util::everywhere(|| {
        let word = AtomicU32::new(0);
        for wait in [Duration::ZERO, MILLI, 20 * MILLI] {
            let deadline = Instant::now() + wait;
            assert_eq!(futex::wait(&word, 0, Some(deadline)), Waited::TimedOut);
            assert!(Instant::now() >= deadline);
        }
        assert_eq!(futex::wake(&word, 1), 0);
    });
}

#[test]
#[serial] // the end of another test's runtime may wake waiters
fn waiters_are_woken_in_the_order_in_which_they_came() {
    util::everywhere(|| {
        let word = Arc::new(AtomicU32::new(0));
        let log = Arc::default();
        let waiters: Vec<_> = (0..6).map(|n| wait_at(&word, &log, n, || n)).collect();
        for woken in 1..=3 {
            assert_eq!(futex::wake(&word, 1), 1);
            while log.lock().unwrap().len() < woken {
                thread::sleep(MILLI);
            }
        }
        assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
        assert_eq!(futex::wake(&word, 2), 2);
        while log.lock().unwrap().len() < 5 {
            thread::sleep(MILLI);
        }
        assert_eq!(futex::wake(&word, usize::MAX), 1);
        assert_eq!(futex::wake(&word, usize::MAX), 0);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let mut log = log.lock().unwrap();
        log.sort_unstable();
        assert_eq!(*log, [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
#[serial] // the end of another test's runtime may wake waiters
fn a_waiter_that_has_timed_out_is_passed_over() {
    util::everywhere(|| {
        let word = Arc::new(AtomicU32::new(0));
        let log = Arc::default();
        for position in 0..3 {
            let before: Vec<_> = (0..position)
                .map(|n| wait_at(&word, &log, n, || n))
                .collect();
            let impatient = spawn({
                let word = Arc::clone(&word);
                move || {
                    let deadline = Instant::now() + 400 * MILLI;
                    assert_eq!(futex::wait(&word, 0, Some(deadline)), Waited::TimedOut);
                }
            });
            // The impatient one, until its time is over.
            let is_there = || usize::from(!impatient.is_finished());
            until_waiting(|| position + is_there());
            let after: Vec<_> = (position..4)
                .map(|n| wait_at(&word, &log, n, || n + is_there()))
                .collect();
            impatient.join().unwrap();
            assert_eq!(futex::wake(&word, usize::MAX), 4);
            for waiter in before.into_iter().chain(after) {
                waiter.join().unwrap();
            }
        }
    });
}

#[test]
#[serial] // the end of another test's runtime may wake waiters
fn addresses_are_told_apart() {
    const WORDS: usize = 5_000;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let words: Arc<[AtomicU32]> = (0..WORDS).map(|_| AtomicU32::new(0)).collect();
            let woken: Arc<[AtomicUsize]> = (0..WORDS).map(|_| AtomicUsize::new(0)).collect();
            let waiters: Vec<_> = (0..2 * WORDS)
                .map(|n| {
                    let (words, woken) = (Arc::clone(&words), Arc::clone(&woken));
                    spawn(move || {
                        let n = n % WORDS;
                        assert_eq!(futex::wait(&words[n], 0, None), Waited::Woken);
                        woken[n].fetch_add(1, SeqCst);
                    })
                })
                .collect();
            until_waiting(|| 2 * WORDS);
            // Not in the order of the addresses, and first one half of the waiters at each.
            for round in 1..=2 {
                for n in 0..WORDS {
                    let n = n * 1_777 % WORDS;
                    assert_eq!(futex::wake(&words[n], 1), 1, "{n}");
                }
                while woken.iter().any(|woken| woken.load(SeqCst) < round) {
                    thread::sleep(MILLI);
                }
            }
            assert!(words.iter().all(|word| futex::wake(word, 1) == 0));
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}

/// A chain: each task wakes the next, of whatever kind.
#[test]
#[parallel]
fn coroutines_and_os_threads_and_threads_of_the_pool_wake_each_other() {
    for workers in [1, 2] {
        util::on_workers(workers, || {
            const LINKS: u32 = 30;
            let turn = Arc::new(AtomicU32::new(0));
            let pass = |me: u32| {
                let turn = Arc::clone(&turn);
                move || {
                    loop {
                        let now = turn.load(SeqCst);
                        if now == me {
                            break;
                        }
                        futex::wait(&turn, now, None);
                    }
                    turn.fetch_add(1, SeqCst);
                    futex::wake(&turn, usize::MAX);
                }
            };
            let mut coroutines = Vec::new();
            let mut threads = Vec::new();
            for me in (0..LINKS).rev() {
                let pass = pass(me);
                match me % 3 {
                    0 => coroutines.push(spawn(pass)),
                    1 => threads.push(std::thread::spawn(pass)),
                    _ => coroutines.push(spawn(move || unblock(pass))),
                }
            }
            for coroutine in coroutines {
                coroutine.join().unwrap();
            }
            for thread in threads {
                unblock(move || thread.join().unwrap());
            }
            assert_eq!(turn.load(SeqCst), LINKS);
        });
    }
}

#[test]
#[parallel]
fn a_wait_leaves_the_park_token_alone() {
    util::everywhere(|| {
        let word = Arc::new(AtomicU32::new(0));
        Unparker::current().unpark();
        let waker = spawn({
            let (word, waiter) = (Arc::clone(&word), Unparker::current());
            move || {
                waiter.unpark();
                while futex::wake(&word, 1) == 0 {
                    yield_now();
                }
            }
        });
        assert_eq!(futex::wait(&word, 0, None), Waited::Woken);
        park();
        waker.join().unwrap();
    });
}

/// Timeouts, wake-ups and new waiters at a few words, from many tasks. All of them come to their end.
#[test]
#[serial]
fn no_wake_up_is_lost_among_many_that_time_out() {
    const WAITERS: usize = 40;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let words: Arc<[AtomicU32]> = (0..3).map(|_| AtomicU32::new(0)).collect();
            let tickets = Arc::new(AtomicUsize::new(0));
            let over = Arc::new(AtomicBool::new(false));
            let work = |me: usize| {
                let (words, tickets) = (Arc::clone(&words), Arc::clone(&tickets));
                let over = Arc::clone(&over);
                move || {
                    let mut woken = 0;
                    for round in 0.. {
                        let word = &words[(me + round) % 3];
                        let patience = Duration::from_micros((me * 7 + round * 13) as u64 % 300);
                        if over.load(SeqCst) {
                            break;
                        }
                        let outcome = futex::wait(word, 0, Some(Instant::now() + patience));
                        woken += usize::from(outcome == Waited::Woken);
                        // The other tasks have woken as many as were woken.
                        tickets.fetch_add(futex::wake(&words[(me + round * 5) % 3], 1), SeqCst);
                    }
                    woken
                }
            };
            let coroutines: Vec<_> = (0..WAITERS).map(|me| spawn(work(me))).collect();
            let threads: Vec<_> = (0..2)
                .map(|me| std::thread::spawn(work(WAITERS + me)))
                .collect();
            thread::sleep(Duration::from_millis(300));
            over.store(true, SeqCst);
            let mut woken: usize = coroutines.into_iter().map(|one| one.join().unwrap()).sum();
            for thread in threads {
                woken += unblock(move || thread.join().unwrap());
            }
            assert_eq!(woken, tickets.load(SeqCst));
            assert!(woken > 0);
        });
    }
}

#[test]
#[parallel]
fn the_end_of_a_runtime_neither_unwinds_nor_ends_a_futex_wait() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static WENT_ON: AtomicUsize = AtomicUsize::new(0);
    struct GoesOn;
    impl Drop for GoesOn {
        fn drop(&mut self) {
            WENT_ON.fetch_add(1, SeqCst);
        }
    }
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            futex::wait(&WORD, 0, None);
        }
    }
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for _ in 0..10 {
                spawn(|| {
                    let _goes_on = GoesOn;
                    futex::wait(&WORD, 0, None);
                });
                spawn(|| {
                    let _goes_on = GoesOn;
                    let _waits = Waits;
                    thread::sleep(Duration::from_secs(1_000));
                });
            }
            thread::sleep(20 * MILLI);
        });
        assert_eq!(futex::wake(&WORD, usize::MAX), 0, "they are passed over");
        assert_eq!(WENT_ON.load(SeqCst), 0);
    }
}

/// A waiter that unwinds keeps its worker, so waiters of that worker that came before could not run.
#[test]
#[serial] // the end of another test's runtime may wake waiters
fn a_waiter_that_unwinds_is_woken_before_others_of_its_worker() {
    util::on_workers(1, || {
        struct Waits(Arc<AtomicU32>);
        impl Drop for Waits {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                assert_eq!(futex::wait(&self.0, 0, None), Waited::Woken);
            }
        }
        let word = Arc::new(AtomicU32::new(0));
        let log = Arc::default();
        let first = wait_at(&word, &log, 0, || 0);
        let waker = std::thread::spawn({
            let word = Arc::clone(&word);
            move || {
                // Both wait by then.
                std::thread::sleep(50 * MILLI);
                assert_eq!(futex::wake(&word, 1), 1);
                std::thread::sleep(50 * MILLI);
                // Again, if on a busy machine only the first one waited by then.
                util::until("one is woken", || futex::wake(&word, 1) == 1);
            }
        });
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _waits = Waits(Arc::clone(&word));
            std::panic::resume_unwind(Box::new(()));
        }));
        unwound.map(|(): ()| ()).unwrap_err();
        assert!(log.lock().unwrap().is_empty());
        first.join().unwrap();
        unblock(move || waker.join().unwrap());
    });
}
