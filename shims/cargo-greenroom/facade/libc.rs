//! libc for a crate whose own threads may be coroutines: `epoll_wait` parks.

// No imports: they would hide the names of libc.
pub use libc::*;

/// # Safety
///
/// As [`libc::epoll_wait`].
pub unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller passes an open descriptor, which stays open during the call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(epoll) };
    let timeout = u64::try_from(timeout)
        .ok()
        .map(std::time::Duration::from_millis);
    loop {
        let left = greenroom::__wait_for_poll(fd, timeout);
        let milliseconds = match left {
            // Rounded up, so that a wait does not end early.
            Some(left) => {
                c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
            }
            None => -1,
        };
        // SAFETY: the caller passes valid arguments, and only the timeout has changed.
        let count = unsafe { libc::epoll_wait(epoll, events, most, milliseconds) };
        // A wait without a timeout goes on if another waiter has taken the events.
        if count != 0 || timeout.is_some() {
            return count;
        }
    }
}
