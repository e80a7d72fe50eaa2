//! What a value that is set once promises.

use super::{std, util};
use ::std::cell::Cell;
use ::std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use util::{Counted, everywhere};

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn the_first_value_stays() {
    everywhere(|| {
        let mut lock = OnceLock::new();
        assert_eq!(lock.get(), None);
        assert_eq!(lock.get_mut(), None);
        assert_eq!(lock.set(1), Ok(()));
        assert_eq!(lock.set(2), Err(2));
        assert_eq!(lock.get_or_init(|| unreachable!("there is one")), &1);
        *lock.get_mut().unwrap() += 2;
        assert_eq!(lock.get(), Some(&3));
        assert_eq!(lock.wait(), &3);
        assert_eq!(lock.take(), Some(3));
        assert_eq!(lock.get(), None);
        assert_eq!(lock.get_or_init(|| 4), &4);
        assert_eq!(lock.into_inner(), Some(4));
        assert_eq!(OnceLock::<u8>::new().into_inner(), None);
    });
}

#[test]
fn of_many_that_make_it_one_does() {
    everywhere(|| {
        let lock = Arc::new(OnceLock::new());
        let made = Arc::new(AtomicUsize::new(0));
        let users: Vec<_> = (0..12)
            .map(|n| {
                let (lock, made) = (Arc::clone(&lock), Arc::clone(&made));
                thread::spawn(move || match n % 4 {
                    0 => *lock.wait(),
                    _ => *lock.get_or_init(|| {
                        thread::sleep(5 * MILLI);
                        made.fetch_add(1, SeqCst);
                        n
                    }),
                })
            })
            .collect();
        let values: Vec<_> = users.into_iter().map(|user| user.join().unwrap()).collect();
        assert!(
            values.iter().all(|value| Some(value) == lock.get()),
            "{values:?}"
        );
        assert_eq!(made.load(SeqCst), 1);
    });
}

/// Whether the earlier value was set or initialised.
#[test]
fn a_value_that_comes_too_late_is_given_back() {
    everywhere(|| {
        let lock = Arc::new(OnceLock::new());
        let begun = Arc::new(AtomicBool::new(false));
        let makes = thread::spawn({
            let (lock, begun) = (Arc::clone(&lock), Arc::clone(&begun));
            move || {
                lock.get_or_init(|| {
                    begun.store(true, SeqCst);
                    thread::sleep(10 * MILLI);
                    "made".to_owned()
                });
            }
        });
        while !begun.load(SeqCst) {
            thread::sleep(MILLI);
        }
        assert_eq!(lock.get(), None);
        assert_eq!(lock.set("set".to_owned()), Err("set".to_owned()));
        assert_eq!(lock.get().unwrap(), "made");
        makes.join().unwrap();
    });
}

#[test]
fn where_making_it_panics_another_one_may() {
    everywhere(|| {
        let lock = Arc::new(OnceLock::new());
        let panics = || lock.get_or_init(|| resume_unwind(Box::new(())));
        let caught = catch_unwind(AssertUnwindSafe(panics));
        caught.map(|_: &u8| ()).unwrap_err();
        assert_eq!(lock.get(), None);
        // Another task that waits meanwhile goes on, too.
        let begun = Arc::new(AtomicBool::new(false));
        let panics = thread::spawn({
            let (lock, begun) = (Arc::clone(&lock), Arc::clone(&begun));
            move || {
                lock.get_or_init(|| {
                    begun.store(true, SeqCst);
                    thread::sleep(5 * MILLI);
                    resume_unwind(Box::new(()))
                });
            }
        });
        while !begun.load(SeqCst) {
            thread::sleep(MILLI);
        }
        assert_eq!(lock.get_or_init(|| 7), &7);
        panics.join().unwrap_err();
        assert_eq!(lock.wait(), &7);
    });
}

#[test]
fn its_value_is_dropped_once_and_only_if_it_is_there() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = || Counted(Arc::clone(&drops));
        drop(OnceLock::<Counted>::new());
        let lock = OnceLock::new();
        lock.get_or_init(counted);
        assert!(lock.set(counted()).is_err());
        assert_eq!(drops.load(SeqCst), 1);
        thread::spawn(move || drop(lock)).join().unwrap();
        assert_eq!(drops.load(SeqCst), 2);
        let mut lock = OnceLock::from(counted());
        drop(lock.take());
        assert_eq!(drops.load(SeqCst), 3);
        drop(lock);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

/// The lock is declared before the value that it borrows from. The drop check accepts that, because
/// dropping the lock does not access the reference.
#[test]
fn it_may_outlive_what_its_value_borrows() {
    everywhere(|| {
        let lock = OnceLock::new();
        {
            let short = String::from("short");
            lock.set(&short).unwrap();
        }
    });
}

#[test]
fn it_compares_clones_and_shows_as_its_value() {
    fn traits<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    fn send<T: Send>() {}
    static LOCK: OnceLock<u8> = OnceLock::new();
    traits::<OnceLock<u8>>();
    send::<OnceLock<Cell<u8>>>();
    everywhere(|| {
        assert_eq!(LOCK.get_or_init(|| 3), &3);
        let empty = OnceLock::<String>::default();
        assert_eq!(empty, empty.clone());
        let full = OnceLock::from("full".to_owned());
        assert_ne!(empty, full);
        assert_eq!(full, full.clone());
        assert_ne!(full, OnceLock::from("fuller".to_owned()));
        assert_eq!(
            format!("{empty:?} {full:?}"),
            "OnceLock(<uninit>) OnceLock(\"full\")"
        );
    });
}
