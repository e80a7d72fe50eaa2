//! The end of the process, where it cannot go on.

use std::fmt::{self, Write};

use crate::sys::stderr::Stderr;

/// Writes `why`, and aborts.
pub(crate) fn abort(why: fmt::Arguments<'_>) -> ! {
    report(why);
    std::process::abort();
}

/// Writes why the process is about to end.
///
/// Past std's stderr, whose lock may be held by whoever is stuck. In one piece, lest it mix with
/// others' lines. Where stderr is gone or full there is nothing to do, and the end comes all the
/// same.
pub(crate) fn report(why: fmt::Arguments<'_>) {
    let _ = Stderr.write_str(&format!("\ngreenroom: fatal: {why}\n"));
}
