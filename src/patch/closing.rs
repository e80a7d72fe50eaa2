//! Closing: waits for a descriptor end before it is closed.

use super::errno;
use super::original;
use super::types::c_int;
use crate::reactor;
use crate::sys::fork;

pub(super) unsafe fn close(fd: c_int) -> c_int {
    // SAFETY: the caller's.
    let close = || unsafe { original::close(fd) };
    if fd < 0 || !reactor::may_be_awaited(fd) || !has_waits() {
        return close();
    }
    errno::untouched(|| reactor::about_to_close(fd));
    let closed = close();
    errno::untouched(|| reactor::has_closed(fd));
    closed
}

/// Whether waits of this process may be for a descriptor that the caller closes.
///
/// The child of a vfork(2) closes its own descriptors, and has the memory of the parent. A forked child has none of
/// the threads of its parent, which may have held locks at the fork.
fn has_waits() -> bool {
    !fork::has_left_runtimes() && !fork::shares_memory_with_parent()
}
