//! Who starts a fresh coroutine: where it starts is where it stays.
//!
//! Whoever spawns many would start most of them, and had them for good. So a worker that has
//! started many more than the one with the fewest *holds back*: it leaves fresh coroutines in its
//! deque, where others steal them, offers them to the one with the fewest (which then steals before
//! it is out of work), and, if there is nothing else to do, blocks for a while. Nothing is sent, so
//! nothing can get stuck with a worker that is busy: what is not taken in time is started after all.
//!
//! ```text
//!           ahead of the fewest by a margin
//! STARTING ──────────────────────────────────▶ HOLDING BACK, until ...
//!   ▲  ▲          no longer ahead                  │  │
//!   │  └───────────────────────────────────────────┘  │
//!   └─────────────────────────────────────────────────┘
//!       the time is over: some more, twice as many as the last time
//! ```
//!
//! The doubling has a worker that is busy for long, and has the fewest, delay others only a few
//! times.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long fresh coroutines are left to a worker that is busy and takes none.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long they are left to one that was idle, and will take some once it has a processor.
const LONG_PATIENCE: Duration = Duration::from_millis(20);

/// How many a worker starts before it looks at the others again, if it is not ahead; and if it is,
/// when its patience has ended for the first time.
const CREDIT: usize = 32;

/// With how many coroutines a worker is not ahead of one that has `fewest`.
fn fair(fewest: usize) -> usize {
    fewest + fewest / 8 + 64
}

/// Whether one worker holds back.
pub(super) struct Placement {
    alone: bool,
    /// How many may be started without a look at the others.
    credit: Cell<usize>,
    /// The credit at the end of patience.
    after_patience: Cell<usize>,
    holding: Cell<bool>,
    /// Till when to hold back, unless all others have more than so many by then.
    until: Cell<Option<(Instant, usize)>>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Placement {
        Placement {
            alone: workers == 1,
            credit: Cell::new(0),
            after_patience: Cell::new(CREDIT),
            holding: Cell::new(false),
            until: Cell::new(None),
        }
    }

    /// Whether a worker with `live` coroutines must see how many others have before it starts one.
    #[inline]
    pub(super) fn must_look(&self, live: usize) -> bool {
        live >= fair(0) && !self.alone && self.credit.get() == 0
    }

    /// The worker starts one.
    #[inline]
    pub(super) fn start(&self) {
        self.credit.set(self.credit.get().saturating_sub(1));
    }

    /// There is a fresh coroutine: whether the worker, which has `live`, leaves it to others, of
    /// which one has `fewest`, and is idle or not.
    pub(super) fn hold_back(
        &self,
        live: usize,
        (fewest, idle): (usize, bool),
        now: impl Fn() -> Instant,
    ) -> bool {
        if live < fair(fewest) {
            self.after_patience.set(CREDIT);
            self.start_more(CREDIT);
            return false;
        }
        let now = now();
        match self.until.get() {
            Some((until, had)) if now < until && fewest <= had => {}
            Some((_, had)) if fewest <= had => {
                let more = self.after_patience.get();
                self.after_patience.set(more.saturating_mul(2));
                self.start_more(more);
                return false;
            }
            _ => {
                let patience = if idle { LONG_PATIENCE } else { PATIENCE };
                self.until.set(Some((now + patience, fewest)));
            }
        }
        self.holding.set(true);
        true
    }

    fn start_more(&self, credit: usize) {
        self.credit.set(credit);
        self.until.set(None);
    }

    /// The others are to be looked at again.
    pub(super) fn look_again(&self) {
        self.holding.set(false);
    }

    /// Whether fresh coroutines were left to others, for a time that may be over.
    #[inline]
    pub(super) fn is_patient(&self) -> bool {
        self.until.get().is_some()
    }

    /// There is no fresh coroutine.
    pub(super) fn found_none(&self) {
        self.until.set(None);
    }

    /// Whether the worker holds back at present.
    #[inline]
    pub(super) fn is_holding(&self) -> bool {
        self.holding.get()
    }

    /// Till when the worker holds back.
    pub(super) fn until(&self) -> Option<Instant> {
        let until = self.until.get().filter(|_| self.is_holding());
        until.map(|(until, _)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(placement: &Placement, live: usize, count: usize) -> usize {
        for live in live..live + count {
            assert!(!placement.must_look(live));
            placement.start();
        }
        live + count
    }

    #[test]
    fn a_worker_that_is_not_ahead_starts_what_there_is() {
        let (placement, now) = (Placement::new(2), Instant::now());
        let live = start(&placement, 0, 64);
        assert!(placement.must_look(live));
        assert!(!placement.hold_back(live, (1, false), || now));
        assert_eq!(placement.until(), None);
        let live = start(&placement, live, CREDIT);
        assert!(placement.must_look(live));
        start(&Placement::new(1), 0, 10_000);
    }

    #[test]
    fn one_that_is_ahead_holds_back_until_others_have_caught_up() {
        let (placement, now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, false), || now));
        assert_eq!(placement.until(), Some(now + PATIENCE));
        placement.look_again();
        assert_eq!(placement.until(), None);
        assert!(!placement.hold_back(64, (32, false), || now));
        start(&placement, 64, CREDIT);
    }

    #[test]
    fn patience_ends_and_each_time_for_longer() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        let mut live = 64;
        for more in [32, 64, 128] {
            assert!(placement.hold_back(live, (0, false), || now));
            now += PATIENCE;
            assert!(!placement.hold_back(live, (0, false), || now));
            live = start(&placement, live, more);
            assert!(placement.must_look(live));
        }
        assert!(!placement.hold_back(live, (live, false), || now));
        let live = start(&placement, live, CREDIT);
        assert!(placement.hold_back(live, (0, false), || now));
        now += PATIENCE;
        assert!(!placement.hold_back(live, (0, false), || now));
        assert!(placement.must_look(start(&placement, live, 32)));
    }

    #[test]
    fn patience_with_one_that_was_idle_is_longer() {
        let (placement, now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, true), || now));
        assert!(placement.hold_back(64, (0, false), || now + PATIENCE));
        assert!(!placement.hold_back(64, (0, true), || now + LONG_PATIENCE));
    }

    #[test]
    fn patience_lasts_while_others_take_some() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        for fewest in 0..10 {
            assert!(placement.hold_back(1_000, (fewest, false), || now));
            now += PATIENCE;
        }
        assert!(!placement.hold_back(1_000, (9, false), || now));
    }

    #[test]
    fn patience_begins_anew_for_what_comes_after_all_was_taken() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, false), || now));
        placement.found_none();
        now += PATIENCE * 2;
        assert!(placement.hold_back(64, (0, false), || now));
    }
}
