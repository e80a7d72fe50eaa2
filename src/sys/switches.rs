//! How often a thread has given up its processor to wait.

use std::mem;

/// The voluntary context switches of the calling thread, so far: one for each time it has blocked.
pub(crate) fn voluntary() -> u64 {
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a `rusage`, which is written.
    let done = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    debug_assert_eq!(done, 0, "there is no other error than a bad argument");
    usage.ru_nvcsw as u64
}
