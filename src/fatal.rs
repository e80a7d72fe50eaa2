//! The end of the process, when it cannot go on.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::stderr::Stderr;

/// Writes `why` to standard error, and aborts the process.
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    report(why);
    std::process::abort();
}

/// Like [`abort`], but calls `tell` before the end, which may write more.
pub(crate) fn abort_after(why: fmt::Arguments<'_>, tell: impl FnOnce()) -> ! {
    report(why);
    // A panic has been reported, and the process ends in any case.
    let _ = catch_unwind(AssertUnwindSafe(tell));
    std::process::abort();
}

/// Like [`abort`], without allocating memory.
#[cold]
pub(crate) fn abort_amid_allocation(why: &str) -> ! {
    for piece in ["\ngreenroom: fatal: ", why, "\n"] {
        let _ = Stderr.write_str(piece);
    }
    std::process::abort();
}

/// Writes to standard error why the process is about to end.
///
/// This does not use std's `Stderr`, because a thread that is stuck may hold its lock. The message is one
/// write, so that it does not mix with lines of other threads. A failure to write is ignored: the caller
/// ends the process in any case.
pub(crate) fn report(why: fmt::Arguments<'_>) {
    let _ = Stderr.write_str(&format!("\ngreenroom: fatal: {why}\n"));
}
