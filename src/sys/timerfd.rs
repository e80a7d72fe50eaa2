//! An alarm that a poll can wait for. It counts nanoseconds, while the timeout of epoll_wait(2)
//! counts milliseconds.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A one-shot alarm on the monotonic clock: a descriptor that becomes readable when it expires. See
/// timerfd_create(2).
#[derive(Debug)]
pub(crate) struct TimerFd(OwnedFd);

impl TimerFd {
    /// An alarm that is not armed.
    ///
    /// # Errors
    ///
    /// The kernel's: out of descriptors or of memory.
    pub(crate) fn new() -> io::Result<TimerFd> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(TimerFd(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Arms the alarm to expire once, in `after` from now. An earlier setting is void, and if the
    /// alarm has expired it is not readable any more.
    ///
    /// # Errors
    ///
    /// The kernel's. None is known for valid arguments.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        // A value of zero would disarm the alarm.
        self.arm(after.max(Duration::from_nanos(1)))
    }

    /// Disarms the alarm. It is not readable any more.
    ///
    /// # Errors
    ///
    /// The kernel's. None is known for valid arguments.
    pub(crate) fn unset(&self) -> io::Result<()> {
        self.arm(Duration::ZERO)
    }

    /// Arms the alarm, or disarms it if `after` is zero.
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
