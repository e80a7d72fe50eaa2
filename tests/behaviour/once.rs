//! What a `Once` promises.

use super::{std, util};
use ::std::panic::{RefUnwindSafe, UnwindSafe, resume_unwind};
use ::std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;
use util::{everywhere, message_of};

const MILLI: Duration = Duration::from_millis(1);

fn unwind() {
    resume_unwind(Box::new("unwind"));
}

fn poisoned() -> Once {
    let once = Once::new();
    assert_eq!(message_of(|| once.call_once(unwind)), "unwind");
    once
}

#[test]
fn it_happens_once() {
    everywhere(|| {
        let once = Once::new();
        let mut count = 0;
        assert!(!once.is_completed());
        once.call_once(|| count += 1);
        assert!(once.is_completed());
        once.call_once(|| count += 1);
        once.call_once_force(|_| count += 1);
        once.wait();
        once.wait_force();
        assert_eq!(count, 1);
    });
}

#[test]
fn all_that_call_it_see_what_happened() {
    everywhere(|| {
        let once = Arc::new(Once::new());
        let count = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..10)
            .map(|n| {
                let (once, count) = (Arc::clone(&once), Arc::clone(&count));
                thread::spawn(move || {
                    if n % 3 == 0 {
                        once.wait();
                    } else {
                        once.call_once(|| {
                            // Other tasks come while the closure waits.
                            thread::sleep(5 * MILLI);
                            assert_eq!(count.fetch_add(1, Relaxed), 0);
                        });
                    }
                    assert!(once.is_completed());
                    assert_eq!(count.load(Relaxed), 1);
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

#[test]
fn a_panic_poisons_it_until_it_happens_by_force() {
    everywhere(|| {
        let once = poisoned();
        assert!(!once.is_completed());
        for _ in 0..2 {
            let message = message_of(|| once.call_once(|| unreachable!("it is poisoned")));
            assert!(message.contains("poisoned"), "{message}");
        }
        let message = message_of(|| once.wait());
        assert!(message.contains("poisoned"), "{message}");
        let mut called = false;
        once.call_once_force(|state| {
            called = true;
            assert!(state.is_poisoned());
            assert_eq!(format!("{state:?}"), "OnceState { poisoned: true }");
        });
        assert!(called && once.is_completed());
        once.call_once(|| unreachable!("it has happened"));
        once.wait();
    });
}

#[test]
fn by_force_it_happens_unpoisoned_too() {
    everywhere(|| {
        let once = Once::new();
        once.call_once_force(|state| assert!(!state.is_poisoned()));
        assert!(once.is_completed());
    });
}

#[test]
fn waiters_for_a_forced_call_do_not_see_the_poison() {
    everywhere(|| {
        let once = Arc::new(poisoned());
        let (inside, go_on) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let forces = thread::spawn({
            let once = Arc::clone(&once);
            let (inside, go_on) = (Arc::clone(&inside), Arc::clone(&go_on));
            move || {
                once.call_once_force(|state| {
                    assert!(state.is_poisoned());
                    inside.store(true, SeqCst);
                    while !go_on.load(SeqCst) {
                        thread::sleep(MILLI);
                    }
                });
            }
        });
        while !inside.load(SeqCst) {
            thread::sleep(MILLI);
        }
        let waits = thread::spawn({
            let once = Arc::clone(&once);
            move || once.call_once(|| unreachable!("another one does it"))
        });
        thread::sleep(5 * MILLI);
        go_on.store(true, SeqCst);
        forces.join().unwrap();
        waits.join().unwrap();
    });
}

/// The waiters wait when the closure panics.
#[test]
fn waiters_learn_of_the_poison() {
    everywhere(|| {
        let once = Arc::new(Once::new());
        let inside = Arc::new(AtomicBool::new(false));
        let panics = thread::spawn({
            let (once, inside) = (Arc::clone(&once), Arc::clone(&inside));
            move || {
                once.call_once(|| {
                    inside.store(true, SeqCst);
                    thread::sleep(10 * MILLI);
                    unwind();
                });
            }
        });
        while !inside.load(SeqCst) {
            thread::sleep(MILLI);
        }
        let waits = thread::spawn({
            let once = Arc::clone(&once);
            move || message_of(|| once.wait())
        });
        let calls = thread::spawn({
            let once = Arc::clone(&once);
            move || message_of(|| once.call_once(|| ()))
        });
        let patient = thread::spawn({
            let once = Arc::clone(&once);
            move || once.wait_force()
        });
        panics.join().unwrap_err();
        assert!(waits.join().unwrap().contains("poisoned"));
        assert!(calls.join().unwrap().contains("poisoned"));
        thread::sleep(5 * MILLI);
        assert!(!patient.is_finished());
        once.call_once_force(|_| ());
        patient.join().unwrap();
    });
}

/// Many tasks force calls, which fail again and again, until one succeeds.
#[test]
fn one_of_many_succeeds_in_the_end() {
    everywhere(|| {
        let once = Arc::new(Once::new());
        let tries = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (once, tries) = (Arc::clone(&once), Arc::clone(&tries));
                thread::spawn(move || {
                    once.call_once_force(|state| {
                        let before = tries.fetch_add(1, SeqCst);
                        assert_eq!(state.is_poisoned(), before > 0);
                        thread::sleep(MILLI);
                        if before < 4 {
                            unwind();
                        }
                    });
                })
            })
            .collect();
        let failed = callers.into_iter().filter_map(|caller| caller.join().err());
        assert_eq!(failed.count(), 4);
        assert_eq!(tries.load(SeqCst), 5);
        assert!(once.is_completed());
    });
}

#[test]
fn it_can_be_a_static_and_shows_nothing() {
    static ONCE: Once = Once::new();
    fn traits<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    traits::<Once>();
    everywhere(|| {
        ONCE.call_once(|| ());
        assert_eq!(format!("{ONCE:?}"), "Once { .. }");
    });
}
