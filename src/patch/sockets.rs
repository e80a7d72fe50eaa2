//! Sending and receiving.
//!
//! Each attempt passes `MSG_DONTWAIT`. Only if it would block is the kernel asked whether the user has set
//! non-blocking mode or a timeout.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::Instant;

use rustix::net::AddressFamily;
use rustix::net::sockopt::Timeout;

use super::caller;
use super::descriptor;
use super::errno::{Errno, answer, result};
use super::kernel;
use super::original;
use super::time::{duration_of, timespec_of};
use super::transfer::{Buffers, MOST, Transfer, after_part};
use super::types::*;
use super::wait::{Borrowed, on_pool, read_at_once, spend_operation_on};
use crate::reactor::Interest;

#[inline(always)]
fn receiving(fd: RawFd) -> Transfer {
    Transfer {
        fd,
        interest: Interest::READABLE,
        timeout: Timeout::Recv,
    }
}

#[inline(always)]
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
    /// Until everything is there.
    ToSeeAll,
}

#[inline(always)]
fn waits(flags: c_int) -> Waits {
    // The kernel waits neither for errors nor for urgent data.
    if flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB) != 0 {
        return Waits::Never;
    }
    match (flags & libc::MSG_WAITALL != 0, flags & libc::MSG_PEEK != 0) {
        (false, _) => Waits::ForSome,
        (true, false) => Waits::ForAll,
        (true, true) => Waits::ToSeeAll,
    }
}

/// Receives. `attempt` is passed flags, and the number of bytes that were received so far. `asked` is the
/// number of bytes in the buffers.
#[inline(always)]
fn receive(
    fd: RawFd,
    flags: c_int,
    attempt: impl Fn(c_int, usize) -> ssize_t,
    asked: impl Fn() -> usize,
) -> ssize_t {
    let at_once = |received| {
        leave_error(fd, received)?;
        result(attempt(flags | libc::MSG_DONTWAIT, received))
    };
    let is_all = |received, last| {
        let is_stream = || descriptor::socket_type(fd) == Ok(libc::SOCK_STREAM);
        last == 0 || received >= asked() || !is_stream()
    };
    let waits = waits(flags);
    answer(|| {
        if !matches!(waits, Waits::Never) {
            spend_operation_on(fd);
        }
        match waits {
            Waits::Never => read_at_once(result(attempt(flags, 0))),
            Waits::ForSome => {
                match receiving(fd).once_or_end(|| at_once(0), || result(attempt(flags, 0))) {
                    // A wait of TCP for no bytes ends without an error.
                    Err(Errno::AGAIN)
                        if asked() == 0 && is_tcp(fd) && !descriptor::is_nonblocking(fd)? =>
                    {
                        Ok(0)
                    }
                    done => done,
                }
            }
            Waits::ForAll => receiving(fd).all(at_once, is_all, || true),
            Waits::ToSeeAll => {
                let seen = Cell::new(0);
                let look = || {
                    let has_ended = has_ended(fd)?;
                    seen.set(at_once(0)?);
                    match has_ended || is_all(seen.get() as usize, seen.get()) {
                        true => Ok(seen.get()),
                        false => Err(Errno::AGAIN),
                    }
                };
                let all = receiving(fd).once(look);
                all.or_else(|error| after_part(seen.get(), error))
            }
        }
    })
}

fn is_tcp(fd: RawFd) -> bool {
    let families = [AddressFamily::INET, AddressFamily::INET6];
    descriptor::is_socket_of(fd, libc::SOCK_STREAM, &families)
}

/// Whether no more will come from a socket than is there.
fn has_ended(fd: RawFd) -> Result<bool, Errno> {
    let signs = libc::POLLRDHUP | libc::POLLHUP;
    Ok(descriptor::events(fd, libc::POLLRDHUP)? & signs != 0)
}

/// Fails if something was moved, and the socket has an error. As with the kernel's own call, the error is left for
/// the next call.
#[inline(always)]
fn leave_error(fd: RawFd, moved: usize) -> Result<(), Errno> {
    match moved > 0 && has_error(fd)? {
        // It is not told.
        true => Err(Errno::IO),
        false => Ok(()),
    }
}

/// Whether a socket has an error. A stream with an error hangs up, too: what is reported without that is a message in
/// its error queue, such as a timestamp.
#[cold]
fn has_error(fd: RawFd) -> Result<bool, Errno> {
    let events = descriptor::events(fd, 0)?;
    let is_hung_up = || events & libc::POLLHUP != 0;
    let is_stream = || descriptor::socket_type(fd) == Ok(libc::SOCK_STREAM);
    Ok(events & libc::POLLERR != 0 && (is_hung_up() || !is_stream()))
}

/// The flag for an attempt after so many bytes: the kernel's own call raises no signal after it has sent a part.
fn quiet_after(sent: usize) -> c_int {
    if sent > 0 { libc::MSG_NOSIGNAL } else { 0 }
}

/// Sends. `attempt` is passed flags, and the number of bytes that were sent so far. `asked` is the number of
/// bytes in the buffers, and `is_addressed` tells whether the call names a receiver.
#[inline(always)]
fn transmit(
    fd: RawFd,
    flags: c_int,
    attempt: impl Fn(c_int, usize) -> ssize_t,
    asked: impl Fn() -> usize,
    is_addressed: impl Fn() -> bool,
) -> ssize_t {
    if flags & libc::MSG_DONTWAIT != 0 {
        return attempt(flags, 0);
    }
    let has_begun_connection = Cell::new(false);
    let at_once = |sent| {
        leave_error(fd, sent)?;
        let flags = match sent > 0 || has_begun_connection.get() {
            true => flags & !libc::MSG_FASTOPEN,
            false => flags,
        };
        let flags = flags | libc::MSG_DONTWAIT | quiet_after(sent);
        match result(attempt(flags, sent)) {
            // Of TCP Fast Open. The socket has room when it is connected.
            Err(Errno::INPROGRESS) => {
                has_begun_connection.set(true);
                Err(Errno::AGAIN)
            }
            done => done,
        }
    };
    let has_events = || {
        // The socket tells when its own peer has room, but not when another Unix socket has.
        let may_be_full = [AddressFamily::UNIX];
        !is_addressed() || !descriptor::is_socket_of(fd, libc::SOCK_DGRAM, &may_be_full)
    };
    // The kernel tells by numbers, one for each call, which buffers may be used again. So a call is one for the kernel.
    let sends_once = flags & libc::MSG_ZEROCOPY != 0;
    let is_all = |sent, _| sends_once || sent >= asked();
    answer(|| {
        spend_operation_on(fd);
        match sending(fd).all(at_once, is_all, has_events) {
            Err(Errno::AGAIN) if has_begun_connection.get() => Err(Errno::INPROGRESS),
            done => done,
        }
    })
}

#[inline(always)]
pub(super) unsafe fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's. What was received so far is at the beginning of the buffer.
    unsafe { recvfrom(fd, buf, len, flags, null_mut(), null_mut()) }
}

#[inline(always)]
pub(super) unsafe fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let len = len.min(MOST);
    let attempt = |flags, received: usize| {
        // SAFETY: the caller's. What was received so far lies at the beginning of the buffer.
        unsafe {
            kernel::recvfrom(
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

#[inline(always)]
pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // The kernel changes it. A message that is not there is refused by the attempt.
    let room_for_control = match waits(flags) {
        // SAFETY: the caller's.
        Waits::ForAll => unsafe { caller::read(message) }.ok().flatten(),
        _ => None,
    };
    let room_for_control = room_for_control.map_or(0, |message| message.msg_controllen);
    let attempt = |flags, received: usize| {
        if received == 0 {
            // SAFETY: the caller's.
            return unsafe { kernel::recvmsg(fd, message, flags) };
        }
        // SAFETY: the kernel has accepted the message, and filled it.
        let (mut rest, bufs) = unsafe { (*message, buffers(message)) };
        let has_come = rest.msg_controllen;
        rest.msg_control = rest.msg_control.wrapping_byte_add(has_come);
        rest.msg_controllen = room_for_control.saturating_sub(has_come);
        // SAFETY: the kernel has accepted the list, and received so many bytes into it.
        let last = unsafe {
            bufs.after(received, |list, count| {
                rest.msg_iov = list.cast_mut();
                rest.msg_iovlen = count;
                kernel::recvmsg(fd, &raw mut rest, flags)
            })
        };
        if last != -1 {
            // SAFETY: as above.
            unsafe {
                (*message).msg_controllen = has_come + rest.msg_controllen;
                (*message).msg_flags |= rest.msg_flags;
            }
        }
        last
    };
    // SAFETY: asked after the kernel has filled the message.
    let asked = || unsafe {
        match brings_descriptors(message) {
            true => 0,
            false => buffers(message).len(),
        }
    };
    receive(fd, flags, attempt, asked)
}

/// Whether descriptors have come with a message. The kernel receives nothing into it after that.
///
/// # Safety
///
/// The kernel has filled the message.
unsafe fn brings_descriptors(message: *const msghdr) -> bool {
    // SAFETY: the caller's. The headers are walked as the C library does it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(libc::cmsghdr {
            cmsg_level,
            cmsg_type,
            ..
        }) = header.as_ref()
        {
            if (*cmsg_level, *cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                return true;
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    false
}

#[inline(always)]
pub(super) unsafe fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's.
    unsafe { sendto(fd, buf, len, flags, null(), 0) }
}

#[inline(always)]
pub(super) unsafe fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    let len = len.min(MOST);
    let attempt = |flags, sent: usize| {
        // SAFETY: the caller's. What was sent so far lies at the beginning of the buffer.
        unsafe {
            kernel::sendto(
                fd,
                buf.wrapping_byte_add(sent),
                len.wrapping_sub(sent),
                flags,
                to,
                to_len,
            )
        }
    };
    transmit(fd, flags, attempt, || len, || !to.is_null())
}

#[inline(always)]
pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let attempt = |flags, sent: usize| {
        if sent == 0 {
            // SAFETY: the caller's.
            return unsafe { kernel::sendmsg(fd, message, flags) };
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
                kernel::sendmsg(fd, &raw const rest, flags)
            })
        }
    };
    // SAFETY: asked after the kernel has accepted the message.
    let asked = || unsafe { buffers(message).len() };
    // SAFETY: as above.
    let is_addressed = || unsafe { !(*message).msg_name.is_null() };
    transmit(fd, flags, attempt, asked, is_addressed)
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

/// Makes an attempt to read from a socket.
///
/// # Safety
///
/// As readv(2).
pub(super) unsafe fn try_to_read(fd: c_int, bufs: Buffers) -> Result<ssize_t, Errno> {
    let mut message = message_of(bufs);
    // SAFETY: the caller's.
    result(unsafe { kernel::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) })
}

/// Makes an attempt to write to a socket, after `written` bytes.
///
/// # Safety
///
/// As writev(2).
pub(super) unsafe fn try_to_write(
    fd: c_int,
    bufs: Buffers,
    written: usize,
) -> Result<ssize_t, Errno> {
    leave_error(fd, written)?;
    let message = message_of(bufs);
    let flags = libc::MSG_DONTWAIT | quiet_after(written);
    // SAFETY: the caller's.
    result(unsafe { kernel::sendmsg(fd, &raw const message, flags) })
}

pub(super) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let lent = Borrowed((messages, timeout));
    let call = || {
        let Borrowed((messages, timeout)) = { lent };
        // SAFETY: the caller's. It waits.
        result(unsafe { original::recvmmsg(fd, messages, count, flags, timeout) })
    };
    answer(|| match waits(flags) {
        _ if count == 0 => call(),
        Waits::Never => read_at_once(call()),
        Waits::ForSome => {
            spend_operation_on(fd);
            // SAFETY: the caller's.
            unsafe { receive_many(fd, messages, count, flags, timeout) }
        }
        // Streams, of which several messages are cut. There is hardly a program that does this.
        Waits::ForAll | Waits::ToSeeAll => on_pool(call),
    })
}

/// Receives messages until there are `count`, or the time is over. Like the kernel, this looks at the time after
/// each message.
///
/// # Safety
///
/// As recvmmsg(2).
unsafe fn receive_many(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's.
    let limit = match unsafe { caller::read(timeout) }? {
        None => None,
        Some(limit) => Some(duration_of(&limit).ok_or(Errno::INVAL)?),
    };
    let begin = Instant::now();
    let left = || limit.map(|limit| limit.saturating_sub(begin.elapsed()));
    let mut received: c_uint = 0;
    let result = loop {
        let some = receiving(fd).once(|| {
            leave_error(fd, received as usize)?;
            let mut left = left().map(timespec_of);
            let left = left.as_mut().map_or(null_mut(), |left| &raw mut *left);
            let next = messages.wrapping_add(received as usize);
            let flags = flags | libc::MSG_DONTWAIT;
            // SAFETY: the caller's: there are so many messages.
            result(unsafe { original::recvmmsg(fd, next, count - received, flags, left) })
        });
        match some {
            Ok(some) => received += some as c_uint,
            Err(error) => break after_part(received as c_int, error),
        }
        let is_over = || left().is_some_and(|left| left.is_zero());
        if received == count || flags & libc::MSG_WAITFORONE != 0 || is_over() {
            break Ok(received as c_int);
        }
    };
    if let (Ok(_), Some(left)) = (result, left()) {
        // SAFETY: the caller's. The pointer is not null, since there is a limit.
        unsafe { *timeout = timespec_of(left) };
    }
    result
}

pub(super) unsafe fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if count == 0 {
        // SAFETY: the caller's.
        return unsafe { original::sendmmsg(fd, messages, count, flags) };
    }
    // The kernel takes no more at once.
    let count = count.min(libc::UIO_MAXIOV as c_uint);
    answer(|| {
        for sent in 0..count {
            let message = messages.wrapping_add(sent as usize);
            // SAFETY: the caller's: there are so many messages.
            let len = result(unsafe { sendmsg(fd, &raw const (*message).msg_hdr, flags) });
            match len {
                Ok(len) => {
                    // SAFETY: the caller's.
                    let all = unsafe {
                        (*message).msg_len = len as c_uint;
                        buffers(&raw const (*message).msg_hdr).len()
                    };
                    // What comes behind a part of a message would be taken for its rest.
                    if (len as usize) < all {
                        return Ok(sent as c_int + 1);
                    }
                }
                Err(error) => return after_part(sent as c_int, error),
            }
        }
        Ok(count as c_int)
    })
}
