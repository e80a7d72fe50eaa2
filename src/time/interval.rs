//! Tickers.

use std::time::{Duration, Instant};

use crate::park::Wait;
use crate::task::word::Kind;
use crate::task::{self, Awaiting, Deadline, Reason};

/// Makes a ticker. Its first tick is one `period` from now.
///
/// The ticks are at fixed multiples of the period from this call, however long the caller takes
/// between them: they do not drift. Missed ticks are skipped. The next [`tick`](Interval::tick) then
/// returns at once, and the tick after it is in step again.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let mut ticks = greenroom::interval(Duration::from_millis(5));
/// for _ in 0..3 {
///     ticks.tick();
/// }
/// assert!(start.elapsed() >= Duration::from_millis(15));
/// ```
pub fn interval(period: Duration) -> Interval {
    Interval {
        next: Instant::now().checked_add(period),
        period,
    }
}

/// Ticks at multiples of a period. See [`interval`].
#[derive(Debug)]
#[must_use = "an interval only ticks when asked to"]
pub struct Interval {
    /// When the next tick is due; `None` if that is beyond the end of the clock.
    next: Option<Instant>,
    period: Duration,
}

impl Interval {
    /// Parks the caller until the next tick is due. Returns when the tick was due; if several ticks are
    /// due, when the last of them was.
    ///
    /// The difference between two results, in periods, therefore tells how many ticks were missed.
    ///
    /// Other coroutines run first, even if a tick is overdue. With a period of zero, this only lets
    /// them run. With a period beyond the end of the clock, it never returns.
    ///
    /// Off-coroutine, this blocks the OS thread.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn tick(&mut self) -> Instant {
        if !task::on_coroutine() && self.next.is_some_and(|next| next <= Instant::now()) {
            std::thread::yield_now();
        }
        Wait::begin(Kind::Event).suspend(Awaiting::only(Reason::Tick), self.next.map(Deadline::at));
        self.advance(Instant::now()).0
    }

    /// Begins anew: the next tick is one period from now, and the later ones are in step with it.
    pub fn reset(&mut self) {
        self.next = Instant::now().checked_add(self.period);
    }

    /// When the next tick is due; `None` if that is beyond the end of the clock.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Takes the tick that was due last. Returns when it was due, and how many were missed before it.
    pub(crate) fn advance(&mut self, now: Instant) -> (Instant, u64) {
        // The end of a runtime may have ended the wait early, if the caller is a destructor.
        let next = self.next.unwrap_or(now);
        let due = last_multiple(next, self.period, now);
        self.next = due.checked_add(self.period);
        let late = due.saturating_duration_since(next).as_nanos();
        let missed = late.checked_div(self.period.as_nanos()).unwrap_or(0);
        (due, u64::try_from(missed).unwrap_or(u64::MAX))
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}

/// An endless iterator over the [ticks](Interval::tick).
///
/// ```
/// use std::time::Duration;
///
/// for (count, _due) in greenroom::interval(Duration::from_millis(1)).enumerate() {
///     if count == 2 {
///         break;
///     }
/// }
/// ```
impl Iterator for Interval {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        Some(self.tick())
    }
}

/// The last of the moments `first`, `first + period`, and so on that is not after `now`; or `first`, if
/// all are after `now`.
fn last_multiple(first: Instant, period: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(first);
    if late < period {
        return first;
    }
    let since = match period.as_nanos() {
        0 => 0,
        period => late.as_nanos() % period,
    };
    let since = u64::try_from(since).expect("less than the process has run, in nanoseconds");
    now - Duration::from_nanos(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_multiple_is_in_step_and_not_after_now() {
        let first = Instant::now();
        let at = |nanos| first + Duration::from_nanos(nanos);
        let period = Duration::from_nanos(1_000);
        for (now, due) in [
            (0, 0),
            (999, 0),
            (1_000, 1_000),
            (7_001, 7_000),
            (7_999, 7_000),
        ] {
            assert_eq!(last_multiple(first, period, at(now)), at(due), "{now}");
        }
        assert_eq!(last_multiple(at(500), period, first), at(500));
        assert_eq!(last_multiple(first, Duration::ZERO, at(5)), at(5));
        assert_eq!(last_multiple(first, Duration::MAX, at(5)), first);
    }
}
