//! What a reader-writer lock promises.

use super::{std, util};
use ::std::cell::Cell;
use ::std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};
use util::{Finally, everywhere};

const MILLI: Duration = Duration::from_millis(1);

/// Panics with the lock held as its writer. The panic hook does not run.
fn poison<T: ?Sized>(lock: &RwLock<T>) {
    catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.write().unwrap();
        resume_unwind(Box::new(()));
    }))
    .map(|(): ()| ())
    .unwrap_err();
}

fn would_block<T>(result: Result<T, TryLockError<T>>) -> bool {
    matches!(result, Err(TryLockError::WouldBlock))
}

#[test]
fn readers_share_it_and_a_writer_has_it_alone() {
    everywhere(|| {
        let lock = RwLock::new(1);
        let first = lock.read().unwrap();
        let second = lock.read().unwrap();
        thread::scope(|s| {
            let other = s.spawn(|| *lock.read().unwrap() + *lock.try_read().unwrap());
            assert_eq!(other.join().unwrap(), 2);
        });
        assert!(would_block(lock.try_write()));
        drop(first);
        assert!(would_block(lock.try_write()));
        drop(second);
        let mut writer = lock.try_write().unwrap();
        *writer = 2;
        assert!(would_block(lock.try_write()));
        assert!(would_block(lock.try_read()));
        drop(writer);
        assert_eq!(*lock.try_read().unwrap(), 2);
    });
}

#[test]
fn no_reader_sees_what_a_writer_has_half_done() {
    everywhere(|| {
        let lock = Arc::new(RwLock::new((0_u32, 0_u32)));
        let users: Vec<_> = (0..10)
            .map(|n| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    for round in 0..100 {
                        if (n + round) % 4 == 0 {
                            let mut pair = lock.write().unwrap();
                            pair.0 += 1;
                            if round % 10 == 0 {
                                thread::yield_now();
                            }
                            pair.1 += 1;
                        } else {
                            let pair = lock.read().unwrap();
                            assert_eq!(pair.0, pair.1);
                            if round % 10 == 0 {
                                thread::yield_now();
                            }
                            assert_eq!(pair.0, pair.1);
                        }
                    }
                })
            })
            .collect();
        for user in users {
            user.join().unwrap();
        }
        assert_eq!(*lock.read().unwrap(), (250, 250));
    });
}

/// At each moment, one task reads and another is about to.
#[test]
fn readers_do_not_starve_a_writer() {
    everywhere(|| {
        let lock = Arc::new(RwLock::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (lock, over) = (Arc::clone(&lock), Arc::clone(&over));
                thread::spawn(move || {
                    while !over.load(SeqCst) {
                        let guard = lock.read().unwrap();
                        thread::sleep(MILLI);
                        drop(guard);
                    }
                })
            })
            .collect();
        thread::sleep(5 * MILLI);
        for n in 1..=5 {
            let mut guard = lock.write().unwrap();
            *guard += 1;
            assert_eq!(*guard, n);
        }
        over.store(true, SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn the_panic_of_a_writer_poisons_it() {
    everywhere(|| {
        let mut lock = RwLock::new(1);
        thread::scope(|s| {
            let writer = s.spawn(|| {
                *lock.write().unwrap() = 2;
                let _guard = lock.write().unwrap();
                resume_unwind(Box::new(()));
            });
            writer.join().unwrap_err();
        });
        assert!(lock.is_poisoned());
        assert_eq!(**lock.read().unwrap_err().get_ref(), 2);
        assert_eq!(**lock.write().unwrap_err().get_ref(), 2);
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        assert_eq!(*lock.get_mut().unwrap_err().into_inner(), 2);
        lock.clear_poison();
        assert!(!lock.is_poisoned());
        assert_eq!(*lock.read().unwrap(), 2);
        poison(&lock);
        assert_eq!(lock.into_inner().unwrap_err().into_inner(), 2);
    });
}

#[test]
fn the_panic_of_a_reader_does_not_poison_it() {
    everywhere(|| {
        let lock = RwLock::new(1);
        let reads = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.read().unwrap();
            resume_unwind(Box::new(()));
        }));
        reads.map(|(): ()| ()).unwrap_err();
        // A panic of a reader that was the writer does not poison either.
        let downgrades = catch_unwind(AssertUnwindSafe(|| {
            let _guard = RwLockWriteGuard::downgrade(lock.write().unwrap());
            resume_unwind(Box::new(()));
        }));
        downgrades.map(|(): ()| ()).unwrap_err();
        assert!(!lock.is_poisoned());
        assert_eq!(*lock.write().unwrap(), 1);
    });
}

#[test]
fn a_writer_that_begins_amid_a_panic_does_not_poison() {
    everywhere(|| {
        let lock = Arc::new(RwLock::new(1));
        let own = Arc::clone(&lock);
        let panics = thread::spawn(move || {
            let _adds = Finally(|| *own.write().unwrap() += 1);
            resume_unwind(Box::new(()));
        });
        panics.join().unwrap_err();
        assert_eq!(*lock.read().unwrap(), 2);
    });
}

#[test]
fn a_writer_becomes_a_reader_and_lets_other_tasks_read() {
    everywhere(|| {
        let lock = Arc::new(RwLock::new(1));
        let mut writer = lock.write().unwrap();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || *lock.read().unwrap())
            })
            .collect();
        thread::sleep(10 * MILLI);
        *writer = 2;
        let reader = RwLockWriteGuard::downgrade(writer);
        assert_eq!(*reader, 2);
        // The other tasks read while this one does.
        for other in readers {
            assert_eq!(other.join().unwrap(), 2);
        }
        assert!(would_block(lock.try_write()));
        assert_eq!(*lock.try_read().unwrap(), 2);
        drop(reader);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn no_writer_comes_between_a_write_and_its_downgrade() {
    everywhere(|| {
        const WRITERS: i32 = 10;
        let lock = Arc::new(RwLock::new(0));
        let mut first = lock.write().unwrap();
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    for _ in 0..20 {
                        let mut writer = lock.write().unwrap();
                        *writer += 1;
                        let value = *writer;
                        let reader = RwLockWriteGuard::downgrade(writer);
                        thread::yield_now();
                        assert_eq!(*reader, value);
                    }
                })
            })
            .collect();
        thread::sleep(10 * MILLI);
        *first = -1;
        let reader = RwLockWriteGuard::downgrade(first);
        thread::sleep(5 * MILLI);
        assert_eq!(*reader, -1);
        drop(reader);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(*lock.read().unwrap(), WRITERS * 20 - 1);
    });
}

#[test]
fn its_value_is_dropped_once() {
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        let lock = RwLock::new(Finally(|| {
            drops.fetch_add(1, SeqCst);
        }));
        drop(lock.read().unwrap());
        drop(lock.write().unwrap());
        let value = lock.into_inner().unwrap();
        assert_eq!(drops.load(SeqCst), 0);
        drop(value);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn it_may_guard_what_has_no_size() {
    everywhere(|| {
        let sized = RwLock::new([1, 2, 3]);
        let lock: &RwLock<[i32]> = &sized;
        lock.write().unwrap()[0] = 4;
        assert_eq!(*lock.read().unwrap(), [4, 2, 3]);
    });
}

#[test]
fn it_can_be_made_in_a_static_and_from_its_value() {
    static LOCK: RwLock<u64> = RwLock::new(1);
    everywhere(|| {
        *LOCK.write().unwrap() += 1;
        assert!(*LOCK.read().unwrap() > 1);
        assert_eq!(*RwLock::<u8>::default().read().unwrap(), 0);
        assert_eq!(*RwLock::from("value").read().unwrap(), "value");
    });
}

#[test]
fn it_shows_its_value_unless_a_writer_has_it() {
    everywhere(|| {
        let lock = RwLock::new(5);
        let reader = lock.read().unwrap();
        assert_eq!(
            format!("{lock:?}"),
            "RwLock { data: 5, poisoned: false, .. }"
        );
        assert_eq!(format!("{reader:?} {reader:02}"), "5 05");
        drop(reader);
        let writer = lock.write().unwrap();
        assert_eq!(
            format!("{lock:?}"),
            "RwLock { data: <locked>, poisoned: false, .. }"
        );
        assert_eq!(format!("{writer:?} {writer:02}"), "5 05");
        drop(writer);
        poison(&lock);
        assert_eq!(
            format!("{lock:?}"),
            "RwLock { data: 5, poisoned: true, .. }"
        );
    });
}

/// A guard of a long-lived value can be used as a guard of a shorter-lived one.
#[test]
fn a_read_guard_is_covariant() {
    fn shortest<'a>(_: RwLockReadGuard<'_, &'a i32>, _: &'a i32) {}
    everywhere(|| {
        let long = 1;
        let lock = RwLock::new(&long);
        let short = 2;
        shortest(lock.read().unwrap(), &short);
        assert_eq!(**lock.read().unwrap(), 1);
    });
}

#[test]
fn its_auto_traits() {
    fn shared<T: Send + Sync>() {}
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}
    shared::<RwLock<u8>>();
    send::<RwLock<Cell<u8>>>();
    unwinds::<RwLock<Cell<u8>>>();
    sync::<RwLockReadGuard<'_, u8>>();
    sync::<RwLockWriteGuard<'_, u8>>();
    unwinds::<RwLockReadGuard<'_, u8>>();
    unwinds::<RwLockWriteGuard<'_, u8>>();
}

/// (Two read locks of one lock can deadlock, if a writer comes in between.)
#[test]
fn readers_of_different_locks_do_not_wait_for_each_other() {
    everywhere(|| {
        let start = Instant::now();
        let locks: Arc<[RwLock<usize>; 4]> = Arc::new([0, 1, 2, 3].map(RwLock::new));
        let _writer = locks[0].write().unwrap();
        thread::scope(|s| {
            for lock in &locks[1..] {
                s.spawn(|| drop(lock.write().unwrap()));
                s.spawn(|| drop(lock.read().unwrap()));
            }
        });
        assert!(start.elapsed() < Duration::from_secs(50));
    });
}
