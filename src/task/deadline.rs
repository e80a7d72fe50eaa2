//! When a wait ends at the latest.

use std::time::{Duration, Instant};

/// The most that a deadline may be late so that its neighbours share a wake-up.
const MOST_SLACK: Duration = Duration::from_micros(900);

/// A moment, and how much later will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) slack: Duration,
}

impl Deadline {
    /// Exactly `at`.
    pub(crate) fn at(at: Instant) -> Deadline {
        Deadline {
            at,
            slack: Duration::ZERO,
        }
    }

    /// The moment `timeout` from now; never, if that is beyond the clock. A long timeout need not
    /// be exact: waking up costs as much as serving thousands of them.
    pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
        Some(Deadline {
            at: Instant::now().checked_add(timeout)?,
            slack: (timeout / 64).min(MOST_SLACK),
        })
    }
}
