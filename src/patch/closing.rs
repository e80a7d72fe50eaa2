//! Closing: waits for a descriptor end before it is closed, or becomes a duplicate of another one.
//!
//! The close of a socket with `SO_LINGER` waits until what was sent has arrived. On a coroutine, a thread of the pool
//! closes the last duplicate, and so waits in the caller's place.

use std::os::fd::{IntoRawFd, OwnedFd};

use super::descriptor;
use super::errno;
use super::kernel;
use super::original;
use super::types::c_int;
use crate::pool;
use crate::reactor;
use crate::sys::switches::is_excused;
use crate::sys::{fork, socket};
use crate::task;

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
    let replace = || unsafe { original::dup3(from, to, flags) };
    match flags & !libc::O_CLOEXEC {
        0 => replace_by(from, to, replace),
        // The original refuses it.
        _ => replace(),
    }
}

/// Makes `to` a duplicate of `from`, by the function `replace`.
fn replace_by(from: c_int, to: c_int, replace: impl FnOnce() -> c_int) -> c_int {
    // Otherwise nothing is closed.
    match from != to && kernel::flags(from).is_ok() {
        true => close_by(to, replace),
        false => replace(),
    }
}

/// Closes `fd` by the function `close`. If that lingers, the coroutine parks meanwhile.
fn close_by(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
    let lingering = errno::untouched(|| lingering(fd));
    let closed = close_and_end_waits(fd, close);
    if let Some(last) = lingering {
        let close = move || {
            // By the original, for a pool without threads, which has the caller do this.
            // SAFETY: nobody else has the descriptor.
            unsafe { original::close(last.into_raw_fd()) };
        };
        errno::untouched(|| pool::unblock_in_drop(close));
    }
    closed
}

/// A duplicate of a socket whose last close may wait, if the caller is a coroutine. `None` also for want of descriptors.
fn lingering(fd: c_int) -> Option<OwnedFd> {
    if !task::on_coroutine() || is_excused() {
        return None;
    }
    let fd = descriptor::borrowed(fd).ok()?;
    if !socket::lingers(fd) || fork::shares_memory_with_parent() {
        return None;
    }
    fd.try_clone_to_owned().ok()
}

/// Closes `fd` by the function `close`. The waits for it end.
fn close_and_end_waits(fd: c_int, close: impl FnOnce() -> c_int) -> c_int {
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
