//! Waiting for child processes.
//!
//! A single child is waited for by a pidfd, which is readable when the child has ended. All other waits, such as
//! for any child or for a stopped one, are calls for a thread of the pool; or attempts after pauses, if the children of
//! this thread alone are meant.

use std::os::fd::{AsRawFd, OwnedFd};

use super::errno::{Errno, answer, result};
use super::original;
use super::types::null_mut;
use super::types::{c_int, c_uint, id_t, pid_t, rusage, siginfo_t};
use super::wait::{Borrowed, LONGEST_PAUSE, on_pool_waiting, sleep, until};
use crate::reactor::Interest;
use crate::sys::child;

/// Waits by `attempt`, which is passed options, and returns zero if nothing has happened yet.
fn wait_by<R>(
    child: pid_t,
    options: c_int,
    attempt: impl Fn(c_int) -> Result<Option<R>, Errno> + Sync,
) -> Result<Option<R>, Errno>
where
    R: Send,
{
    if options & libc::WNOHANG != 0 {
        return attempt(options);
    }
    if let Some(done) = attempt(options | libc::WNOHANG)? {
        return Ok(Some(done));
    }
    let asks_for_stops = options & (libc::WUNTRACED | libc::WCONTINUED) != 0;
    match pidfd(child).filter(|_| !asks_for_stops) {
        // For a child of this thread alone.
        None if options & libc::__WNOTHREAD != 0 => loop {
            sleep(LONGEST_PAUSE);
            if let Some(done) = attempt(options | libc::WNOHANG)? {
                return Ok(Some(done));
            }
        },
        None => on_pool_waiting(|| attempt(options)),
        Some(pidfd) => {
            let ended = until(pidfd.as_raw_fd(), Interest::READABLE, None, || {
                attempt(options | libc::WNOHANG)?.ok_or(Errno::AGAIN)
            });
            ended.map(Some)
        }
    }
}

/// A descriptor that is readable when that child has ended. `None`, if several children are meant, or for want of
/// descriptors.
fn pidfd(child: pid_t) -> Option<OwnedFd> {
    let child = u32::try_from(child).ok().filter(|&child| child > 0)?;
    child::pidfd(child).ok()
}

pub(super) unsafe fn wait(status: *mut c_int) -> pid_t {
    // SAFETY: the caller's.
    unsafe { wait4(-1, status, 0, null_mut()) }
}

pub(super) unsafe fn waitpid(child: pid_t, status: *mut c_int, options: c_int) -> pid_t {
    // SAFETY: the caller's.
    unsafe { wait4(child, status, options, null_mut()) }
}

pub(super) unsafe fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t {
    // SAFETY: the caller's.
    unsafe { wait4(-1, status, options, usage) }
}

pub(super) unsafe fn wait4(
    child: pid_t,
    status: *mut c_int,
    options: c_int,
    usage: *mut rusage,
) -> pid_t {
    let lent = Borrowed((status, usage));
    answer(|| {
        let ended = wait_by(child, options, move |options| {
            let Borrowed((status, usage)) = { lent };
            // SAFETY: the caller's. It waits.
            let ended = result(unsafe { original::wait4(child, status, options, usage) })?;
            Ok((ended != 0).then_some(ended))
        });
        Ok(ended?.unwrap_or(0))
    })
}

pub(super) unsafe fn waitid(kind: c_uint, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int {
    let child = match kind {
        libc::P_PID => pid_t::try_from(id).unwrap_or(-1),
        _ => -1,
    };
    let lent = Borrowed(info);
    answer(|| {
        // WSTOPPED is another name of WUNTRACED.
        wait_by(child, options, move |options| {
            let Borrowed(info) = { lent };
            // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
            let mut own: siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the caller's.
            result(unsafe { original::waitid(kind, id, &raw mut own, options) })?;
            // SAFETY: the call has filled it; with zeroes, if nothing has happened.
            let has_happened = unsafe { own.si_pid() } != 0;
            if !info.is_null() {
                // SAFETY: the caller's: a valid pointer. It waits.
                unsafe { *info = own };
            }
            Ok(has_happened.then_some(()))
        })?;
        Ok(0)
    })
}
