//! What a condition variable promises.

use super::{std, util};
use ::std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use util::everywhere;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

/// A value, and the condition variable to wait with for changes of the value.
type Shared<T> = Arc<(Mutex<T>, Condvar)>;

fn shared<T>(value: T) -> Shared<T> {
    Arc::new((Mutex::new(value), Condvar::new()))
}

#[test]
fn a_notification_without_a_waiter_is_lost() {
    everywhere(|| {
        let (mutex, condvar) = &*shared(());
        condvar.notify_one();
        condvar.notify_all();
        let guard = mutex.lock().unwrap();
        let result = condvar.wait_timeout_while(guard, 5 * MILLI, |()| true);
        assert!(result.unwrap().1.timed_out());
    });
}

#[test]
fn a_wait_gives_the_mutex_back_and_takes_it_again() {
    everywhere(|| {
        let both = shared(false);
        let guard = both.0.lock().unwrap();
        let notifier = thread::spawn({
            let both = Arc::clone(&both);
            move || {
                // The lock is free only once the other task waits.
                *both.0.lock().unwrap() = true;
                both.1.notify_one();
            }
        });
        let guard = both.1.wait_while(guard, |set| !*set).unwrap();
        assert!(*guard);
        assert!(both.0.try_lock().is_err());
        drop(guard);
        notifier.join().unwrap();
    });
}

#[test]
fn notify_all_wakes_all_that_wait() {
    everywhere(|| {
        const WAITERS: usize = 10;
        let both = shared(0);
        let waiters: Vec<_> = (0..WAITERS)
            .map(|_| {
                let both = Arc::clone(&both);
                thread::spawn(move || {
                    let mut count = both.0.lock().unwrap();
                    *count += 1;
                    while *count < WAITERS + 1 {
                        count = both.1.wait(count).unwrap();
                    }
                })
            })
            .collect();
        while *both.0.lock().unwrap() < WAITERS {
            thread::sleep(MILLI);
        }
        *both.0.lock().unwrap() += 1;
        both.1.notify_all();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// Each notification lets one of the waiters take an item.
#[test]
fn notify_one_wakes_at_least_one_for_each_call() {
    everywhere(|| {
        let both = shared(0);
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let both = Arc::clone(&both);
                thread::spawn(move || {
                    for _ in 0..20 {
                        let guard = both.0.lock().unwrap();
                        let mut left = both.1.wait_while(guard, |left| *left == 0).unwrap();
                        *left -= 1;
                    }
                })
            })
            .collect();
        for n in 0..8 * 20 {
            let mut left = both.0.lock().unwrap();
            *left += 1;
            if n % 2 == 0 {
                // Notifies with and without the mutex held.
                drop(left);
            }
            both.1.notify_one();
            if n % 7 == 0 {
                thread::yield_now();
            }
        }
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(*both.0.lock().unwrap(), 0);
    });
}

#[test]
fn two_take_turns() {
    everywhere(|| {
        let both = shared(0);
        let play = |me: usize| {
            let both = Arc::clone(&both);
            move || {
                for round in 0..100 {
                    let guard = both.0.lock().unwrap();
                    let turn = both.1.wait_while(guard, |turn| *turn % 2 != me);
                    let mut turn = turn.unwrap();
                    assert_eq!(*turn, 2 * round + me);
                    *turn += 1;
                    both.1.notify_one();
                }
            }
        };
        let other = thread::spawn(play(1));
        play(0)();
        other.join().unwrap();
    });
}

#[test]
fn a_wait_times_out_with_the_mutex_locked() {
    everywhere(|| {
        let (mutex, condvar) = &*shared(1);
        for wait in [Duration::ZERO, MILLI, 20 * MILLI] {
            let start = Instant::now();
            loop {
                let guard = mutex.lock().unwrap();
                let (guard, result) = condvar.wait_timeout(guard, wait).unwrap();
                assert_eq!(*guard, 1);
                assert!(mutex.try_lock().is_err());
                // std's wait may end spuriously.
                if result.timed_out() {
                    break;
                }
            }
            assert!(start.elapsed() >= wait);
        }
        #[allow(deprecated)]
        let (guard, notified) = condvar.wait_timeout_ms(mutex.lock().unwrap(), 1).unwrap();
        assert!(!notified || *guard == 1);
    });
}

#[test]
fn a_wait_for_a_condition_that_holds_does_not_wait() {
    everywhere(|| {
        let (mutex, condvar) = &*shared(());
        let guard = condvar
            .wait_while(mutex.lock().unwrap(), |()| false)
            .unwrap();
        let result = condvar.wait_timeout_while(guard, Duration::ZERO, |()| false);
        assert!(!result.unwrap().1.timed_out());
    });
}

#[test]
fn a_condition_that_does_not_come_true_times_out() {
    everywhere(|| {
        let both = shared(0);
        let notifier = thread::spawn({
            let both = Arc::clone(&both);
            move || {
                for _ in 0..5 {
                    thread::sleep(MILLI);
                    *both.0.lock().unwrap() += 1;
                    both.1.notify_all();
                }
            }
        });
        let start = Instant::now();
        let guard = both.0.lock().unwrap();
        let waited = both
            .1
            .wait_timeout_while(guard, 30 * MILLI, |count| *count < 6);
        let (guard, result) = waited.unwrap();
        assert!(result.timed_out());
        assert!(start.elapsed() >= 30 * MILLI);
        drop(guard);
        notifier.join().unwrap();
    });
}

#[test]
fn a_timeout_may_be_as_long_as_it_can_be() {
    everywhere(|| {
        for timeout in [LONG, Duration::from_millis(u64::MAX), Duration::MAX] {
            let both = shared(false);
            let guard = both.0.lock().unwrap();
            let notifier = thread::spawn({
                let both = Arc::clone(&both);
                move || {
                    let mut set = both.0.lock().unwrap();
                    thread::sleep(MILLI);
                    *set = true;
                    both.1.notify_one();
                }
            });
            let waited = both.1.wait_timeout_while(guard, timeout, |set| !*set);
            let (guard, result) = waited.unwrap();
            assert!(*guard && !result.timed_out());
            drop(guard);
            notifier.join().unwrap();
        }
    });
}

#[test]
fn a_wait_finds_the_mutex_poisoned_meanwhile() {
    everywhere(|| {
        let both = shared(false);
        for timeout in [None, Some(LONG)] {
            both.0.clear_poison();
            let guard = both.0.lock().unwrap();
            let notifier = thread::spawn({
                let both = Arc::clone(&both);
                move || {
                    let mut guard = both.0.lock().unwrap();
                    *guard = true;
                    both.1.notify_all();
                    resume_unwind(Box::new(()));
                }
            });
            let guard = match timeout {
                None => both
                    .1
                    .wait_while(guard, |set| !*set)
                    .unwrap_err()
                    .into_inner(),
                Some(timeout) => {
                    let waited = both.1.wait_timeout_while(guard, timeout, |set| !*set);
                    let (guard, result) = waited.unwrap_err().into_inner();
                    assert!(!result.timed_out());
                    guard
                }
            };
            assert!(*guard);
            drop(guard);
            notifier.join().unwrap_err();
            *both.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
    });
}

#[test]
fn it_can_be_made_in_a_static() {
    static MUTEX: Mutex<u32> = Mutex::new(0);
    static CONDVAR: Condvar = Condvar::new();
    everywhere(|| {
        *MUTEX.lock().unwrap() = 0;
        let other = thread::spawn(|| {
            *MUTEX.lock().unwrap() += 1;
            CONDVAR.notify_all();
        });
        drop(
            CONDVAR
                .wait_while(MUTEX.lock().unwrap(), |n| *n == 0)
                .unwrap(),
        );
        other.join().unwrap();
    });
}

#[test]
fn how_it_and_the_result_of_a_wait_look() {
    fn traits<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    traits::<Condvar>();
    everywhere(|| {
        assert_eq!(format!("{:?}", Condvar::default()), "Condvar { .. }");
        let (mutex, condvar) = &*shared(());
        let guard = mutex.lock().unwrap();
        let waited = condvar.wait_timeout_while(guard, MILLI, |()| true);
        let result = waited.unwrap().1;
        let same = result;
        assert_eq!(same, result);
        assert_eq!(format!("{result:?}"), "WaitTimeoutResult(true)");
    });
}
