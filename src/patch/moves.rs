//! Moving bytes from one descriptor to another, by calls that have no flag like `MSG_DONTWAIT`.
//!
//! `sendfile` reads a part of the file, and writes that as write(2) does, so the bytes are copied. `splice` is asked
//! not to wait for pipes, and called when a poll reports that both ends are ready. If the first end is a socket,
//! another reader may then still be faster.

use std::cell::Cell;

use libc::c_short;
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;

use super::caller;
use super::descriptor;
use super::errno::{answer, result};
use super::files;
use super::kernel;
use super::original;
use super::transfer::{MOST, after_part};
use super::types::*;
use super::wait::{spend_operation, until};
use crate::reactor::Interest;

/// How much of a file is read at once.
const PART: usize = 1 << 16;

/// Whether a call may have to wait for the descriptor.
fn is_awaited(fd: c_int) -> bool {
    files::is_awaited(fd) && descriptor::is_nonblocking(fd) == Ok(false)
}

pub(super) unsafe fn sendfile(
    to: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    spend_operation();
    answer(|| {
        // SAFETY: the caller's: null, or if memory is there, it has an offset.
        let start = match unsafe { caller::read(offset) } {
            Ok(None) => position(from),
            Ok(Some(start)) if start >= 0 => Ok(start),
            // The original refuses it.
            _ => Err(Errno::INVAL),
        };
        let is_file = descriptor::file_type(from) == Ok(libc::S_IFREG);
        match start {
            Ok(start) if is_file && is_awaited(to) => {
                let moved = copy(to, from, start, count.min(MOST))?;
                let end = start + moved as off_t;
                match offset.is_null() {
                    // SAFETY: the call takes any numbers.
                    true => _ = unsafe { libc::lseek64(from, end, libc::SEEK_SET) },
                    // SAFETY: the caller's. An offset was read from there.
                    false => unsafe { *offset = end },
                }
                Ok(moved)
            }
            // SAFETY: the caller's.
            _ => result(unsafe { original::sendfile(to, from, offset, count) }),
        }
    })
}

pub(super) use sendfile as sendfile64;

/// Where the next read from a file begins.
fn position(fd: c_int) -> Result<off_t, Errno> {
    // SAFETY: the call takes any numbers.
    result(unsafe { libc::lseek64(fd, 0, libc::SEEK_CUR) })
}

/// Writes `count` bytes of the file, or all that there are from `start`. Returns how many were written.
fn copy(to: c_int, from: c_int, start: off_t, count: usize) -> Result<ssize_t, Errno> {
    let mut part = vec![0u8; count.min(PART)];
    let mut moved = 0;
    loop {
        let len = part.len().min(count - moved);
        let at = start + moved as off_t;
        // SAFETY: the pointer is to so many bytes.
        let read = result(unsafe { libc::pread64(from, part.as_mut_ptr().cast(), len, at) });
        let written = match read {
            Ok(0) => return Ok(moved as ssize_t),
            // SAFETY: the pointer is to so many bytes.
            Ok(read) => result(unsafe { files::write(to, part.as_ptr().cast(), read as usize) }),
            failed => failed,
        };
        match written {
            Ok(written) => moved += written as usize,
            Err(error) => return after_part(moved as ssize_t, error),
        }
        if moved == count || written != read {
            return Ok(moved as ssize_t);
        }
    }
}

/// Checks that there is something to be received, or the end.
fn peek(fd: c_int) -> Result<(), Errno> {
    let (mut byte, flags) = (0u8, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    // SAFETY: the pointer is to one byte.
    let peeked =
        unsafe { kernel::recvfrom(fd, (&raw mut byte).cast(), 1, flags, null_mut(), null_mut()) };
    result(peeked).map(drop)
}

pub(super) unsafe fn splice(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    len: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller's.
    let splice =
        |len, flags| unsafe { original::splice(from, from_offset, to, to_offset, len, flags) };
    let ends = [
        (from, Interest::READABLE, libc::POLLIN, Timeout::Recv),
        (to, Interest::WRITABLE, libc::POLLOUT, Timeout::Send),
    ];
    // The call is refused at once without a pipe, and with an offset in a pipe.
    let is_pipe = |fd| descriptor::file_type(fd) == Ok(libc::S_IFIFO);
    let is_refused = match (is_pipe(from), is_pipe(to)) {
        (false, false) => true,
        (from, to) => from && !from_offset.is_null() || to && !to_offset.is_null(),
    };
    let asks_not_to_wait = len == 0 || flags & libc::SPLICE_F_NONBLOCK != 0;
    let is_nonblocking = |&fd: &c_int| descriptor::is_nonblocking(fd) != Ok(false);
    if is_refused || asks_not_to_wait || [from, to].iter().any(is_nonblocking) {
        return splice(len, flags);
    }
    spend_operation();
    let is_socket = |fd| descriptor::file_type(fd) == Ok(libc::S_IFSOCK);
    // A socket that reports room has it for so much.
    let len = if is_socket(to) {
        len.min(libc::PIPE_BUF)
    } else {
        len
    };
    let was_in_vain = Cell::new(false);
    let wait_for = |&(fd, interest, events, timeout): &(c_int, Interest, c_short, Timeout)| {
        let attempt = || match descriptor::events(fd, events)? {
            0 => Err(Errno::AGAIN),
            // An error, or a message in the error queue of a socket. A splice from that may block.
            libc::POLLERR if is_socket(fd) && interest == Interest::READABLE => peek(fd),
            libc::POLLERR if is_socket(fd) && was_in_vain.get() => Err(Errno::AGAIN),
            _ => Ok(()),
        };
        match attempt() {
            Err(Errno::AGAIN) => {
                let deadline = descriptor::deadline(fd, timeout)?;
                until(fd, interest, deadline, attempt)
            }
            done => done,
        }
    };
    answer(|| {
        loop {
            // One after the other: a wait for either would end at once while only one of them is ready.
            let mut awaited = ends.iter().filter(|&&(fd, ..)| is_awaited(fd));
            awaited.try_for_each(wait_for)?;
            match result(splice(len, flags | libc::SPLICE_F_NONBLOCK)) {
                // A standard stream is not waited for by a poll. This blocks.
                Err(Errno::AGAIN) if [from, to].iter().any(|&fd| fd <= libc::STDERR_FILENO) => {
                    return result(splice(len, flags));
                }
                // Another reader or writer was faster.
                Err(Errno::AGAIN) => {
                    was_in_vain.set(true);
                    spend_operation();
                }
                done => return done,
            }
        }
    })
}
