//! Pauses between attempts, where no event tells when to try again.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use crate::park;

/// Pauses that start short. Each is twice as long as the last, up to a limit.
pub(super) struct BackOff {
    next: Duration,
    longest: Duration,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(1);

    /// Pauses of at most `longest`.
    pub(super) fn up_to(longest: Duration) -> BackOff {
        BackOff {
            next: BackOff::FIRST,
            longest,
        }
    }

    /// Parks the calling coroutine for the next pause, but no longer than `left`.
    ///
    /// # Errors
    ///
    /// That of an interrupt, if interrupts are delivered as errors.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn pause(&mut self, left: Option<Duration>) -> io::Result<()> {
        park::pause(left.map_or(self.next, |left| left.min(self.next)))?;
        self.next = (2 * self.next).min(self.longest);
        Ok(())
    }
}
