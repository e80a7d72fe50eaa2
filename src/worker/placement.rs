//! Which worker starts a fresh coroutine. A coroutine stays on the worker that starts it.
//!
//! A worker that spawns many coroutines would also start most of them, and keep them for good. So a
//! worker that has many more coroutines than the worker with the fewest *holds back*. It leaves
//! fresh coroutines in its deque, from which others steal. It offers them to the worker with the
//! fewest, which then steals even while it has other work. If it has nothing else to do, it blocks
//! for a while. Coroutines are never sent, so none gets stuck with a worker that is busy: after the
//! hold, the worker starts the rest itself.
//!
//! ```text
//!           ahead of the fewest by a margin
//! STARTING ──────────────────────────────────▶ HOLDING BACK, until ...
//!   ▲  ▲          ... no longer ahead              │  │
//!   │  └───────────────────────────────────────────┘  │
//!   └─────────────────────────────────────────────────┘
//!       ... the hold is over: starts some more, twice as many as after the last hold
//! ```
//!
//! Because of the doubling, a worker that has the fewest coroutines but stays busy delays the others
//! only a few times.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long fresh coroutines are left to a worker that is busy, if it takes none.
const HOLD_FOR_BUSY: Duration = Duration::from_millis(2);

/// How long fresh coroutines are left to a worker that was idle. It takes some as soon as the system
/// gives it a processor.
const HOLD_FOR_IDLE: Duration = Duration::from_millis(20);

/// How many coroutines a worker starts before it looks at the other workers again, if it is not ahead
/// or has just ended its first hold.
const CREDIT: usize = 32;

/// How many coroutines put a worker ahead of one that has `fewest`: this number or more.
fn fair(fewest: usize) -> usize {
    fewest + fewest / 8 + 64
}

/// Whether a worker holds back.
pub(super) struct Placement {
    /// The runtime has no other worker.
    alone: bool,
    /// How many coroutines may start before the next look at the other workers.
    credit: Cell<usize>,
    /// The credit to give after the next hold.
    after_hold: Cell<usize>,
    /// The worker holds back at present.
    holding: Cell<bool>,
    /// When the hold ends, and the fewest coroutines that any worker had when it began. The hold begins
    /// anew if all workers have more by then, because they do take coroutines.
    until: Cell<Option<(Instant, usize)>>,
}

impl Placement {
    pub(super) fn new(workers: usize) -> Placement {
        Placement {
            alone: workers == 1,
            credit: Cell::new(0),
            after_hold: Cell::new(CREDIT),
            holding: Cell::new(false),
            until: Cell::new(None),
        }
    }

    /// Whether the worker, which has `live` coroutines, must compare itself with the others before it
    /// starts another one.
    #[inline]
    pub(super) fn must_look(&self, live: usize) -> bool {
        live >= fair(0) && !self.alone && self.credit.get() == 0
    }

    /// Notes that the worker starts a coroutine.
    #[inline]
    pub(super) fn start(&self) {
        self.credit.set(self.credit.get().saturating_sub(1));
    }

    /// Whether the worker leaves a fresh coroutine to others. It has `live` coroutines, and the worker
    /// with the fewest has `fewest` and may be `idle`.
    pub(super) fn hold_back(
        &self,
        live: usize,
        (fewest, idle): (usize, bool),
        now: impl Fn() -> Instant,
    ) -> bool {
        if live < fair(fewest) {
            self.after_hold.set(CREDIT);
            self.start_more(CREDIT);
            return false;
        }
        let now = now();
        match self.until.get() {
            // The hold goes on.
            Some((until, had)) if now < until && fewest <= had => {}
            // The hold is over, and the worker with the fewest has taken none.
            Some((_, had)) if fewest <= had => {
                let more = self.after_hold.get();
                self.after_hold.set(more.saturating_mul(2));
                self.start_more(more);
                return false;
            }
            // The first hold, or all workers have more than when the last one began.
            _ => {
                let hold = if idle { HOLD_FOR_IDLE } else { HOLD_FOR_BUSY };
                self.until.set(Some((now + hold, fewest)));
            }
        }
        self.holding.set(true);
        true
    }

    fn start_more(&self, credit: usize) {
        self.credit.set(credit);
        self.until.set(None);
    }

    /// The worker will compare itself with the others again.
    pub(super) fn look_again(&self) {
        self.holding.set(false);
    }

    /// Whether a hold has begun, which may be over by now.
    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.until.get().is_some()
    }

    /// There is no fresh coroutine, so the hold ends.
    pub(super) fn found_none(&self) {
        self.until.set(None);
    }

    /// Whether the worker holds back at present.
    #[inline]
    pub(super) fn is_holding(&self) -> bool {
        self.holding.get()
    }

    /// When the hold ends, if the worker holds back at present.
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
    fn a_worker_that_is_not_ahead_starts_all_fresh_coroutines() {
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
    fn a_worker_that_is_ahead_holds_back_until_others_have_caught_up() {
        let (placement, now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, false), || now));
        assert_eq!(placement.until(), Some(now + HOLD_FOR_BUSY));
        placement.look_again();
        assert_eq!(placement.until(), None);
        assert!(!placement.hold_back(64, (32, false), || now));
        start(&placement, 64, CREDIT);
    }

    #[test]
    fn after_each_hold_a_worker_starts_twice_as_many() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        let mut live = 64;
        for more in [32, 64, 128] {
            assert!(placement.hold_back(live, (0, false), || now));
            now += HOLD_FOR_BUSY;
            assert!(!placement.hold_back(live, (0, false), || now));
            live = start(&placement, live, more);
            assert!(placement.must_look(live));
        }
        assert!(!placement.hold_back(live, (live, false), || now));
        let live = start(&placement, live, CREDIT);
        assert!(placement.hold_back(live, (0, false), || now));
        now += HOLD_FOR_BUSY;
        assert!(!placement.hold_back(live, (0, false), || now));
        assert!(placement.must_look(start(&placement, live, 32)));
    }

    #[test]
    fn a_hold_for_an_idle_worker_is_longer() {
        let (placement, now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, true), || now));
        assert!(placement.hold_back(64, (0, false), || now + HOLD_FOR_BUSY));
        assert!(!placement.hold_back(64, (0, true), || now + HOLD_FOR_IDLE));
    }

    #[test]
    fn a_hold_lasts_while_others_take_coroutines() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        for fewest in 0..10 {
            assert!(placement.hold_back(1_000, (fewest, false), || now));
            now += HOLD_FOR_BUSY;
        }
        assert!(!placement.hold_back(1_000, (9, false), || now));
    }

    #[test]
    fn a_hold_begins_anew_after_all_fresh_coroutines_were_taken() {
        let (placement, mut now) = (Placement::new(2), Instant::now());
        assert!(placement.hold_back(64, (0, false), || now));
        placement.found_none();
        now += HOLD_FOR_BUSY * 2;
        assert!(placement.hold_back(64, (0, false), || now));
    }
}
