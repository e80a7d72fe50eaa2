//! Locks of files.
//!
//! No event tells that a lock of a file was released. So it is tried again after pauses.

use super::errno::{Errno, answer, result};
use super::original;
use super::types::*;
use super::wait::until_by_pauses;

/// Makes attempts until one does not fail for the lock of another holder.
fn until_unlocked(fd: c_int, attempt: impl Fn() -> c_int) -> c_int {
    let attempt = || match result(attempt()) {
        Err(Errno::ACCESS) => Err(Errno::AGAIN),
        done => done,
    };
    answer(|| match attempt() {
        Err(Errno::AGAIN) => until_by_pauses(fd, None, attempt),
        done => done,
    })
}

pub(super) unsafe fn flock(fd: c_int, operation: c_int) -> c_int {
    let asks_not_to_wait = operation & (libc::LOCK_NB | libc::LOCK_UN) != 0;
    // SAFETY: the call takes any numbers.
    let flock = |operation| unsafe { original::flock(fd, operation) };
    match asks_not_to_wait {
        true => flock(operation),
        false => until_unlocked(fd, || flock(operation | libc::LOCK_NB)),
    }
}

pub(super) unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    let at_once = match command {
        libc::F_SETLKW => libc::F_SETLK,
        libc::F_OFD_SETLKW => libc::F_OFD_SETLK,
        // SAFETY: the caller's.
        _ => return unsafe { original::fcntl(fd, command, argument) },
    };
    // SAFETY: the caller's: the argument is a pointer to a lock for this command, too.
    until_unlocked(fd, || unsafe { original::fcntl(fd, at_once, argument) })
}

pub(super) use fcntl as fcntl64;
