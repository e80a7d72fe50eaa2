//! Reading and writing through any descriptor.
//!
//! An attempt is made with `RWF_NOWAIT`, or with `MSG_DONTWAIT` on a socket. Where the kernel knows neither, a poll
//! tells whether the call would block; another reader or writer may then still be faster. Regular files are
//! read and written as without the patch. So are the descriptors 0, 1 and 2: std holds a lock of its own
//! around them, which counts by OS thread.

use rustix::net::sockopt::Timeout;

use super::descriptor;
use super::errno::{Errno, answer, result};
use super::original;
use super::sockets;
use super::transfer::{Buffers, Transfer};
use super::types::*;
use super::wait::spend_operation_on;
use crate::reactor::Interest;

/// `RWF_NOWAIT` of preadv2(2).
const NOWAIT: c_int = 8;

/// The offset that stands for the descriptor's own position.
const OWN_POSITION: off_t = -1;

/// What is read and written otherwise than by plain calls.
enum Kind {
    Socket,
    /// A pipe, named or not.
    Pipe,
    /// A terminal, an eventfd, and so on.
    Other,
}

/// `None` for what is read and written by plain calls.
fn kind(fd: c_int) -> Result<Option<Kind>, Errno> {
    Ok(match descriptor::file_type(fd)? {
        libc::S_IFSOCK => Some(Kind::Socket),
        libc::S_IFIFO => Some(Kind::Pipe),
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFLNK => None,
        _ => Some(Kind::Other),
    })
}

/// Whether a call may have to wait for the descriptor, if that is in blocking mode.
pub(super) fn is_awaited(fd: c_int) -> bool {
    fd > libc::STDERR_FILENO && matches!(kind(fd), Ok(Some(_)))
}

/// Whether a call goes to the original at once.
fn is_plain(fd: c_int, count: usize) -> bool {
    fd <= libc::STDERR_FILENO || count == 0 || count > libc::UIO_MAXIOV as usize
}

/// Reads. `block` is the original call.
///
/// # Safety
///
/// As readv(2).
unsafe fn read_into(fd: c_int, bufs: Buffers, block: impl Fn() -> ssize_t) -> ssize_t {
    if is_plain(fd, bufs.count) {
        return block();
    }
    answer(|| {
        spend_operation_on(fd);
        match kind(fd)? {
            None => result(block()),
            Some(kind) => {
                let reading = Transfer {
                    fd,
                    interest: Interest::READABLE,
                    timeout: Timeout::Recv,
                };
                // SAFETY: the caller's.
                reading.once_or_end(
                    || unsafe { try_to_read(fd, &kind, bufs) },
                    || result(block()),
                )
            }
        }
    })
}

/// Makes an attempt to read from what is no regular file.
///
/// # Safety
///
/// As readv(2).
unsafe fn try_to_read(fd: c_int, kind: &Kind, bufs: Buffers) -> Result<ssize_t, Errno> {
    let count = bufs.count as c_int;
    // SAFETY: the caller's.
    let tried = unsafe { original::preadv2(fd, bufs.list, count, OWN_POSITION, NOWAIT) };
    match (result(tried), kind) {
        // SAFETY: the caller's.
        (Err(Errno::OPNOTSUPP | Errno::NOSYS), Kind::Socket) => unsafe {
            sockets::try_to_read(fd, bufs)
        },
        (Err(Errno::OPNOTSUPP | Errno::NOSYS), _) => {
            if !descriptor::is_nonblocking(fd)? {
                descriptor::check_readable(fd)?;
            }
            // SAFETY: the caller's.
            result(unsafe { original::readv(fd, bufs.list, count) })
        }
        (done, _) => done,
    }
}

/// Writes. `block` is the original call.
///
/// A signal handler may call this, so it does not count as an operation.
///
/// # Safety
///
/// As writev(2).
unsafe fn write_from(fd: c_int, bufs: Buffers, block: impl Fn() -> ssize_t) -> ssize_t {
    if is_plain(fd, bufs.count) {
        return block();
    }
    answer(|| {
        let writing = Transfer {
            fd,
            interest: Interest::WRITABLE,
            timeout: Timeout::Send,
        };
        // SAFETY: the caller's.
        let is_all = |written, _| unsafe { written >= bufs.len() };
        match kind(fd)? {
            None => result(block()),
            Some(kind) => writing.all(
                // SAFETY: the caller's. The kernel has read the list if anything was written.
                |written| unsafe {
                    bufs.after(written, |list, count| match kind {
                        Kind::Socket if written > 0 => {
                            sockets::try_to_write(fd, Buffers { list, count }, written)
                        }
                        _ => try_to_write(fd, &kind, list, count),
                    })
                },
                is_all,
                || true,
            ),
        }
    })
}

/// Makes an attempt to write to what is no regular file.
///
/// # Safety
///
/// As writev(2).
unsafe fn try_to_write(
    fd: c_int,
    kind: &Kind,
    list: *const iovec,
    count: usize,
) -> Result<ssize_t, Errno> {
    // SAFETY: the caller's.
    let tried = unsafe { original::pwritev2(fd, list, count as c_int, OWN_POSITION, NOWAIT) };
    match result(tried) {
        // SAFETY: the caller's.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if matches!(kind, Kind::Socket) => unsafe {
            sockets::try_to_write(fd, Buffers { list, count }, 0)
        },
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if descriptor::is_nonblocking(fd)? => {
            // SAFETY: the caller's.
            result(unsafe { original::writev(fd, list, count as c_int) })
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            descriptor::check_writable(fd)?;
            // SAFETY: the caller's. The list is not empty, and the kernel has read it.
            unsafe {
                let buffers = Buffers { list, count };
                let first = buffers.as_slice().iter().find(|buf| buf.iov_len > 0);
                match (kind, first) {
                    // A pipe that reports room has it for so much.
                    (Kind::Pipe, Some(first)) if buffers.len() > libc::PIPE_BUF => {
                        let len = first.iov_len.min(libc::PIPE_BUF);
                        result(original::write(fd, first.iov_base, len))
                    }
                    _ => result(original::writev(fd, list, count as c_int)),
                }
            }
        }
        done => done,
    }
}

/// A list of one buffer.
fn one(buf: *const c_void, len: size_t) -> iovec {
    iovec {
        iov_base: buf.cast_mut(),
        iov_len: len,
    }
}

/// The buffers of a call.
fn buffers(list: *const iovec, count: c_int) -> Buffers {
    Buffers {
        list,
        // A negative count is refused by the original.
        count: usize::try_from(count).unwrap_or(usize::MAX),
    }
}

/// The buffer of a call that has one.
fn one_buffer(list: &iovec) -> Buffers {
    let count = match list.iov_len {
        0 => 0,
        // So long a buffer is refused by the original, for another reason than in a list.
        len if isize::try_from(len).is_err() => usize::MAX,
        _ => 1,
    };
    Buffers { list, count }
}

pub(super) unsafe fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    let list = one(buf, len);
    // SAFETY: the caller's.
    unsafe { read_into(fd, one_buffer(&list), || original::read(fd, buf, len)) }
}

pub(super) unsafe fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        match len > room {
            // The original reports the overflow.
            true => original::__read_chk(fd, buf, len, room),
            false => read(fd, buf, len),
        }
    }
}

pub(super) unsafe fn readv(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        read_into(fd, buffers(bufs, count), || {
            original::readv(fd, bufs, count)
        })
    }
}

pub(super) unsafe fn preadv2(
    fd: c_int,
    bufs: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        match (offset, flags) {
            (OWN_POSITION, 0) => readv(fd, bufs, count),
            _ => original::preadv2(fd, bufs, count, offset, flags),
        }
    }
}

pub(super) use preadv2 as preadv64v2;

pub(super) unsafe fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    let list = one(buf, len);
    // SAFETY: the caller's.
    unsafe { write_from(fd, one_buffer(&list), || original::write(fd, buf, len)) }
}

pub(super) unsafe fn writev(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        write_from(fd, buffers(bufs, count), || {
            original::writev(fd, bufs, count)
        })
    }
}

pub(super) unsafe fn pwritev2(
    fd: c_int,
    bufs: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        match (offset, flags) {
            (OWN_POSITION, 0) => writev(fd, bufs, count),
            _ => original::pwritev2(fd, bufs, count, offset, flags),
        }
    }
}

pub(super) use pwritev2 as pwritev64v2;
