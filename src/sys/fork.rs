//! Which process this is, across forks.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the forks between the process that first asked and this one. Not zero.
static CURRENT: AtomicU32 = AtomicU32::new(1);

/// A process, told apart from those it was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    #[inline]
    pub(crate) fn current() -> Process {
        Process(CURRENT.load(Ordering::Relaxed))
    }

    /// Whether this is the process; otherwise it is a fork of it.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self == Process::current()
    }

    /// As a number, which is not zero.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// To be called first in the child of a fork.
pub(crate) fn begin_process() {
    CURRENT.fetch_add(1, Ordering::Relaxed);
}

/// Has `before` called before each fork, on the thread that forks, and after it one of the other
/// two. A child made by `vfork`, `posix_spawn` or a bare `clone` calls none of them.
///
/// # Errors
///
/// Out of memory.
///
/// # Safety
///
/// `in_child` may be called: it is async-signal-safe.
pub(crate) unsafe fn at_fork(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the functions are there for as long as the process; see above for what they do.
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
