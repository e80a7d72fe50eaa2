//! What the process does with signals.

use std::io;
use std::mem;
use std::ptr;

/// Whether the process ignores `signal`.
///
/// # Errors
///
/// The kernel's: `InvalidInput` for a number that is no signal.
pub(crate) fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: `sigaction` is a C struct of numbers and an optional function, for which all-zero bytes are valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the action is only read into a valid struct. No new one is set.
    match unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } {
        0 => Ok(action.sa_sigaction == libc::SIG_IGN),
        _ => Err(io::Error::last_os_error()),
    }
}
