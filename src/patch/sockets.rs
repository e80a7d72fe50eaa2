//! Sending and receiving.
//!
//! Each attempt passes `MSG_DONTWAIT`. Only if it would block is the kernel asked whether the user has set
//! non-blocking mode or a timeout.

use std::os::fd::RawFd;

use rustix::net::sockopt::Timeout;

use super::descriptor;
use super::errno::{self, Errno, answer, result};
use super::original;
use super::time::duration_of;
use super::transfer::{Buffers, Transfer};
use super::types::*;
use super::wait::{Borrowed, on_pool, spend_operation};
use crate::reactor::Interest;
use crate::task::Deadline;

fn receiving(fd: RawFd, flags: c_int) -> Transfer {
    let interest = match flags & libc::MSG_OOB {
        0 => Interest::READABLE,
        _ => Interest::PRIORITY,
    };
    Transfer {
        fd,
        interest,
        timeout: Timeout::Recv,
    }
}

fn sending(fd: RawFd) -> Transfer {
    Transfer {
        fd,
        interest: Interest::WRITABLE,
        timeout: Timeout::Send,
    }
}

/// How a call with these flags waits.
enum Waits {
    /// Not at all.
    Never,
    /// Until it can move something.
    ForSome,
    /// Until it has moved everything.
    ForAll,
    /// As the kernel's own call does, on a thread of the pool.
    OnPool,
}

fn waits(flags: c_int) -> Waits {
    if flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) != 0 {
        return Waits::Never;
    }
    match (flags & libc::MSG_WAITALL != 0, flags & libc::MSG_PEEK != 0) {
        (false, _) => Waits::ForSome,
        (true, false) => Waits::ForAll,
        // No event tells that there is as much as was asked for.
        (true, true) => Waits::OnPool,
    }
}

/// Receives. `attempt` is passed flags, and the number of bytes that were received so far. `asked` is the
/// number of bytes in the buffers.
fn receive(
    fd: RawFd,
    flags: c_int,
    attempt: impl Fn(c_int, usize) -> ssize_t + Sync,
    asked: impl Fn() -> usize,
) -> ssize_t {
    spend_operation();
    let waits = waits(flags);
    let at_once = |received| result(attempt(flags | libc::MSG_DONTWAIT, received));
    answer(|| match waits {
        Waits::Never => result(attempt(flags, 0)),
        Waits::ForSome => receiving(fd, flags).once(|| at_once(0)),
        Waits::ForAll => receiving(fd, flags).all(at_once, |received, last| {
            let is_stream = || descriptor::socket_type(fd) == Ok(libc::SOCK_STREAM);
            last == 0 || received >= asked() || !is_stream()
        }),
        Waits::OnPool => on_pool(|| result(attempt(flags, 0))),
    })
}

/// Sends. `attempt` is passed flags, and the number of bytes that were sent so far. `asked` is the number of
/// bytes in the buffers.
fn transmit(
    fd: RawFd,
    flags: c_int,
    attempt: impl Fn(c_int, usize) -> ssize_t,
    asked: impl Fn() -> usize,
) -> ssize_t {
    if flags & libc::MSG_DONTWAIT != 0 {
        return attempt(flags, 0);
    }
    let at_once = |sent| {
        // The kernel's own call raises no signal after it has sent a part.
        let quiet = if sent > 0 { libc::MSG_NOSIGNAL } else { 0 };
        result(attempt(flags | libc::MSG_DONTWAIT | quiet, sent))
    };
    answer(|| sending(fd).all(at_once, |sent, _| sent >= asked()))
}

pub(super) unsafe fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's. What was received so far is at the beginning of the buffer.
    unsafe { recvfrom(fd, buf, len, flags, null_mut(), null_mut()) }
}

pub(super) unsafe fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let lent = Borrowed((buf, from, from_len));
    let attempt = move |flags, received: usize| {
        let Borrowed((buf, from, from_len)) = { lent };
        // SAFETY: the caller's. What was received so far lies at the beginning of the buffer.
        unsafe {
            original::recvfrom(
                fd,
                buf.wrapping_byte_add(received),
                len.wrapping_sub(received),
                flags,
                from,
                from_len,
            )
        }
    };
    receive(fd, flags, attempt, || len)
}

pub(super) unsafe fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        match len > room {
            // The original reports the overflow.
            true => original::__recv_chk(fd, buf, len, room, flags),
            false => recv(fd, buf, len, flags),
        }
    }
}

pub(super) unsafe fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's.
    unsafe {
        match len > room {
            // The original reports the overflow.
            true => original::__recvfrom_chk(fd, buf, len, room, flags, from, from_len),
            false => recvfrom(fd, buf, len, flags, from, from_len),
        }
    }
}

pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let lent = Borrowed(message);
    let attempt = move |flags, received: usize| {
        let Borrowed(message) = { lent };
        if received == 0 {
            // SAFETY: the caller's.
            return unsafe { original::recvmsg(fd, message, flags) };
        }
        // SAFETY: the kernel has accepted the message, and filled it.
        let (mut rest, bufs) = unsafe { (*message, buffers(message)) };
        rest.msg_control = null_mut();
        rest.msg_controllen = 0;
        // SAFETY: the kernel has accepted the list, and received so many bytes into it.
        unsafe {
            bufs.after(received, |list, count| {
                rest.msg_iov = list.cast_mut();
                rest.msg_iovlen = count;
                original::recvmsg(fd, &raw mut rest, flags)
            })
        }
    };
    // SAFETY: asked after the kernel has accepted the message.
    receive(fd, flags, attempt, || unsafe { buffers(lent.0).len() })
}

pub(super) unsafe fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's.
    unsafe { sendto(fd, buf, len, flags, null(), 0) }
}

pub(super) unsafe fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    spend_operation();
    let attempt = |flags, sent: usize| {
        // SAFETY: the caller's. What was sent so far lies at the beginning of the buffer.
        unsafe {
            original::sendto(
                fd,
                buf.wrapping_byte_add(sent),
                len.wrapping_sub(sent),
                flags,
                to,
                to_len,
            )
        }
    };
    transmit(fd, flags, attempt, || len)
}

pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    spend_operation();
    // SAFETY: the caller's.
    unsafe { sendmsg_uncounted(fd, message, flags) }
}

unsafe fn sendmsg_uncounted(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let attempt = |flags, sent: usize| {
        if sent == 0 {
            // SAFETY: the caller's.
            return unsafe { original::sendmsg(fd, message, flags) };
        }
        // SAFETY: the kernel has accepted the message.
        let (mut rest, bufs) = unsafe { (*message, buffers(message)) };
        rest.msg_control = null_mut();
        rest.msg_controllen = 0;
        // SAFETY: the kernel has accepted the list, and sent so many of its bytes.
        unsafe {
            bufs.after(sent, |list, count| {
                rest.msg_iov = list.cast_mut();
                rest.msg_iovlen = count;
                original::sendmsg(fd, &raw const rest, flags)
            })
        }
    };
    // SAFETY: asked after the kernel has accepted the message.
    transmit(fd, flags, attempt, || unsafe { buffers(message).len() })
}

/// The buffers of a message.
///
/// # Safety
///
/// The kernel has accepted the message, so it is one.
unsafe fn buffers(message: *const msghdr) -> Buffers {
    // SAFETY: the caller's.
    unsafe {
        Buffers {
            list: (*message).msg_iov,
            count: (*message).msg_iovlen,
        }
    }
}

/// A message for buffers alone.
fn message_of(bufs: Buffers) -> msghdr {
    msghdr {
        msg_iov: bufs.list.cast_mut(),
        msg_iovlen: bufs.count,
        // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
        ..unsafe { std::mem::zeroed() }
    }
}

/// Reads from a socket.
///
/// # Safety
///
/// As readv(2).
pub(super) unsafe fn read(fd: c_int, bufs: Buffers) -> Result<ssize_t, Errno> {
    receiving(fd, 0).once(|| {
        let mut message = message_of(bufs);
        // SAFETY: the caller's.
        result(unsafe { original::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) })
    })
}

/// Writes to a socket.
///
/// # Safety
///
/// As writev(2).
pub(super) unsafe fn write(fd: c_int, bufs: Buffers) -> Result<ssize_t, Errno> {
    let message = message_of(bufs);
    // SAFETY: the caller's.
    match unsafe { sendmsg_uncounted(fd, &raw const message, 0) } {
        -1 => Err(Errno::from_raw_os_error(errno::get())),
        written => Ok(written),
    }
}

pub(super) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if matches!(waits(flags), Waits::Never) {
        spend_operation();
        // SAFETY: the caller's.
        return unsafe { original::recvmmsg(fd, messages, count, flags, timeout) };
    }
    // SAFETY: the caller's: null, or a valid time. Like the kernel, the time is looked at after each message.
    let timeout = unsafe { timeout.as_ref() };
    let deadline = timeout.and_then(|timeout| Deadline::after(duration_of(timeout)?));
    let mut flags_of_next = flags & !libc::MSG_WAITFORONE;
    for received in 0..count {
        let message = messages.wrapping_add(received as usize);
        // SAFETY: the caller's: there are so many messages.
        let len = unsafe { recvmsg(fd, &raw mut (*message).msg_hdr, flags_of_next) };
        if len < 0 {
            return match received {
                0 => -1,
                received => received as c_int,
            };
        }
        // SAFETY: the caller's.
        unsafe { (*message).msg_len = len as c_uint };
        if flags & libc::MSG_WAITFORONE != 0 {
            flags_of_next |= libc::MSG_DONTWAIT;
        }
        if deadline.is_some_and(|deadline| deadline.at <= std::time::Instant::now()) {
            return received as c_int + 1;
        }
    }
    count as c_int
}

pub(super) unsafe fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    for sent in 0..count {
        let message = messages.wrapping_add(sent as usize);
        // SAFETY: the caller's: there are so many messages.
        let len = unsafe { sendmsg(fd, &raw const (*message).msg_hdr, flags) };
        if len < 0 {
            return match sent {
                0 => -1,
                sent => sent as c_int,
            };
        }
        // SAFETY: the caller's.
        unsafe { (*message).msg_len = len as c_uint };
    }
    count as c_int
}
