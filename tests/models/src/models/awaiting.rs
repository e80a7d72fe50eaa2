//! The end of a task and a future that awaits it: `runtime/join/registration.rs`, `task/awaiter.rs` and
//! `task/completion.rs`.

use std::task::{Wake, Waker};

use super::registered_future::Registration;
use super::task::{Awaiter, Completion, Told};
use super::{Model, large, small};
use crate::check::{Arc, Signal, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("awaiting: the end against a poll", 4, || {
        end_against_polls(&[0]);
    }),
    small(
        "awaiting: the end against polls with the same waker and with another",
        3,
        || end_against_polls(&[0, 0, 1]),
    ),
    small(
        "awaiting: the end against a future that is dropped after a poll",
        4,
        || end_against_drop(&[0]),
    ),
    small(
        "awaiting: the end against a future that is dropped after polls with two wakers",
        3,
        || end_against_drop(&[0, 1]),
    ),
    large(
        "awaiting: many ends against many polls, and futures that are dropped",
        many_ends,
    ),
];

/// What a waker has polled again.
struct Woken(Signal);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.raise();
    }
}

/// A task that a future awaits.
struct Awaited {
    completion: Completion<Awaiter>,
    /// Read by the finisher while it uses what the future has registered.
    in_use: UnsafeCell<()>,
    /// 7 from the end of the task on.
    result: UnsafeCell<u32>,
}

impl Awaited {
    fn new() -> Arc<Awaited> {
        Arc::new(Awaited {
            completion: Completion::new(),
            in_use: UnsafeCell::new(()),
            result: UnsafeCell::new(0),
        })
    }

    /// Starts a thread that ends the task.
    fn finish(task: &Arc<Awaited>) -> thread::JoinHandle<()> {
        let task = task.clone();
        thread::spawn(move || {
            // SAFETY: the cell has checked that no other access is under way.
            task.result.with_mut(|result| unsafe { *result = 7 });
            let unwanted = task.completion.finish(
                |joiner| {
                    // SAFETY: what is registered stays until the future has left, which the cell checks. It is the
                    // waker of a future, and no wait.
                    task.in_use
                        .with(|_| unsafe { (*joiner).arrive(|awaiter| awaiter.end()) })
                },
                |told| match told {
                    Told::Future(waker) => waker.wake(),
                    Told::Task(_) => unreachable!("a future awaits the task"),
                },
            );
            assert!(!unwanted, "the handle is there");
        })
    }

    /// Polls the future. Returns whether it is ready.
    fn poll(&self, registration: &mut Registration, waker: &Waker) -> bool {
        if !self.completion.is_done() && registration.register(&self.completion, waker) {
            return false;
        }
        self.leave(registration);
        // SAFETY: the cell has checked that no other access is under way.
        let result = self.result.with(|result| unsafe { *result });
        assert_eq!(result, 7, "the result is there when the future is ready");
        true
    }

    fn leave(&self, registration: &mut Registration) {
        registration.leave(&self.completion);
        // Fails if the finisher still uses what was registered.
        self.in_use.with_mut(|_| ());
    }
}

/// Two wakers, and what each has polled.
fn wakers() -> [(std::sync::Arc<Woken>, Waker); 2] {
    [(); 2].map(|()| {
        let woken = std::sync::Arc::new(Woken(Signal::new()));
        (woken.clone(), Waker::from(woken))
    })
}

/// Polls with the wakers of these numbers, and then waits for the last one, unless the future is ready before.
fn await_it(task: &Awaited, registration: &mut Registration, order: &[usize]) {
    let wakers = wakers();
    let is_ready = |&number: &usize| task.poll(registration, &wakers[number].1);
    if order.iter().any(is_ready) {
        return;
    }
    let (woken, waker) = &wakers[*order.last().unwrap()];
    assert_eq!(woken.0.wait(), 1, "the end calls the last waker, once");
    let is_ready = task.poll(registration, waker);
    assert!(is_ready, "the waker is called when the task is done");
}

fn end_against_polls(order: &[usize]) {
    let task = Awaited::new();
    let end = Awaited::finish(&task);
    let mut registration = Registration::NONE;
    await_it(&task, &mut registration, order);
    end.join().unwrap();
}

fn end_against_drop(order: &[usize]) {
    let task = Awaited::new();
    let end = Awaited::finish(&task);
    let mut registration = Registration::NONE;
    let wakers = wakers();
    for &number in order {
        if task.poll(&mut registration, &wakers[number].1) {
            break;
        }
    }
    task.leave(&mut registration);
    drop(registration);
    end.join().unwrap();
}

fn many_ends() {
    for round in 0..6 {
        let order: Vec<usize> = (0..=round).map(|poll| poll / 2 % 2).collect();
        end_against_drop(&order);
        end_against_polls(&order);
    }
}
