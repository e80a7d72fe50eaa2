//! When a wait ends at the latest.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// The largest slack in nanoseconds: one millisecond. Many programs use timers that count milliseconds,
/// so being late by that much is not unusual.
const MOST_SLACK: u32 = 1_000_000;

/// A moment, and how much later a wake-up is still good enough. Deadlines that are close to each other
/// share a wake-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// In nanoseconds. A `u32`, since there are many deadlines.
    slack: u32,
}

impl Deadline {
    /// Exactly `at`.
    pub(crate) fn at(at: Instant) -> Deadline {
        Deadline { at, slack: 0 }
    }

    /// At `at`, or up to `slack` later.
    pub(crate) fn with_slack(at: Instant, slack: Duration) -> Deadline {
        Deadline {
            at,
            slack: u32::try_from(slack.as_nanos()).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn slack(self) -> Duration {
        Duration::from_nanos(self.slack.into())
    }

    pub(crate) fn slack_nanos(self) -> u32 {
        self.slack
    }

    /// The moment `timeout` from now. `None`, which means never, if that is beyond the clock's range.
    ///
    /// The slack is 1/64 of the timeout, within a limit. A long timeout need not be exact, and one
    /// wake-up costs as much as serving thousands of deadlines.
    pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
        let slack = match timeout.as_secs() {
            0 => (timeout.subsec_nanos() / 64).min(MOST_SLACK),
            _ => MOST_SLACK,
        };
        Some(Deadline {
            at: Instant::now().checked_add(timeout)?,
            slack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slack_is_a_64th_and_at_most_a_millisecond() {
        for (millis, slack) in [
            (0, 0),
            (1, 15_625),
            (32, 500_000),
            (64, MOST_SLACK),
            (999, MOST_SLACK),
        ] {
            let deadline = Deadline::after(Duration::from_millis(millis)).unwrap();
            assert_eq!(deadline.slack_nanos(), slack, "{millis} ms");
        }
        let long = Deadline::after(Duration::from_secs(1)).unwrap();
        assert_eq!(long.slack_nanos(), MOST_SLACK);
        assert!(Deadline::after(Duration::MAX).is_none());
    }
}
