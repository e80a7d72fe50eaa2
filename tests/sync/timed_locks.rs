//! Locks with timeouts: `shims::sync::{MutexExt, RwLockExt}`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::TryLockError;
use std::time::{Duration, Instant};

use greenroom::shims::sync::{Mutex, MutexExt, RwLock, RwLockExt};
use greenroom::{spawn, yield_now};

use crate::util::{self, everywhere, ms};

const LONG: Duration = Duration::from_secs(100);

macro_rules! assert_would_block {
    ($locked:expr) => {
        assert!(matches!($locked, Err(TryLockError::WouldBlock)))
    };
}

#[test]
fn a_lock_that_is_held_too_long_is_not_waited_for() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(0));
        let rwlock = Arc::new(RwLock::new(0));
        let (held, written) = (mutex.lock().unwrap(), rwlock.write().unwrap());
        let tries = {
            let (mutex, rwlock) = (Arc::clone(&mutex), Arc::clone(&rwlock));
            spawn(move || {
                assert_would_block!(mutex.try_lock_for(ms(2)));
                assert_would_block!(mutex.try_lock_until(Instant::now()));
                assert_would_block!(rwlock.try_read_for(ms(2)));
                assert_would_block!(rwlock.try_read_until(Instant::now()));
                assert_would_block!(rwlock.try_write_for(ms(2)));
                assert_would_block!(rwlock.try_write_until(Instant::now()));
            })
        };
        tries.join().unwrap();
        drop((held, written));
        // They have left nothing: all others lock and unlock as ever.
        *mutex.lock().unwrap() += 1;
        assert_eq!(*mutex.try_lock_for(Duration::ZERO).unwrap(), 1);
        *rwlock.try_write_for(Duration::ZERO).unwrap() += 1;
        assert_eq!(*rwlock.try_read_for(Duration::ZERO).unwrap(), 1);
    });
}

#[test]
fn a_lock_that_becomes_free_in_time_is_taken() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(0));
        let held = mutex.lock().unwrap();
        let waits = {
            let mutex = Arc::clone(&mutex);
            spawn(move || *mutex.try_lock_for(LONG).unwrap() += 1)
        };
        util::settle();
        drop(held);
        waits.join().unwrap();
        assert_eq!(*mutex.try_lock_until(Instant::now() + LONG).unwrap(), 1);
    });
}

#[test]
fn a_poisoned_lock_says_so() {
    let mutex = Mutex::new(1);
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _held = mutex.lock();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panics.is_err());
    match mutex.try_lock_for(ms(1)) {
        Err(TryLockError::Poisoned(poisoned)) => assert_eq!(**poisoned.get_ref(), 1),
        _ => panic!("not poisoned"),
    }
}

#[test]
fn readers_go_on_when_the_writer_that_they_waited_behind_gives_up() {
    everywhere(|| {
        let lock = Arc::new(RwLock::new(7));
        let reads = lock.read().unwrap();
        let writer = {
            let lock = Arc::clone(&lock);
            spawn(move || lock.try_write_for(ms(100)).is_err())
        };
        util::settle();
        // Waits behind the writer, not for the first reader, which keeps the lock.
        let reader = {
            let lock = Arc::clone(&lock);
            spawn(move || *lock.read().unwrap())
        };
        assert!(writer.join().unwrap());
        assert_eq!(reader.join().unwrap(), 7);
        assert!(lock.try_read().is_ok(), "new readers join again");
        drop(reads);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn locks_with_and_without_deadlines_exclude_each_other_and_lose_no_waiter() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (mutex, rwlock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
            let adds = |n: usize| {
                let (mutex, rwlock) = (Arc::clone(&mutex), Arc::clone(&rwlock));
                move || {
                    let (mut to_mutex, mut to_rwlock) = (0, 0);
                    for round in 0..300 {
                        let timeout = Duration::from_micros(((n + round) % 30) as u64);
                        let patient = (n + round).is_multiple_of(3);
                        let held = match patient {
                            true => mutex.lock().ok(),
                            false => mutex.try_lock_for(timeout).ok(),
                        };
                        if let Some(mut held) = held {
                            let before = *held;
                            yield_now();
                            *held = before + 1;
                            to_mutex += 1;
                        }
                        if round % 4 != 0 {
                            drop(rwlock.try_read_for(timeout));
                            continue;
                        }
                        let written = match patient {
                            true => rwlock.write().ok(),
                            false => rwlock.try_write_for(timeout).ok(),
                        };
                        if let Some(mut written) = written {
                            let before = *written;
                            yield_now();
                            *written = before + 1;
                            to_rwlock += 1;
                        }
                    }
                    (to_mutex, to_rwlock)
                }
            };
            let coroutines = [0, 1, 2, 3].map(|n| spawn(adds(n)));
            let threads = [4, 5].map(|n| std::thread::spawn(adds(n)));
            let mut sums = (0, 0);
            let counts = coroutines.into_iter().map(|one| one.join().unwrap());
            let counts = counts.collect::<Vec<_>>();
            let of_threads = threads.into_iter().map(|one| one.join().unwrap());
            for (to_mutex, to_rwlock) in counts.into_iter().chain(of_threads) {
                sums = (sums.0 + to_mutex, sums.1 + to_rwlock);
            }
            assert_eq!((*mutex.lock().unwrap(), *rwlock.read().unwrap()), sums);
        });
    }
}
