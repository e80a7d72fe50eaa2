//! The locks of a channel: `channel/mpmc/spin.rs`.

use super::channel_spin::Spin;
use super::{Model, large, small};
use crate::check::{Arc, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("excluding: two, twice each", 3, || exclude(2, 2)),
    large("excluding: five, four times each", || exclude(5, 4)),
];

/// A number that one thread at a time may use.
struct Guarded {
    spin: Spin,
    count: UnsafeCell<usize>,
}

// SAFETY: the cell panics if two threads use the number at the same time.
unsafe impl Sync for Guarded {}
// SAFETY: the value is a number, which may be sent to other threads.
unsafe impl Send for Guarded {}

impl Guarded {
    fn add_one(&self) {
        assert!(self.spin.acquire(), "there is one process");
        // SAFETY: the cell has checked that no other access is under way.
        self.count.with_mut(|count| unsafe { *count += 1 });
        self.spin.release();
    }
}

fn exclude(threads: usize, times: usize) {
    let guarded = Arc::new(Guarded {
        spin: Spin::new(),
        count: UnsafeCell::new(0),
    });
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let guarded = guarded.clone();
            thread::spawn(move || (0..times).for_each(|_| guarded.add_one()))
        })
        .collect();
    (0..times).for_each(|_| guarded.add_one());
    for other in others {
        other.join().unwrap();
    }
    // SAFETY: the cell has checked that no other access is under way: the other threads have ended.
    let count = guarded.count.with(|count| unsafe { *count });
    assert_eq!(count, threads * times);
    assert!(guarded.spin.is_free());
}
