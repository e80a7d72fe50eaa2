//! Sleeping.
//!
//! A time that is not valid goes to the original, which refuses it.

use std::time::{Duration, Instant};

use libc::{c_int, c_uint, clockid_t, timespec, timeval};

use super::errno;
use super::types::NO_TIME;
use super::{caller, original, wait};

/// The time as Rust has it. `None`, if it is not valid.
pub(super) fn duration_of(time: &timespec) -> Option<Duration> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// The same for another type of C. It takes any number of microseconds.
pub(super) fn duration_of_timeval(time: &timeval) -> Option<Duration> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let micros = u64::try_from(time.tv_usec).ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))
}

/// The time as C has it.
pub(super) fn timespec_of(time: Duration) -> timespec {
    timespec {
        tv_sec: time.as_secs() as _,
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// The time that a pointer is to. `None`, if the original is to refuse it.
///
/// # Safety
///
/// If memory is there, it has a time.
unsafe fn duration_at(time: *const timespec) -> Option<Duration> {
    // SAFETY: the caller's.
    let time = unsafe { caller::read(time) };
    time.ok()?.as_ref().and_then(duration_of)
}

/// Sleeps. What that does to the number of the last error is undone.
fn sleep(duration: Duration) {
    errno::untouched(|| wait::sleep(duration));
}

pub(super) unsafe fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: the caller's.
    match unsafe { duration_at(time) } {
        Some(duration) => {
            sleep(duration);
            0
        }
        // SAFETY: the caller's.
        None => unsafe { original::nanosleep(time, left) },
    }
}

/// Returns the number of the error itself.
pub(super) unsafe fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    // SAFETY: the caller's.
    let duration = unsafe { duration_at(time) };
    let known = [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
    ];
    match (duration, flags) {
        (Some(duration), 0) if known.contains(&clock) => sleep(duration),
        (Some(until), libc::TIMER_ABSTIME) if known.contains(&clock) => sleep_until(clock, until),
        // SAFETY: the caller's.
        _ => return unsafe { original::clock_nanosleep(clock, flags, time, left) },
    }
    0
}

/// Sleeps until `clock` shows `until`. If the clock is set meanwhile, that is seen after the sleep only.
fn sleep_until(clock: clockid_t, until: Duration) {
    if let Some(left) = until.checked_sub(now_of(clock)) {
        sleep(left);
    }
}

/// What one of the clocks that every Linux has shows.
pub(super) fn now_of(clock: clockid_t) -> Duration {
    let mut now = NO_TIME;
    // SAFETY: the pointer is to a time, which the call sets.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    duration_of(&now).unwrap_or_default()
}

/// When that time comes. `None`, if it is not valid.
///
/// # Safety
///
/// The pointer is null or to a time.
pub(super) unsafe fn deadline_of(clock: clockid_t, until: *const timespec) -> Option<Instant> {
    // SAFETY: the caller's.
    let until = unsafe { until.as_ref() }.and_then(duration_of)?;
    let left = until.saturating_sub(now_of(clock));
    Instant::now().checked_add(left.min(FOR_EVER))
}

/// A time that no program sees the end of.
const FOR_EVER: Duration = Duration::from_secs(1 << 33);

/// When a timed lock gives up.
///
/// # Errors
///
/// What the lock returns if it would have to wait, and the time or the clock is not valid, or the time is before
/// that of the clock's beginning.
///
/// # Safety
///
/// The pointer is null or to a time.
pub(super) unsafe fn deadline_of_lock(
    clock: clockid_t,
    until: *const timespec,
) -> Result<Option<Instant>, c_int> {
    if ![libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC].contains(&clock) {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's.
    match unsafe { (deadline_of(clock, until), until.as_ref()) } {
        (Some(deadline), _) => Ok(Some(deadline)),
        (None, Some(until)) if (0..1_000_000_000).contains(&until.tv_nsec) => Err(libc::ETIMEDOUT),
        (None, _) => Err(libc::EINVAL),
    }
}

pub(super) unsafe fn usleep(micros: c_uint) -> c_int {
    sleep(Duration::from_micros(micros.into()));
    0
}

/// Returns the seconds that are left, which are none.
pub(super) unsafe fn sleep_seconds(seconds: c_uint) -> c_uint {
    sleep(Duration::from_secs(seconds.into()));
    0
}
