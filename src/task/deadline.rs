//! When a wait ends at the latest.

use std::time::{Duration, Instant};

/// The most nanoseconds that a deadline may be late so that its neighbours share a wake-up: as much
/// as the timers of others are coarse that count milliseconds.
const MOST_SLACK: u32 = 1_000_000;

/// A moment, and how much later will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// In nanoseconds, as there are many.
    slack: u32,
}

impl Deadline {
    /// Exactly `at`.
    pub(crate) fn at(at: Instant) -> Deadline {
        Deadline { at, slack: 0 }
    }

    /// `at`, or up to `slack` later.
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

    /// The moment `timeout` from now; never, if that is beyond the clock. A long timeout need not
    /// be exact: waking up costs as much as serving thousands of them.
    pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
        Some(Deadline {
            at: Instant::now().checked_add(timeout)?,
            slack: u32::try_from(timeout.as_nanos() / 64)
                .map_or(MOST_SLACK, |slack| slack.min(MOST_SLACK)),
        })
    }
}
