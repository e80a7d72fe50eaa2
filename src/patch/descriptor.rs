//! What the kernel tells of a descriptor that belongs to the caller.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use libc::{c_int, c_short};
use rustix::net::AddressFamily;
use rustix::net::sockopt::{self, Timeout};

use super::errno::{Errno, result};
use super::kernel;
use super::original;
use super::wait::errno;
use crate::sys::file;
use crate::task::Deadline;

/// The descriptor, for functions that ask for its state or lock it.
///
/// # Errors
///
/// `EBADF` for a number that no descriptor has.
pub(super) fn borrowed<'a>(fd: RawFd) -> Result<BorrowedFd<'a>, Errno> {
    match fd < 0 {
        true => Err(Errno::BADF),
        // SAFETY: the caller passes it to system calls that neither read nor write. If no file is open under that number,
        // they fail; if it is another file by then, the answer is about that one, as it would be in C.
        false => Ok(unsafe { BorrowedFd::borrow_raw(fd) }),
    }
}

/// Whether the user has set non-blocking mode.
pub(super) fn is_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    Ok(kernel::flags(fd)? & libc::O_NONBLOCK != 0)
}

/// When an operation that begins now must end, by the timeout of the socket. `None` for never, and for a
/// descriptor that is no socket.
pub(super) fn deadline(fd: RawFd, which: Timeout) -> Result<Option<Deadline>, Errno> {
    match sockopt::socket_timeout(borrowed(fd)?, which) {
        Ok(timeout) => Ok(timeout.and_then(Deadline::after)),
        Err(Errno::NOTSOCK) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The type of a socket: see socket(2).
pub(super) fn socket_type(fd: RawFd) -> Result<c_int, Errno> {
    let kind = sockopt::socket_type(borrowed(fd)?)?;
    Ok(kind.as_raw() as c_int)
}

/// Whether a socket is of that type, and of one of those families.
pub(super) fn is_socket_of(fd: RawFd, kind: c_int, families: &[AddressFamily]) -> bool {
    let family = || sockopt::socket_domain(borrowed(fd)?);
    socket_type(fd) == Ok(kind) && family().is_ok_and(|family| families.contains(&family))
}

/// Whether a socket listens. False for what is no socket.
pub(super) fn is_listening(fd: RawFd) -> bool {
    borrowed(fd).is_ok_and(|fd| crate::sys::socket::is_listening(fd))
}

/// The type of the file: the bits `S_IFMT` of stat(2).
pub(super) fn file_type(fd: RawFd) -> Result<u32, Errno> {
    Ok(rustix::fs::fstat(borrowed(fd)?)?.st_mode & libc::S_IFMT)
}

/// The events among `events` that the descriptor has now. Those that poll(2) always reports are added.
pub(super) fn events(fd: RawFd, events: c_short) -> Result<c_short, Errno> {
    let mut polled = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: the pointer is to one entry.
    result(unsafe { kernel::poll(&raw mut polled, 1) })?;
    match polled.revents & libc::POLLNVAL {
        0 => Ok(polled.revents),
        _ => Err(Errno::BADF),
    }
}

/// Whether a socket was shut down for receiving, by its owner or by its peer.
pub(super) fn is_shut_down(fd: RawFd) -> Result<bool, Errno> {
    Ok(events(fd, libc::POLLRDHUP)? & libc::POLLRDHUP != 0)
}

/// Blocks the calling thread until one of the descriptors has one of the events beside it, a signal was handled,
/// or `timeout` has passed.
pub(super) fn block(fds: &[(RawFd, c_short)], timeout: Option<Duration>) -> Result<(), Errno> {
    let polled = |&(fd, events): &(RawFd, c_short)| libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let mut polled: Vec<_> = fds.iter().map(polled).collect();
    // Rounded up, so that a wait does not end early.
    let timeout = timeout.map(|timeout| timeout.as_nanos().div_ceil(1_000_000));
    let timeout = timeout.map_or(-1, |timeout| c_int::try_from(timeout).unwrap_or(c_int::MAX));
    // SAFETY: the pointer is to so many entries.
    match result(unsafe { original::poll(polled.as_mut_ptr(), polled.len() as _, timeout) }) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that a read from a pipe, a terminal or the like does not block.
pub(super) fn check_readable(fd: RawFd) -> Result<(), Errno> {
    as_errno(file::check_readable(borrowed(fd)?))
}

/// Checks that a write to a pipe, a terminal or the like does not block, as far as that can be told.
pub(super) fn check_writable(fd: RawFd) -> Result<(), Errno> {
    as_errno(file::check_writable(borrowed(fd)?))
}

fn as_errno(checked: io::Result<()>) -> Result<(), Errno> {
    checked.map_err(|error| match crate::sys::socket::would_block(&error) {
        true => Errno::AGAIN,
        false => errno(&error),
    })
}
