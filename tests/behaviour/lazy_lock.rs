//! What a value that is initialised on first access promises.

use super::{std, util};
use ::std::cell::Cell;
use ::std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::Duration;
use util::{Counted, everywhere, message_of};

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn it_is_made_once_when_it_is_needed() {
    everywhere(|| {
        let made = AtomicUsize::new(0);
        let mut lock = LazyLock::new(|| {
            made.fetch_add(1, SeqCst);
            String::from("made")
        });
        assert_eq!(LazyLock::get(&lock), None);
        assert_eq!(LazyLock::get_mut(&mut lock), None);
        assert_eq!(made.load(SeqCst), 0);
        assert_eq!(lock.len(), 4);
        assert_eq!(LazyLock::force(&lock), "made");
        lock.push('!');
        LazyLock::force_mut(&mut lock).push('!');
        LazyLock::get_mut(&mut lock).unwrap().push('!');
        assert_eq!(LazyLock::get(&lock).unwrap(), "made!!!");
        assert_eq!(made.load(SeqCst), 1);
    });
}

#[test]
fn one_that_is_borrowed_mutably_is_made_in_place() {
    everywhere(|| {
        let owned = String::from("moved in");
        let mut lock = LazyLock::new(move || owned);
        LazyLock::force_mut(&mut lock).clear();
        assert_eq!(*lock, "");
    });
}

#[test]
fn other_tasks_wait_while_the_value_is_initialised() {
    everywhere(|| {
        let made = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&made);
        let lock = Arc::new(LazyLock::new(move || {
            thread::sleep(5 * MILLI);
            own.fetch_add(1, SeqCst) + 7
        }));
        let users: Vec<_> = (0..8)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || **lock)
            })
            .collect();
        for user in users {
            assert_eq!(user.join().unwrap(), 7);
        }
        assert_eq!(made.load(SeqCst), 1);
    });
}

#[test]
fn where_making_it_panics_it_is_poisoned() {
    everywhere(|| {
        let mut lock = LazyLock::<String>::new(|| resume_unwind(Box::new("own message")));
        assert_eq!(message_of(|| lock.len()), "own message");
        let poisoned = "LazyLock instance has previously been poisoned";
        assert_eq!(message_of(|| lock.len()), poisoned);
        assert_eq!(
            message_of(|| LazyLock::force_mut(&mut lock).len()),
            poisoned
        );
        assert_eq!(LazyLock::get(&lock), None);
        assert_eq!(LazyLock::get_mut(&mut lock), None);
        assert_eq!(format!("{lock:?}"), "LazyLock(<uninit>)");

        let mut lock = LazyLock::<String>::new(|| resume_unwind(Box::new("own message")));
        assert_eq!(
            message_of(|| LazyLock::force_mut(&mut lock).len()),
            "own message"
        );
        assert_eq!(message_of(|| lock.len()), poisoned);
    });
}

#[test]
fn its_function_or_its_value_is_dropped_once() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let function = || {
            let counted = Counted(Arc::clone(&drops));
            move || counted
        };
        drop(LazyLock::new(function()));
        assert_eq!(drops.load(SeqCst), 1);
        let lock = LazyLock::new(function());
        LazyLock::force(&lock);
        assert_eq!(drops.load(SeqCst), 1);
        drop(lock);
        assert_eq!(drops.load(SeqCst), 2);
        let counted = Counted(Arc::clone(&drops));
        let lock = LazyLock::<u8, _>::new(move || {
            let _counted = counted;
            resume_unwind(Box::new("unwinds"))
        });
        assert_eq!(message_of(|| *lock), "unwinds");
        assert_eq!(drops.load(SeqCst), 3);
        drop(lock);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

#[test]
fn it_can_be_a_static_or_a_default() {
    static LOCK: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| Mutex::new(vec![1, 2]));
    fn traits<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    traits::<LazyLock<u8>>();
    traits::<LazyLock<u8, Box<dyn FnOnce() -> u8 + Send + UnwindSafe>>>();
    fn send<T: Send>() {}
    send::<LazyLock<Cell<u8>>>();
    everywhere(|| {
        assert_eq!(LOCK.lock().unwrap()[..2], [1, 2]);
        let lock = LazyLock::<Mutex<u8>>::default();
        assert_eq!(format!("{lock:?}"), "LazyLock(<uninit>)");
        *lock.lock().unwrap() += 1;
        assert_eq!(*lock.lock().unwrap(), 1);
        assert!(format!("{lock:?}").starts_with("LazyLock(Mutex { data: 1"));
    });
}
