//! What a worker counts, for `metrics`.
//!
//! The worker counts in cells of its own, which takes one instruction. After each batch it *publishes* the numbers, by
//! plain stores to atomics that others read. So counting takes no atomic read-modify-write.
//!
//! # The delay of the run queue
//!
//! The clock is read for few of the coroutines that become ready. After one in [`SAMPLED`] polls, if coroutines are
//! ready, the worker puts a mark at the end of its ready queue, and notes the time. A coroutine that became ready at
//! this moment would wait as long for its turn as the mark. The mark is the number of a slot that does not exist. So
//! the worker, which looks the slot of each ready coroutine up, finds the mark without looking for it, and notes how
//! long it was in the queue.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one worker counts, for itself.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The turns of coroutines that have begun. The monitor has the kernel read it.
    pub(super) turns: Count,
    /// The turns that ended with a yield.
    pub(super) yields: Count,
    /// The coroutines that have started here.
    pub(super) starts: Count,
    /// The fresh coroutines that were stolen from other workers.
    pub(super) steals: Count,
    /// How often the worker has looked for events.
    pub(super) polls: Count,
    /// How often it has waited for events with nothing to run.
    pub(super) sleeps: Count,
}

/// A number that grows.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    #[inline(always)]
    pub(super) fn get(&self) -> u64 {
        self.0.get()
    }

    #[inline(always)]
    pub(super) fn add(&self, count: u64) {
        self.0.set(self.get().wrapping_add(count));
    }

    pub(super) fn cell(&self) -> &Cell<u64> {
        &self.0
    }
}

/// What one worker has published.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) turns: Published,
    pub(super) yields: Published,
    pub(super) starts: Published,
    pub(super) steals: Published,
    pub(super) polls: Published,
    pub(super) sleeps: Published,
    /// How many started coroutines were ready after the last batch.
    pub(super) ready: Published,
    pub(super) delays: Delays,
}

/// A number that one worker stores and others read.
#[derive(Debug)]
pub(super) struct Published(AtomicU64);

impl Published {
    const fn new() -> Published {
        Published(AtomicU64::new(0))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Called by the worker that owns this.
    fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }
}

impl Counters {
    pub(super) fn new() -> Counters {
        Counters {
            turns: Published::new(),
            yields: Published::new(),
            starts: Published::new(),
            steals: Published::new(),
            polls: Published::new(),
            sleeps: Published::new(),
            ready: Published::new(),
            delays: Delays::new(),
        }
    }

    /// Publishes the worker's counts, and the number of coroutines that are ready.
    #[inline]
    pub(super) fn publish(&self, counts: &Counts, ready: usize) {
        self.turns.set(counts.turns.get());
        self.yields.set(counts.yields.get());
        self.starts.set(counts.starts.get());
        self.steals.set(counts.steals.get());
        self.polls.set(counts.polls.get());
        self.sleeps.set(counts.sleeps.get());
        self.ready.set(ready as u64);
    }
}

/// The upper bounds of the delays that are counted together, in microseconds. Longer delays come last.
const BOUNDS: [u64; BUCKETS - 1] = [
    1, 4, 16, 64, 256, 1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000, 4_000_000,
];

/// The number of buckets, with the one for longer delays.
pub(super) const BUCKETS: usize = 13;

/// The upper bound of a bucket. `None` for the last one.
pub(super) fn bound(bucket: usize) -> Option<Duration> {
    BOUNDS
        .get(bucket)
        .map(|micros| Duration::from_micros(*micros))
}

/// A histogram of delays.
#[derive(Debug)]
pub(super) struct Delays {
    counts: [Published; BUCKETS],
    /// The sum in nanoseconds.
    sum: Published,
}

impl Delays {
    fn new() -> Delays {
        Delays {
            counts: [const { Published::new() }; BUCKETS],
            sum: Published::new(),
        }
    }

    /// Called by the worker that owns this.
    pub(super) fn note(&self, delay: Duration) {
        let is_within = |micros: &u64| delay <= Duration::from_micros(*micros);
        let bucket = BOUNDS.iter().position(is_within).unwrap_or(BUCKETS - 1);
        self.counts[bucket].add(1);
        self.sum
            .add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.counts[bucket].get())
    }

    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum.get())
    }
}

/// A delay is measured once in so many polls.
const SAMPLED: u64 = 64;

/// The slot of the mark in the ready queue.
pub(super) const MARK: u32 = u32::MAX;

/// When the mark was put into a worker's ready queue, if it is there.
#[derive(Debug, Default)]
pub(super) struct Probe(Cell<Option<Instant>>);

impl Probe {
    /// Whether to put the mark into the queue after poll number `polls`. The time counts from now.
    #[inline]
    pub(super) fn begin(&self, polls: u64) -> bool {
        let begins = polls.is_multiple_of(SAMPLED) && self.0.get().is_none();
        if begins {
            self.0.set(Some(Instant::now()));
        }
        begins
    }

    /// The mark was taken out of the queue; returns how long it was there.
    #[cold]
    pub(super) fn end(&self) -> Option<Duration> {
        self.0.take().map(|since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_counted_in_the_first_bucket_that_has_room_for_it() {
        let delays = Delays::new();
        for micros in [0, 1, 2, 1_000, 1_001, 3_000_000, 5_000_000] {
            delays.note(Duration::from_micros(micros));
        }
        assert_eq!(delays.counts(), [2, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(delays.sum(), Duration::from_micros(8_002_004));
        assert_eq!(bound(0), Some(Duration::from_micros(1)));
        assert_eq!(bound(BUCKETS - 1), None);
    }

    #[test]
    fn one_mark_is_in_the_queue_at_a_time() {
        let probe = Probe::default();
        assert!(!probe.begin(SAMPLED - 1));
        assert!(probe.begin(SAMPLED));
        assert!(!probe.begin(2 * SAMPLED));
        assert!(probe.end().is_some());
        assert!(probe.end().is_none());
        assert!(probe.begin(3 * SAMPLED));
    }
}
