//! Tasks that wait for the same event: `park/waiters.rs`.

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
    large("waiting: many waiters, some with deadlines", many),
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
            let outcome = self.waiters.wait(Kind::Plain, deadline, is_there);
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

/// Waiters with and without deadlines, and wake-ups of one and of all. No thing is lost.
fn many() {
    const EACH: usize = 3;
    let things = Things::new();
    let waiters: Vec<_> = (0..4)
        .map(|me| {
            let things = things.clone();
            thread::spawn(move || {
                let wait = |round| {
                    let deadline = (me + round) % 2 == 0;
                    things.wait(deadline.then_some(Deadline::Later))
                };
                (0..EACH).filter(|&round| wait(round)).count()
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
