//! Closing: waits for a descriptor end before it is closed.

use super::original;
use super::types::c_int;
use crate::reactor;
use crate::sys::fork;

pub(super) unsafe fn close(fd: c_int) -> c_int {
    // The child of a vfork(2) closes its own descriptors, and has the memory of the parent.
    if fd >= 0 && reactor::may_be_awaited(fd) && !fork::shares_memory_with_parent() {
        reactor::about_to_close(fd);
    }
    // SAFETY: the caller's.
    unsafe { original::close(fd) }
}
