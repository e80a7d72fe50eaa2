//! Reading and writing through any descriptor.
//!
//! An attempt is made with `RWF_NOWAIT`, or with `MSG_DONTWAIT` on a socket. Where the kernel knows neither, a poll
//! tells whether the call would block; another reader or writer may then still be faster. A terminal that has room may
//! have it for a part only, and a part of a write would be another message to some devices. So a thread of the pool
//! writes to these. Regular files are read and written as without the patch. So are the descriptors 0, 1 and 2: std holds
//! a lock of its own around them, which counts by OS thread.

use rustix::net::sockopt::Timeout;

use super::caller;
use super::descriptor;
use super::errno::{Errno, answer, result};
use super::original;
use super::sockets;
use super::transfer::{Buffers, MOST, Transfer};
use super::types::*;
use super::wait::{Borrowed, on_pool_waiting, spend_operation_on};
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
        let writing = writing(fd);
        match kind(fd)? {
            None => result(block()),
            Some(Kind::Other) => {
                // SAFETY: the caller's.
                let written = writing.once(|| unsafe { try_to_write_all(fd, bufs) })?;
                written.map_or_else(
                    || {
                        let lent = Borrowed(block);
                        on_pool_waiting(move || {
                            let Borrowed(block) = { lent };
                            result(block())
                        })
                    },
                    Ok,
                )
            }
            Some(kind) => writing.all(
                // SAFETY: the caller's. The kernel has read the list if anything was written.
                |written| unsafe {
                    bufs.after(written, |list, count| match kind {
                        Kind::Socket if written > 0 => {
                            sockets::try_to_write(fd, Buffers { list, count }, written)
                        }
                        _ => try_to_write(fd, &kind, Buffers { list, count }),
                    })
                },
                // SAFETY: the caller's.
                |written, _| unsafe { written >= bufs.len() },
                || true,
            ),
        }
    })
}

fn writing(fd: c_int) -> Transfer {
    Transfer {
        fd,
        interest: Interest::WRITABLE,
        timeout: Timeout::Send,
    }
}

/// Makes an attempt to write. `None`, if the kernel knows no attempt on this descriptor.
///
/// # Safety
///
/// As writev(2).
unsafe fn attempt_to_write(fd: c_int, bufs: Buffers) -> Result<Option<ssize_t>, Errno> {
    let count = bufs.count as c_int;
    // SAFETY: the caller's.
    let tried = unsafe { original::pwritev2(fd, bufs.list, count, OWN_POSITION, NOWAIT) };
    match result(tried) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        done => done.map(Some),
    }
}

/// Makes an attempt to write to a socket or a pipe.
///
/// # Safety
///
/// As writev(2).
unsafe fn try_to_write(fd: c_int, kind: &Kind, bufs: Buffers) -> Result<ssize_t, Errno> {
    // SAFETY: the caller's.
    if let Some(written) = unsafe { attempt_to_write(fd, bufs) }? {
        return Ok(written);
    }
    if matches!(kind, Kind::Socket) {
        // SAFETY: the caller's.
        return unsafe { sockets::try_to_write(fd, bufs, 0) };
    }
    let is_nonblocking = descriptor::is_nonblocking(fd)?;
    if !is_nonblocking {
        descriptor::check_writable(fd)?;
    }
    // SAFETY: the caller's. The list is not empty, and the kernel has read it.
    unsafe {
        let first = bufs.as_slice().iter().find(|buf| buf.iov_len > 0);
        match first.filter(|_| !is_nonblocking && bufs.len() > libc::PIPE_BUF) {
            // A pipe that reports room has it for so much.
            Some(first) => {
                let len = first.iov_len.min(libc::PIPE_BUF);
                result(original::write(fd, first.iov_base, len))
            }
            None => result(original::writev(fd, bufs.list, bufs.count as c_int)),
        }
    }
}

/// Makes an attempt to write to a terminal, an eventfd and so on. `None`, if there is room, but perhaps not for
/// everything.
///
/// # Safety
///
/// As writev(2).
unsafe fn try_to_write_all(fd: c_int, bufs: Buffers) -> Result<Option<ssize_t>, Errno> {
    // SAFETY: the caller's.
    if let Some(written) = unsafe { attempt_to_write(fd, bufs) }? {
        return Ok(Some(written));
    }
    if !descriptor::is_nonblocking(fd)? {
        descriptor::check_writable(fd)?;
        // SAFETY: the kernel has read the list.
        if !unsafe { adds_one(bufs) } {
            return Ok(None);
        }
    }
    // SAFETY: the caller's.
    result(unsafe { original::writev(fd, bufs.list, bufs.count as c_int) }).map(Some)
}

/// Whether such a write adds no more than one to an eventfd. One that reports room has it for so much.
///
/// # Safety
///
/// The kernel has accepted the list.
unsafe fn adds_one(bufs: Buffers) -> bool {
    // SAFETY: the caller's.
    let [number] = (unsafe { bufs.as_slice() }) else {
        return false;
    };
    if number.iov_len != 8 {
        return false;
    }
    // SAFETY: any bytes are valid. The memory may not be there.
    let number = unsafe { caller::read(number.iov_base.cast::<[u8; 8]>()) };
    matches!(number, Ok(Some(number)) if u64::from_ne_bytes(number) <= 1)
}

/// Writes no bytes. A datagram socket sends that.
///
/// # Safety
///
/// As write(2).
unsafe fn write_nothing(fd: c_int, block: impl Fn() -> ssize_t) -> ssize_t {
    if fd <= libc::STDERR_FILENO || !matches!(kind(fd), Ok(Some(Kind::Socket))) {
        return block();
    }
    let nothing = Buffers {
        list: null(),
        count: 0,
    };
    // SAFETY: the caller's. The list is empty.
    answer(|| writing(fd).once(|| unsafe { sockets::try_to_write(fd, nothing, 0) }))
}

/// A list of one buffer, of which the kernel moves no more at once.
fn one(buf: *const c_void, len: size_t) -> iovec {
    iovec {
        iov_base: buf.cast_mut(),
        iov_len: len.min(MOST),
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

/// The buffer of a call that has one, of `len` bytes.
fn one_buffer(list: &iovec, len: size_t) -> Buffers {
    let count = match len {
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
    unsafe { read_into(fd, one_buffer(&list, len), || original::read(fd, buf, len)) }
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
    let block = || unsafe { original::write(fd, buf, len) };
    // SAFETY: the caller's.
    unsafe {
        match len {
            0 => write_nothing(fd, block),
            _ => write_from(fd, one_buffer(&list, len), block),
        }
    }
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
