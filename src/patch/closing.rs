//! Closing: waits for a descriptor end before it is closed, or becomes a duplicate of another one.

use super::errno;
use super::kernel;
use super::original;
use super::types::c_int;
use crate::reactor;
use crate::sys::fork;

pub(super) unsafe fn close(fd: c_int) -> c_int {
    // SAFETY: the caller's.
    close_by(fd, || unsafe { original::close(fd) })
}

pub(super) unsafe fn dup2(from: c_int, to: c_int) -> c_int {
    // SAFETY: the caller's.
    replace_by(from, to, || unsafe { original::dup2(from, to) })
}

pub(super) unsafe fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's.
    replace_by(from, to, || unsafe { original::dup3(from, to, flags) })
}

/// Makes `to` a duplicate of `from`, by the function `replace`.
fn replace_by(from: c_int, to: c_int, replace: impl FnOnce() -> c_int) -> c_int {
    // Then nothing is closed.
    if from == to || kernel::flags(from).is_err() {
        return replace();
    }
    close_by(to, replace)
}

/// Closes `fd` by the function `close`.
fn close_by(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
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
