//! Semaphores, and the line of waiters that they are made of: `sync/{line,semaphore}.rs`.

use std::time::Duration;

use super::park::Canceller;
use super::semaphore::{Semaphore, State};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, thread};

pub(super) const MODELS: &[Model] = &[
    small("permits: one permit against a waiter", 3, || take(1, &[1])),
    small("permits: two waiters and one permit", 2, || {
        take(1, &[1, 1])
    }),
    small("permits: a waiter that needs two", 2, || take(2, &[2])),
    large("permits: many waiters that need some each", || {
        take(3, &[1, 2, 3, 1, 2]);
    }),
    small("permits: a deadline against a permit", 2, || {
        gives_up(By::Deadline, &[], 1);
    }),
    small("permits: a waiter behind one that gives up", 2, || {
        gives_up(By::Deadline, &[1], 1);
    }),
    small("permits: a waiter behind one that must give up", 2, || {
        gives_up(By::Deadline, &[1], 0);
    }),
    large("permits: many waiters behind some that give up", || {
        gives_up(By::Deadline, &[1, 2, 1], 1);
    }),
    small("permits: a cancellation against a permit", 2, || {
        gives_up(By::Cancellation, &[], 1);
    }),
    small("permits: a waiter behind one that is cancelled", 2, || {
        gives_up(By::Cancellation, &[1], 1);
    }),
    small(
        "permits: a waiter behind one that must be cancelled",
        2,
        || {
            gives_up(By::Cancellation, &[1], 0);
        },
    ),
    large("permits: many waiters behind one that is cancelled", || {
        gives_up(By::Cancellation, &[1, 2, 1], 1);
    }),
];

#[derive(Clone, Copy)]
enum By {
    Deadline,
    Cancellation,
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::of(Mutex::new(State::new(permits))))
}

/// The calling thread and one thread for each of `others` take permits, the others as many as it says.
/// There are never more out than there are, and all come back.
fn take(permits: usize, others: &'static [usize]) {
    let semaphore = semaphore(permits);
    let out = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = others
        .iter()
        .map(|&count| {
            let (semaphore, out) = (semaphore.clone(), out.clone());
            thread::spawn(move || hold(&semaphore, &out, permits, count))
        })
        .collect();
    hold(&semaphore, &out, permits, 1);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(semaphore.available_permits(), permits);
}

fn hold(semaphore: &Semaphore, out: &AtomicUsize, permits: usize, count: usize) {
    let permit = semaphore.acquire_many(count);
    let now = out.fetch_add(count, Ordering::SeqCst) + count;
    assert!(now <= permits, "{now} are out");
    out.fetch_sub(count, Ordering::SeqCst);
    drop(permit);
}

/// A waiter needs one more than there is, and may give up at any time. Meanwhile `added` permits come. Those
/// behind it get theirs, whatever becomes of the first one.
fn gives_up(by: By, behind: &'static [usize], added: usize) {
    let permits = behind.iter().sum();
    let semaphore = semaphore(permits);
    let canceller = Canceller::new();
    let first = {
        let (semaphore, canceller) = (semaphore.clone(), canceller.clone());
        let timeout = Duration::from_millis(1);
        thread::spawn(move || match by {
            By::Deadline => drop(semaphore.acquire_many_timeout(permits + 1, timeout)),
            By::Cancellation => drop(canceller.catch(|| semaphore.acquire_many(permits + 1))),
        })
    };
    let threads: Vec<_> = behind
        .iter()
        .map(|&count| {
            let semaphore = semaphore.clone();
            thread::spawn(move || drop(semaphore.acquire_many(count)))
        })
        .collect();
    let cancels = match by {
        By::Deadline => None,
        By::Cancellation => Some(thread::spawn(move || canceller.cancel())),
    };
    semaphore.add_permits(added);
    first.join().unwrap();
    if let Some(cancels) = cancels {
        cancels.join().unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(semaphore.available_permits(), permits + added);
}
