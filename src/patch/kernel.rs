//! System calls for attempts that do not block.
//!
//! They return, and set the number of the error, as the functions of the C library do. The C library's own look
//! whether the thread is being cancelled (see pthreads(7)), which costs a few percent of a call.

use rustix::io::Errno;
use syscalls::{Sysno, raw};

use super::errno;
use super::types::*;

/// What a system call has returned.
#[inline(always)]
fn answer(returned: usize) -> ssize_t {
    /// The kernel returns the number of an error as a negative number, which is not beyond this.
    const MOST: isize = 4095;

    let returned = returned as isize;
    if (-MOST..0).contains(&returned) {
        errno::set(-returned as c_int);
        return -1;
    }
    returned
}

/// # Safety
///
/// As recvfrom(2).
#[inline(always)]
pub(super) unsafe fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's.
    answer(unsafe {
        raw::syscall6(
            Sysno::recvfrom,
            fd as usize,
            buf.expose_provenance(),
            len,
            flags as usize,
            from.expose_provenance(),
            from_len.expose_provenance(),
        )
    })
}

/// # Safety
///
/// As recvmsg(2).
#[inline(always)]
pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let message = message.expose_provenance();
    // SAFETY: the caller's.
    answer(unsafe { raw::syscall3(Sysno::recvmsg, fd as usize, message, flags as usize) })
}

/// # Safety
///
/// As sendto(2).
#[inline(always)]
pub(super) unsafe fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    // SAFETY: the caller's.
    answer(unsafe {
        raw::syscall6(
            Sysno::sendto,
            fd as usize,
            buf.expose_provenance(),
            len,
            flags as usize,
            to.expose_provenance(),
            to_len as usize,
        )
    })
}

/// # Safety
///
/// As sendmsg(2).
#[inline(always)]
pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let message = message.expose_provenance();
    // SAFETY: the caller's.
    answer(unsafe { raw::syscall3(Sysno::sendmsg, fd as usize, message, flags as usize) })
}

/// Polls without waiting.
///
/// # Safety
///
/// As poll(2).
#[inline(always)]
pub(super) unsafe fn poll(fds: *mut pollfd, count: nfds_t) -> c_int {
    // The kernel writes the time that is left.
    let mut no_time = NO_TIME;
    // SAFETY: the caller's. There is no signal mask.
    let polled = answer(unsafe {
        raw::syscall5(
            Sysno::ppoll,
            fds.expose_provenance(),
            count as usize,
            (&raw mut no_time).expose_provenance(),
            0,
            0,
        )
    });
    polled as c_int
}

/// The flags of the open file: see `F_GETFL` in fcntl(2).
///
/// # Errors
///
/// The kernel's.
#[inline(always)]
pub(super) fn flags(fd: c_int) -> Result<c_int, Errno> {
    // SAFETY: `F_GETFL` takes any number, and no argument.
    let flags = answer(unsafe { raw::syscall2(Sysno::fcntl, fd as usize, libc::F_GETFL as usize) });
    errno::result(flags as c_int)
}
