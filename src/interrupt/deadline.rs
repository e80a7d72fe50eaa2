//! A moment that several operations share as their deadline.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::task;

/// A moment after which something must not wait any more, or never.
///
/// A deadline is a plain value: copies of it can be given to several operations, coroutines and threads,
/// which then all have the same time left. See [`timeout_at`](crate::timeout_at).
///
/// ```
/// use greenroom::{Deadline, timeout_at};
/// use std::time::Duration;
///
/// let deadline = Deadline::after(Duration::from_secs(5));
/// let first = timeout_at(deadline, || 1);
/// let second = timeout_at(deadline, || 2); // has what the first has left
/// assert_eq!((first, second), (Ok(1), Ok(2)));
/// assert!(!deadline.has_passed());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<task::Deadline>);

impl Deadline {
    /// A deadline that never passes.
    pub const NEVER: Deadline = Deadline(None);

    /// The moment `timeout` from now. [`NEVER`](Deadline::NEVER), if that is beyond the range of the
    /// clock.
    #[must_use]
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(task::Deadline::after(timeout))
    }

    /// The moment `at`.
    #[must_use]
    pub fn at(at: Instant) -> Deadline {
        Deadline(Some(task::Deadline::at(at)))
    }

    /// The moment of this deadline; `None` if it never passes.
    #[must_use]
    pub fn instant(self) -> Option<Instant> {
        self.0.map(|deadline| deadline.at)
    }

    /// The time that is left: zero if the deadline has passed, and [`Duration::MAX`] if it never does.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.instant().map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.instant().is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn of_wait(self) -> Option<task::Deadline> {
        self.0
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Deadline {
        Deadline::at(at)
    }
}
