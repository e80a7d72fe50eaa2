//! An alarm that a poll can wait for, exact where a poll's own timeout counts milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A one-shot monotonic alarm.
#[derive(Debug)]
pub(crate) struct TimerFd(OwnedFd);

impl TimerFd {
    pub(crate) fn new() -> io::Result<TimerFd> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(TimerFd(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Rings once in `after` from now, instead of whenever it was to ring before.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        // A zero value would disarm it.
        self.arm(after.max(Duration::from_nanos(1)))
    }

    /// Will not ring.
    pub(crate) fn unset(&self) -> io::Result<()> {
        self.arm(Duration::ZERO)
    }

    fn arm(&self, after: Duration) -> io::Result<()> {
        let value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsRawFd for TimerFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
