//! The waker of a future, and the task that polls the future: `future/signal.rs`.

use super::signal::Signal;
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, thread};

pub(super) const MODELS: &[Model] = &[
    small("polling: a wake-up against a poll", 4, || poll(1, 1)),
    small(
        "polling: two wake-ups of one thread against polls",
        3,
        || poll(1, 2),
    ),
    small("polling: wake-ups of two threads against polls", 2, || {
        poll(2, 1)
    }),
    large(
        "polling: many wake-ups of many threads against polls",
        || poll(4, 8),
    ),
];

/// A future that is ready when its count has been reached. Nothing but its signal has it polled.
struct Counted {
    /// Relaxed: only the signal orders it.
    count: AtomicUsize,
    signal: Signal,
}

/// So many threads, each of which makes so many steps and has the future polled after each.
fn poll(threads: usize, steps: usize) {
    let future = Arc::new(Counted {
        count: AtomicUsize::new(0),
        signal: Signal::new(),
    });
    let wakers: Vec<_> = (0..threads)
        .map(|_| {
            let future = future.clone();
            thread::spawn(move || {
                for _ in 0..steps {
                    future.count.fetch_add(1, Ordering::Relaxed);
                    future.signal.raise();
                }
            })
        })
        .collect();
    let mut polls = 1;
    while future.count.load(Ordering::Relaxed) < threads * steps {
        if !future.signal.take() {
            future.signal.wait();
        }
        polls += 1;
    }
    assert!(
        polls <= 1 + threads * steps,
        "a wake-up causes one poll at most"
    );
    for waker in wakers {
        waker.join().unwrap();
    }
}
