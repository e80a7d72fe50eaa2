//! Connecting and accepting.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rustix::net::AddressFamily;
use rustix::net::sockopt::Timeout;

use super::descriptor;
use super::errno::{self, Errno, answer, result};
use super::kernel;
use super::original;
use super::types::*;
use super::wait::{read_at_once, spend_operation, until, until_by_pauses};
use crate::reactor::Interest;
use crate::sys::mode_turn::ModeTurn;
use crate::task;

/// The families whose datagram sockets are connected at once.
const WITHOUT_HANDSHAKE: [AddressFamily; 3] = [
    AddressFamily::INET,
    AddressFamily::INET6,
    AddressFamily::UNIX,
];

/// connect(2) has no flag like `MSG_DONTWAIT`. So the socket is in non-blocking mode during the call.
pub(super) unsafe fn connect(fd: c_int, to: *const sockaddr, to_len: socklen_t) -> c_int {
    answer(|| {
        // SAFETY: the caller's.
        let attempt = || result(unsafe { original::connect(fd, to, to_len) });
        if descriptor::is_nonblocking(fd)? {
            return read_at_once(attempt());
        }
        spend_operation();
        // It does not wait. Others may use the socket already.
        if descriptor::is_socket_of(fd, libc::SOCK_DGRAM, &WITHOUT_HANDSHAKE) {
            return attempt();
        }
        let attempt = || in_nonblocking_mode(fd, attempt)?;
        match attempt() {
            // A Unix listener whose queue is full. No event tells when there is room.
            Err(Errno::AGAIN) => {
                until_by_pauses(fd, descriptor::deadline(fd, Timeout::Send)?, attempt)
            }
            // On its way, perhaps since an earlier call.
            Err(begun @ (Errno::INPROGRESS | Errno::ALREADY)) => {
                let deadline = descriptor::deadline(fd, Timeout::Send)?;
                match until(fd, Interest::WRITABLE, deadline, || end_of(fd, attempt)) {
                    Err(Errno::AGAIN) => Err(begun),
                    done => done,
                }
            }
            done => done,
        }
    })
}

/// Calls `f` while the descriptor is in non-blocking mode. Others may have set that mode since the last look, so the
/// descriptor is asked for it each time.
fn in_nonblocking_mode<R>(fd: RawFd, f: impl FnOnce() -> R) -> Result<R, Errno> {
    let flags = kernel::flags(fd)?;
    if flags & libc::O_NONBLOCK != 0 {
        return Ok(f());
    }
    let set = |flags: c_int| {
        // SAFETY: `F_SETFL` takes any numbers.
        result(unsafe { original::fcntl(fd, libc::F_SETFL, flags as usize) })
    };
    set(flags | libc::O_NONBLOCK)?;
    let done = f();
    // This cannot fail: the mode of the same descriptor was just set.
    let _ = set(flags);
    Ok(done)
}

/// What has become of a connection that is on its way. Another attempt tells. After a failure, only that makes the
/// socket as if nothing had been tried.
///
/// # Errors
///
/// `EAGAIN`, if it is still on its way. Otherwise why there is no connection.
fn end_of(fd: RawFd, attempt: impl FnOnce() -> Result<c_int, Errno>) -> Result<c_int, Errno> {
    if descriptor::events(fd, libc::POLLOUT)? == 0 {
        return Err(Errno::AGAIN);
    }
    match attempt() {
        Err(Errno::INPROGRESS | Errno::ALREADY) => Err(Errno::AGAIN),
        // Not all protocols tell the attempt that completes the connection from later ones.
        Err(Errno::ISCONN) => Ok(0),
        done => done,
    }
}

pub(super) unsafe fn accept(fd: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's.
    accept_by(fd, || unsafe { original::accept(fd, from, from_len) })
}

pub(super) unsafe fn accept4(
    fd: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's.
    let accept = || unsafe { original::accept4(fd, from, from_len, flags) };
    match flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
        0 => accept_by(fd, accept),
        // The original refuses it at once.
        _ => accept(),
    }
}

/// Accepts by the function `accept`, which blocks if the listener is in blocking mode.
fn accept_by(fd: c_int, accept: impl Fn() -> c_int) -> c_int {
    if !task::on_coroutine() {
        return accept_on_thread(fd, accept);
    }
    answer(|| {
        if !descriptor::is_listening(fd) || is_left_nonblocking(fd)? {
            return read_at_once(result(accept()));
        }
        spend_operation();
        match try_to_accept(fd, &accept) {
            Err(Errno::AGAIN) => {
                let deadline = descriptor::deadline(fd, Timeout::Recv)?;
                until(fd, Interest::READABLE, deadline, || {
                    try_to_accept(fd, &accept)
                })
            }
            done => done,
        }
    })
}

/// Accepts a connection, if that does not block.
///
/// A connection that a poll reports may be taken by somebody else first: by another thread, or by any process that has
/// the listener. So the listener is in non-blocking mode during the attempt. A turn keeps the attempts apart. See
/// `sys/mode_turn.rs`.
fn try_to_accept(fd: RawFd, accept: impl Fn() -> c_int) -> Result<c_int, Errno> {
    if descriptor::events(fd, libc::POLLIN)? == 0 {
        return Err(Errno::AGAIN);
    }
    let _turn = turn(fd)?;
    match in_nonblocking_mode(fd, || result(accept()))? {
        // In that mode, a Unix socket does not tell. This does not wait.
        Err(Errno::AGAIN) if descriptor::is_shut_down(fd)? => result(accept()),
        done => done,
    }
}

/// The turn at the mode of a listener, which other processes may have, too.
fn turn<'fd>(fd: RawFd) -> Result<ModeTurn<'fd>, Errno> {
    Ok(ModeTurn::take_among_processes(descriptor::borrowed(fd)?))
}

/// Whether the user has set the non-blocking mode of a listener, which is not that of an attempt.
fn is_left_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    if !descriptor::is_nonblocking(fd)? {
        return Ok(false);
    }
    let _turn = turn(fd)?;
    descriptor::is_nonblocking(fd)
}

/// Accepts a connection on an OS thread.
fn accept_on_thread(fd: RawFd, accept: impl Fn() -> c_int) -> c_int {
    let begin = Instant::now();
    let accepted = accept();
    if accepted != -1 || errno::get() != libc::EAGAIN {
        return accepted;
    }
    answer(|| {
        let mut accepted = result(accepted);
        let waited = begin.elapsed();
        let deadline =
            descriptor::deadline(fd, Timeout::Recv)?.map(|from_now| from_now.at - waited);
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // A coroutine, perhaps of another process, has set non-blocking mode for its attempt.
        while accepted == Err(Errno::AGAIN)
            && left() != Some(Duration::ZERO)
            && !is_left_nonblocking(fd)?
        {
            descriptor::block(&[(fd, libc::POLLIN)], left())?;
            // The call would wait as long again.
            if descriptor::events(fd, libc::POLLIN)? != 0 {
                accepted = result(accept());
            }
        }
        accepted
    })
}
