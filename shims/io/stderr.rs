//! Standard error.

use std::io;
use std::marker::PhantomData;
use std::process::Stdio;

use super::output::{Guard, Output, Shared, is_output, writes_by};

static STDERR: Shared<Output> = Shared::new(Output::STDERR, Output::STDERR);

/// Like [`std::io::stderr`], but waits park the coroutine.
///
/// As std's, it has no buffer. Its lock is not std's, which panic messages and std's own macros take: a
/// panic message comes out whatever is locked here, in the middle of a line at worst.
///
/// What differs from std is as with [`stdout`](super::stdout()).
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
    shared: &'static Shared<Output>,
}

/// Like [`std::io::StderrLock`], but waits park the coroutine.
///
/// A coroutine may hold it while it waits for something else; all others, of its worker too, wait for
/// the lock meanwhile.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::io::StderrLock<'static>>();
/// ```
pub struct StderrLock<'a> {
    guard: Guard<Output>,
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

is_output!(Output::STDERR; Stderr: "Stderr", StderrLock<'_>: "StderrLock");

writes_by! {
    Stderr: |this| this.lock();
    &Stderr: |this| this.lock();
    StderrLock<'_>: |this| this.guard;
}
