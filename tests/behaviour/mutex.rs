//! What a mutex promises.

use super::{std, util};
use ::std::cell::Cell;
use ::std::fmt::{Debug, Display};
use ::std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;
use util::{Finally, everywhere};

const MILLI: Duration = Duration::from_millis(1);

/// Panics with the mutex locked. The panic hook does not run.
fn poison<T: ?Sized>(mutex: &Mutex<T>) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _guard = mutex.lock().unwrap();
        resume_unwind(Box::new("poison"));
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"poison"));
}

fn poisoned<T>(value: T) -> Mutex<T> {
    let mutex = Mutex::new(value);
    poison(&mutex);
    mutex
}

#[test]
fn one_at_a_time_has_it() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(0));
        let inside = Arc::new(AtomicBool::new(false));
        let adders: Vec<_> = (0..6)
            .map(|_| {
                let (mutex, inside) = (Arc::clone(&mutex), Arc::clone(&inside));
                thread::spawn(move || {
                    for round in 0..200 {
                        let mut guard = mutex.lock().unwrap();
                        assert!(!inside.swap(true, SeqCst));
                        let before = *guard;
                        if round % 20 == 0 {
                            thread::yield_now();
                        }
                        *guard = before + 1;
                        assert!(inside.swap(false, SeqCst));
                    }
                })
            })
            .collect();
        for adder in adders {
            adder.join().unwrap();
        }
        assert_eq!(*mutex.lock().unwrap(), 6 * 200);
    });
}

#[test]
fn other_tasks_wait_while_the_holder_sleeps() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(Vec::new()));
        let mut guard = mutex.lock().unwrap();
        let waiters: Vec<_> = (1..=4)
            .map(|n| {
                let mutex = Arc::clone(&mutex);
                thread::spawn(move || mutex.lock().unwrap().push(n))
            })
            .collect();
        thread::sleep(20 * MILLI);
        guard.push(0);
        drop(guard);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let mut order = Arc::into_inner(mutex).unwrap().into_inner().unwrap();
        assert_eq!(order[0], 0);
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_try_does_not_wait() {
    everywhere(|| {
        let mutex = Mutex::new(5);
        let guard = mutex.try_lock().unwrap();
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        thread::scope(|s| {
            let other = s.spawn(|| mutex.try_lock().is_err());
            assert!(other.join().unwrap());
        });
        drop(guard);
        assert_eq!(*mutex.try_lock().unwrap(), 5);
    });
}

#[test]
fn the_panic_of_its_holder_poisons_it() {
    everywhere(|| {
        let mutex = Mutex::new(1);
        assert!(!mutex.is_poisoned());
        thread::scope(|s| {
            let holder = s.spawn(|| {
                let mut guard = mutex.lock().unwrap();
                *guard = 2;
                resume_unwind(Box::new(()));
            });
            holder.join().unwrap_err();
        });
        assert!(mutex.is_poisoned());
        // The value is still accessible, and the error holds the lock.
        let error = mutex.lock().unwrap_err();
        assert_eq!(**error.get_ref(), 2);
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        let mut guard = error.into_inner();
        *guard = 3;
        drop(guard);
        match mutex.try_lock() {
            Err(TryLockError::Poisoned(error)) => assert_eq!(**error.get_ref(), 3),
            other => panic!("{other:?}"),
        }
        mutex.clear_poison();
        assert!(!mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap(), 3);
    });
}

#[test]
fn a_poisoned_one_can_be_taken_apart() {
    everywhere(|| {
        let mut mutex = poisoned(String::from("left"));
        let error = mutex.get_mut().unwrap_err();
        error.into_inner().push('!');
        let error = mutex.into_inner().unwrap_err();
        assert_eq!(error.into_inner(), "left!");
    });
}

#[test]
fn each_panic_poisons_it_anew() {
    everywhere(|| {
        let mutex = Mutex::new(());
        for _ in 0..3 {
            poison(&mutex);
            assert!(mutex.is_poisoned());
            mutex.clear_poison();
        }
    });
}

#[test]
fn a_lock_that_begins_amid_a_panic_does_not_poison() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(1));
        let own = Arc::clone(&mutex);
        let panics = thread::spawn(move || {
            let _adds = Finally(|| *own.lock().unwrap() += 1);
            resume_unwind(Box::new(()));
        });
        panics.join().unwrap_err();
        assert_eq!(*mutex.lock().unwrap(), 2);
    });
}

#[test]
fn a_panic_that_is_caught_while_it_is_held_does_not_poison() {
    everywhere(|| {
        let mutex = Mutex::new(1);
        let guard = mutex.lock().unwrap();
        catch_unwind(|| resume_unwind(Box::new(())))
            .map(|(): ()| ())
            .unwrap_err();
        drop(guard);
        assert!(!mutex.is_poisoned());
    });
}

/// Also while another task waits for the mutex.
#[test]
fn a_panic_unlocks_the_mutex() {
    everywhere(|| {
        let mutex = Arc::new(Mutex::new(0));
        let has_it = Arc::new(AtomicBool::new(false));
        let panics = thread::spawn({
            let (mutex, has_it) = (Arc::clone(&mutex), Arc::clone(&has_it));
            move || {
                let _guard = mutex.lock().unwrap();
                has_it.store(true, SeqCst);
                thread::sleep(10 * MILLI);
                resume_unwind(Box::new(()));
            }
        });
        while !has_it.load(SeqCst) {
            thread::sleep(MILLI);
        }
        assert!(mutex.lock().is_err());
        panics.join().unwrap_err();
    });
}

#[test]
fn the_value_is_dropped_once_by_its_owner() {
    everywhere(|| {
        let drops = AtomicUsize::new(0);
        let counts = || {
            Finally(|| {
                drops.fetch_add(1, SeqCst);
            })
        };
        let mutex = Mutex::new(counts());
        drop(mutex.lock().unwrap());
        assert_eq!(drops.load(SeqCst), 0);
        let value = mutex.into_inner().unwrap();
        assert_eq!(drops.load(SeqCst), 0);
        drop(value);
        assert_eq!(drops.load(SeqCst), 1);
        drop(Mutex::new(counts()));
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn one_that_is_borrowed_mutably_needs_no_lock() {
    everywhere(|| {
        let mut mutex = Mutex::new(1);
        *mutex.get_mut().unwrap() += 1;
        // `&mut` access works even if a guard was forgotten.
        ::std::mem::forget(mutex.lock().unwrap());
        assert!(mutex.try_lock().is_err());
        *mutex.get_mut().unwrap() += 1;
        assert_eq!(mutex.into_inner().unwrap(), 3);
    });
}

#[test]
fn it_may_guard_what_has_no_size_and_other_mutexes() {
    everywhere(|| {
        let sized = Mutex::new([1, 2, 3]);
        let mutex: &Mutex<[i32]> = &sized;
        mutex.lock().unwrap()[1] = 7;
        assert_eq!(*mutex.lock().unwrap(), [1, 7, 3]);
        let object: Arc<Mutex<dyn Fn() -> i32 + Send>> = Arc::new(Mutex::new(|| 9));
        assert_eq!((object.lock().unwrap())(), 9);

        let inner = Arc::new(Mutex::new(1));
        let outer = Mutex::new(Arc::clone(&inner));
        *outer.lock().unwrap().lock().unwrap() += 1;
        assert_eq!(*inner.lock().unwrap(), 2);
    });
}

#[test]
fn it_can_be_made_in_a_static_and_from_its_value() {
    static MUTEX: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    everywhere(|| {
        MUTEX.lock().unwrap().push(1);
        assert!(MUTEX.lock().unwrap().iter().all(|&one| one == 1));
        assert_eq!(*Mutex::<u8>::default().lock().unwrap(), 0);
        assert_eq!(*Mutex::from("value").lock().unwrap(), "value");
    });
}

#[test]
fn it_shows_its_value_unless_it_is_locked() {
    everywhere(|| {
        let mutex = Mutex::new(5);
        assert_eq!(
            format!("{mutex:?}"),
            "Mutex { data: 5, poisoned: false, .. }"
        );
        let guard = mutex.lock().unwrap();
        assert_eq!(
            format!("{mutex:?}"),
            r#"Mutex { data: "<locked>", poisoned: false, .. }"#
        );
        assert_eq!(format!("{guard:?} {guard} {guard:03}"), "5 5 005");
        drop(guard);
        poison(&mutex);
        assert_eq!(
            format!("{mutex:?}"),
            "Mutex { data: 5, poisoned: true, .. }"
        );
        let error = mutex.lock().unwrap_err();
        assert_eq!(format!("{error:?}"), "PoisonError { .. }");
    });
}

/// `?` boxes an error of the mutex.
#[test]
fn its_errors_convert() {
    everywhere(|| {
        fn try_it(mutex: &Mutex<u8>) -> Result<u8, Box<dyn ::std::error::Error + '_>> {
            Ok(*mutex.try_lock()?)
        }
        assert_eq!(try_it(&Mutex::new(3)).unwrap(), 3);
        let mutex = poisoned(3);
        assert!(try_it(&mutex).unwrap_err().to_string().contains("poisoned"));
        let value = *mutex.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(value, 3);
    });
}

#[test]
fn its_auto_traits() {
    fn shared<T: Send + Sync>() {}
    fn unwinds<T: UnwindSafe + RefUnwindSafe>() {}
    fn sync<T: Sync>() {}
    fn shows<T: Debug + Display>() {}
    shared::<Mutex<Cell<u8>>>();
    unwinds::<Mutex<Cell<u8>>>();
    sync::<MutexGuard<'_, u8>>();
    shows::<MutexGuard<'_, u8>>();
    unwinds::<MutexGuard<'_, u8>>();
}
