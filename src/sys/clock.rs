//! A clock that costs next to nothing.

/// The nanoseconds since the system was started, as the kernel has noted them at its last tick, a few milliseconds
/// ago.
#[inline]
pub(crate) fn coarse() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a valid structure, which the call fills. (The clock exists since Linux 2.6.32, so
    // the call does not fail.)
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
