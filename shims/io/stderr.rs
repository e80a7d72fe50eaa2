//! Standard error.
#![forbid(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::process::Stdio;

use super::output::{OutputFd, SharedWriter, SharedWriterGuard, is_output, writes_by};

static STDERR: SharedWriter<OutputFd> = SharedWriter::new(OutputFd::STDERR, OutputFd::STDERR);

/// Like [`std::io::stderr`], but waits park the coroutine.
///
/// Like std's, the handle has no buffer. Its lock is not std's lock, which panic messages and std's own
/// macros take. A panic message therefore never waits for this lock, and may appear in the middle of a
/// line.
///
/// The other differences from std are those of [`stdout`](super::stdout()).
///
/// # Unwinding
///
/// A write that waits for a reader is an interruption point.
#[must_use]
pub fn stderr() -> Stderr {
    Stderr { shared: &STDERR }
}

/// Like [`std::io::Stderr`], but waits park the coroutine. See [`stderr`].
pub struct Stderr {
    shared: &'static SharedWriter<OutputFd>,
}

/// Like [`std::io::StderrLock`], but waits park the coroutine.
///
/// A coroutine may hold the lock while it waits for something else. All other coroutines, even those of the
/// same worker, wait for the lock meanwhile.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::io::StderrLock<'static>>();
/// ```
pub struct StderrLock<'a> {
    guard: SharedWriterGuard<OutputFd>,
    lifetime: PhantomData<&'a Stderr>,
}

impl Stderr {
    /// Like [`std::io::Stderr::lock`], but parks the coroutine.
    pub fn lock(&self) -> StderrLock<'static> {
        StderrLock {
            guard: self.shared.lock(),
            lifetime: PhantomData,
        }
    }
}

impl From<Stderr> for Stdio {
    fn from(_: Stderr) -> Stdio {
        Stdio::from(io::stderr())
    }
}

is_output!(OutputFd::STDERR; Stderr: "Stderr", StderrLock<'_>: "StderrLock");

writes_by! {
    Stderr: |this| this.lock();
    &Stderr: |this| this.lock();
    StderrLock<'_>: |this| this.guard;
}
