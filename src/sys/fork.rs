//! Which process this is, across forks.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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

/// Has forks be counted, from now on. What else is done in the child comes after that.
///
/// # Errors
///
/// Out of memory.
#[inline]
pub(crate) fn count_forks() -> io::Result<()> {
    match COUNTED.load(Ordering::Relaxed) {
        true => Ok(()),
        false => begin_to_count(),
    }
}

static COUNTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has forked, or is a fork, since [`count_forks`].
pub(crate) fn has_forked() -> bool {
    HAS_FORKED.load(Ordering::Relaxed)
}

static HAS_FORKED: AtomicBool = AtomicBool::new(false);

/// Called by two threads at once, a fork may count for two, which does no harm. A lock might be held
/// by another thread when one forks.
#[cold]
fn begin_to_count() -> io::Result<()> {
    // SAFETY: the functions are there for as long as the process; they change atomics.
    result_of(unsafe { libc::pthread_atfork(None, Some(note_fork), Some(begin_process)) })?;
    COUNTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// This process is a fork of one that has had a runtime.
static LEFT_RUNTIMES: AtomicBool = AtomicBool::new(false);

/// In the child of a fork: the runtimes, and all threads of this crate, are left in the parent.
pub(crate) fn leave_runtimes() {
    LEFT_RUNTIMES.store(true, Ordering::Relaxed);
}

/// Whether this process is a fork of one that has had a runtime: then it has no thread of this crate, and
/// gets none.
pub(crate) fn has_left_runtimes() -> bool {
    LEFT_RUNTIMES.load(Ordering::Relaxed)
}

unsafe extern "C" fn note_fork() {
    HAS_FORKED.store(true, Ordering::Relaxed);
}

unsafe extern "C" fn begin_process() {
    HAS_FORKED.store(true, Ordering::Relaxed);
    CURRENT.fetch_add(1, Ordering::Relaxed);
}

/// Has `in_child` called in each forked child, by the thread that has forked.
///
/// # Errors
///
/// Out of memory.
///
/// # Safety
///
/// `in_child` may be called: it is async-signal-safe.
pub(crate) unsafe fn in_children(in_child: unsafe extern "C" fn()) -> io::Result<()> {
    // SAFETY: the function is there for as long as the process; see above for what it does.
    result_of(unsafe { libc::pthread_atfork(None, None, Some(in_child)) })
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
    result_of(unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) })
}

fn result_of(error: i32) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The locks that a thread which forks has meanwhile, lest another have them, which is not there in
/// the child.
pub(crate) struct Held<T>(UnsafeCell<Option<T>>);

// SAFETY: whoever uses it has the locks, says the contract of its methods: one thread at a time.
unsafe impl<T> Sync for Held<T> {}

impl<T> Held<T> {
    pub(crate) const fn new() -> Held<T> {
        Held(UnsafeCell::new(None))
    }

    /// Keeps `locks` over the fork. To be called before that.
    ///
    /// # Safety
    ///
    /// Whatever is kept here, always, are guards of the same locks.
    pub(crate) unsafe fn keep(&self, locks: T) {
        // SAFETY: the caller has the locks, so no other thread does, and none is here.
        unsafe { *self.0.get() = Some(locks) };
    }

    /// Takes what was kept. To be called after the fork.
    ///
    /// # Safety
    ///
    /// By the thread that has kept it, or that thread's copy in the child.
    pub(crate) unsafe fn take(&self) -> Option<T> {
        // SAFETY: the caller has the locks, as above. They are given back after the cell has been
        // left.
        unsafe { (*self.0.get()).take() }
    }
}
