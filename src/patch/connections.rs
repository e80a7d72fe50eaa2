//! Connecting and accepting.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::sys::fork;
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
        let flags = kernel::flags(fd)?;
        // SAFETY: the caller's.
        let attempt = || result(unsafe { original::connect(fd, to, to_len) });
        if flags & libc::O_NONBLOCK != 0 {
            return read_at_once(attempt());
        }
        spend_operation();
        // It does not wait. Others may use the socket already.
        if descriptor::is_socket_of(fd, libc::SOCK_DGRAM, &WITHOUT_HANDSHAKE) {
            return attempt();
        }
        let attempt = || in_nonblocking_mode(fd, flags, attempt)?;
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

/// Calls `f` while the descriptor is in non-blocking mode. `flags` are its flags before and after.
fn in_nonblocking_mode<R>(fd: RawFd, flags: c_int, f: impl FnOnce() -> R) -> Result<R, Errno> {
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

/// Whether an OS thread has accepted from any listener by a call that blocks.
static HAS_BLOCKED: AtomicBool = AtomicBool::new(false);

/// Whether a listener was in non-blocking mode for the attempt of a coroutine.
static HAS_CHANGED_MODE: AtomicBool = AtomicBool::new(false);

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
        if is_left_nonblocking(fd)? || !descriptor::is_listening(fd) {
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

/// Accepts a connection from a listener in blocking mode, if that does not block.
///
/// A connection that a poll reports can be accepted without blocking, unless somebody else takes it first. As
/// in the shims, a turn keeps the attempts of this process apart. If OS threads or other processes may accept,
/// too, the listener is in non-blocking mode during the attempt. See `sys/mode_turn.rs`.
fn try_to_accept(fd: RawFd, accept: impl Fn() -> c_int) -> Result<c_int, Errno> {
    let _turn = turn(fd)?;
    if descriptor::events(fd, libc::POLLIN)? == 0 {
        return Err(Errno::AGAIN);
    }
    if !HAS_BLOCKED.load(Ordering::SeqCst) && !fork::has_forked() {
        return result(accept());
    }
    HAS_CHANGED_MODE.store(true, Ordering::SeqCst);
    match in_nonblocking_mode(fd, kernel::flags(fd)?, || result(accept()))? {
        // In that mode, a Unix socket does not tell. This does not wait.
        Err(Errno::AGAIN) if descriptor::is_shut_down(fd)? => result(accept()),
        done => done,
    }
}

/// The turn at the mode of a listener.
fn turn<'fd>(fd: RawFd) -> Result<ModeTurn<'fd>, Errno> {
    Ok(match fork::has_forked() {
        true => ModeTurn::take_among_processes(descriptor::borrowed(fd)?),
        false => ModeTurn::take(),
    })
}

/// Whether the user has set non-blocking mode, which is not that of an attempt.
fn is_left_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    let _turn = turn(fd)?;
    descriptor::is_nonblocking(fd)
}

/// Accepts a connection on an OS thread.
fn accept_on_thread(fd: RawFd, accept: impl Fn() -> c_int) -> c_int {
    if !HAS_BLOCKED.load(Ordering::SeqCst) && !HAS_BLOCKED.swap(true, Ordering::SeqCst) {
        // A coroutine that has not seen this has accepted when this thread gets the turn.
        drop(ModeTurn::take());
    }
    let begin = Instant::now();
    let accepted = accept();
    let may_change_mode = || HAS_CHANGED_MODE.load(Ordering::Relaxed) || fork::has_forked();
    if accepted != -1 || errno::get() != libc::EAGAIN || !may_change_mode() {
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
