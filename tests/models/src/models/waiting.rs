//! Tasks that wait for the same event: `park/waiters.rs`.

use super::park::Canceller;
use super::task::{Deadline, Reason};
use super::waiters::{WaitList, Waiters};
use super::word::{Kind, Outcome};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, thread};

pub(super) const MODELS: &[Model] = &[
    small("waiting: a wake-up against a wait", 3, || one(Wake::One)),
    small("waiting: a wake-up of all against a wait", 3, || {
        one(Wake::All)
    }),
    small("waiting: two waiters, one thing each", 2, two),
    small("waiting: a deadline against a wake-up", 2, deadline),
    small("waiting: a cancellation against a wake-up", 2, cancellation),
    large("waiting: many waiters, some with deadlines", || many(false)),
    large("waiting: many waiters, some of which are cancelled", || {
        many(true);
    }),
];

/// A number of things. Each waiter waits for one, and takes it.
struct Things {
    count: AtomicUsize,
    waiters: Waiters,
}

#[derive(Clone, Copy)]
enum Wake {
    One,
    All,
}

impl Things {
    fn new() -> Arc<Things> {
        Arc::new(Things {
            count: AtomicUsize::new(0),
            waiters: Waiters::of(Reason::Event, Mutex::new(WaitList::new())),
        })
    }

    /// Adds a thing, and wakes one waiter or all. Returns whether one was woken, if that is known.
    fn add(&self, wake: Wake) -> bool {
        self.count.fetch_add(1, Ordering::SeqCst);
        match wake {
            Wake::One => {
                let mut none = false;
                let woken = self.waiters.wake_one(|| none = true);
                assert_ne!(woken, none);
                woken
            }
            Wake::All => {
                self.waiters.wake_all();
                false
            }
        }
    }

    fn take(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        let order = Ordering::SeqCst;
        self.count.fetch_update(order, order, one_less).is_ok()
    }

    /// Waits for a thing and takes it. Returns false if the deadline has passed before.
    fn wait(&self, deadline: Option<Deadline>) -> bool {
        while !self.take() {
            let is_there = || self.count.load(Ordering::SeqCst) > 0;
            let outcome = self.waiters.wait(Kind::Peer, deadline, is_there);
            if outcome == Outcome::TimedOut {
                return false;
            }
        }
        true
    }

    fn check_nobody_waits(&self) {
        assert!(self.waiters.is_empty());
    }
}

/// A waiter is woken, or sees that it need not wait.
fn one(wake: Wake) {
    let things = Things::new();
    let adds = thread::spawn({
        let things = things.clone();
        move || things.add(wake)
    });
    assert!(things.wait(None));
    adds.join().unwrap();
    things.check_nobody_waits();
}

/// Two wake-ups for two waiters: both get a thing.
fn two() {
    let things = Things::new();
    let waits = thread::spawn({
        let things = things.clone();
        move || things.wait(None)
    });
    let adds = thread::spawn({
        let things = things.clone();
        move || {
            things.add(Wake::One);
            things.add(Wake::One);
        }
    });
    assert!(things.wait(None));
    assert!(waits.join().unwrap());
    adds.join().unwrap();
    things.check_nobody_waits();
}

/// A wake-up is not spent on a waiter that has timed out: the other waiter takes the thing.
fn deadline() {
    let things = Things::new();
    let patient = thread::spawn({
        let things = things.clone();
        move || things.wait(None)
    });
    let in_time = things.wait(Some(Deadline::AtOnce));
    things.add(Wake::One);
    if in_time {
        things.add(Wake::One);
    }
    assert!(patient.join().unwrap());
    things.check_nobody_waits();
}

/// A wake-up is not spent on a waiter that is cancelled: the other waiter takes the thing.
fn cancellation() {
    let things = Things::new();
    let canceller = Canceller::new();
    let patient = thread::spawn({
        let things = things.clone();
        move || things.wait(None)
    });
    let cancelled = thread::spawn({
        let (things, canceller) = (things.clone(), canceller.clone());
        move || canceller.catch(|| things.wait(None))
    });
    let cancels = thread::spawn(move || canceller.cancel());
    things.add(Wake::One);
    cancels.join().unwrap();
    if cancelled.join().unwrap().is_some() {
        things.add(Wake::One);
    }
    assert!(patient.join().unwrap());
    things.check_nobody_waits();
}

/// Waiters with and without deadlines, of which some are cancelled, and wake-ups of one and of all. No thing is lost.
fn many(cancel: bool) {
    const EACH: usize = 3;
    let things = Things::new();
    let cancellers = [(); 4].map(|()| Canceller::new());
    let waiters: Vec<_> = (0..4)
        .map(|me| {
            let (things, canceller) = (things.clone(), cancellers[me].clone());
            thread::spawn(move || {
                let mut taken = 0;
                canceller.catch(|| {
                    for round in 0..EACH {
                        let deadline = (me + round) % 2 == 0;
                        let taken_now = things.wait(deadline.then_some(Deadline::Later));
                        taken += usize::from(taken_now);
                    }
                });
                taken
            })
        })
        .collect();
    let adders: Vec<_> = [Wake::One, Wake::All]
        .map(|wake| {
            let things = things.clone();
            thread::spawn(move || {
                for _ in 0..2 * EACH {
                    things.add(wake);
                }
            })
        })
        .into();
    if cancel {
        cancellers[..2].iter().for_each(Canceller::cancel);
    }
    for adder in adders {
        adder.join().unwrap();
    }
    let taken: usize = waiters
        .into_iter()
        .map(|waiter| waiter.join().unwrap())
        .sum();
    assert_eq!(things.count.load(Ordering::SeqCst), 4 * EACH - taken);
    things.check_nobody_waits();
}
