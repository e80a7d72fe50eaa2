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
        Some(Deadline {
            at: Instant::now().checked_add(timeout)?,
            slack: u32::try_from(timeout.as_nanos() / 64)
                .map_or(MOST_SLACK, |slack| slack.min(MOST_SLACK)),
        })
    }
}
