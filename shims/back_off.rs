//! Trying again, where nothing tells when that is worth while.

use std::time::Duration;

use super::thread;

/// The pauses between attempts, each twice as long as the one before, up to a limit.
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(50);

    pub(super) fn new() -> BackOff {
        BackOff {
            next: BackOff::FIRST,
        }
    }

    /// Sleeps, for no longer than `left`, if that is limited.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn pause(&mut self, left: Option<Duration>) {
        thread::sleep(left.map_or(self.next, |left| left.min(self.next)));
        self.next = (2 * self.next).min(BackOff::LONGEST);
    }
}
