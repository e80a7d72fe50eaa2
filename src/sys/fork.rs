//! Forks: telling a process from the processes that it was forked from, and functions that are
//! called when the process forks.
//!
//! All of this uses pthread_atfork(3). A child made by `vfork`, `posix_spawn` or a bare `clone` calls
//! no such function, so here it counts as the same process as its parent.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The number of this process: 1 plus the forks that lie between the process that first called
/// [`count_forks`] and this one.
static CURRENT: AtomicU32 = AtomicU32::new(1);

/// A process, distinguished from its ancestors. (Siblings have the same number: no value of one
/// ever reaches the other.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// This process. Async-signal-safe.
    #[inline]
    pub(crate) fn current() -> Process {
        Process(CURRENT.load(Ordering::Relaxed))
    }

    /// Whether `self` is the process that calls this. If not, the caller is a fork of it.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self == Process::current()
    }

    /// The number of the process, which is not zero.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// Starts to count forks. To be called before other functions are registered here: those of the
/// child are called in the order of registration, so they find the new number.
///
/// # Errors
///
/// The operating system's: out of memory. A later call tries again.
#[inline]
pub(crate) fn count_forks() -> io::Result<()> {
    match COUNTED.load(Ordering::Relaxed) {
        true => Ok(()),
        false => begin_to_count(),
    }
}

/// The number of this process in the system, since forks are counted.
static ID: AtomicU32 = AtomicU32::new(0);

/// Whether the caller is the child of a `vfork` (or of a bare `clone`), which has the memory of this process and
/// runs in it as if it were the thread that has called `vfork`. Forks must be counted already.
pub(crate) fn shares_memory_with_parent() -> bool {
    std::process::id() != ID.load(Ordering::Relaxed)
}

/// Whether forks are counted.
static COUNTED: AtomicBool = AtomicBool::new(false);

/// Whether this process has forked, or is a fork, since forks are counted.
pub(crate) fn has_forked() -> bool {
    HAS_FORKED.load(Ordering::Relaxed)
}

static HAS_FORKED: AtomicBool = AtomicBool::new(false);

/// Registers the functions that count.
///
/// If two threads call this at once, each fork counts for two, which does no harm. A lock against
/// that would do harm: a fork on another thread would leave it locked in the child.
#[cold]
fn begin_to_count() -> io::Result<()> {
    // SAFETY: the functions are items, so they exist for as long as the process. They only change
    // atomics, which is async-signal-safe.
    result_of(unsafe { libc::pthread_atfork(None, Some(note_fork), Some(begin_process)) })?;
    ID.store(std::process::id(), Ordering::Relaxed);
    COUNTED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether this process is a fork of a process that has had a runtime.
static LEFT_RUNTIMES: AtomicBool = AtomicBool::new(false);

/// Notes that all runtimes, and all threads of this crate, are left in the parent. To be called in
/// the child of a fork. Async-signal-safe.
pub(crate) fn leave_runtimes() {
    LEFT_RUNTIMES.store(true, Ordering::Relaxed);
}

/// Whether this process is a fork of a process that has had a runtime. Such a process has no thread of
/// this crate, and starts none. Async-signal-safe.
pub(crate) fn has_left_runtimes() -> bool {
    LEFT_RUNTIMES.load(Ordering::Relaxed)
}

/// Called in the parent, after a fork.
unsafe extern "C" fn note_fork() {
    HAS_FORKED.store(true, Ordering::Relaxed);
}

/// Called in the child, on its only thread.
unsafe extern "C" fn begin_process() {
    HAS_FORKED.store(true, Ordering::Relaxed);
    CURRENT.fetch_add(1, Ordering::Relaxed);
    ID.store(std::process::id(), Ordering::Relaxed);
}

/// Registers `in_child` to be called in each forked child, on its only thread.
///
/// # Errors
///
/// The operating system's: out of memory.
///
/// # Safety
///
/// `in_child` may be called at any time, and is async-signal-safe.
pub(crate) unsafe fn in_children(in_child: unsafe extern "C" fn()) -> io::Result<()> {
    // SAFETY: the caller promises that the function may be called in a child, at any time.
    result_of(unsafe { libc::pthread_atfork(None, None, Some(in_child)) })
}

/// Registers functions to be called around each fork: `before` it on the thread that forks, and after
/// it `in_parent` on the same thread, and `in_child` on the only thread of the child.
///
/// # Errors
///
/// The operating system's: out of memory.
///
/// # Safety
///
/// The functions may be called at any time, in this order, and `in_child` is async-signal-safe.
pub(crate) unsafe fn at_fork(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the caller promises that the functions may be called around a fork, at any time.
    result_of(unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) })
}

/// The result of a pthread function, which returns its error.
fn result_of(error: i32) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Locks that a thread holds while it forks. It takes them before the fork, so that no other thread,
/// which would not exist in the child, holds one of them there.
pub(crate) struct HeldOverFork<T>(UnsafeCell<Option<T>>);

// SAFETY: `keep` and `take` are only called by a thread that holds the locks that `T` guards, or by
// its copy in the child: that is their contract. The locks exclude any other thread meanwhile.
unsafe impl<T> Sync for HeldOverFork<T> {}

impl<T> HeldOverFork<T> {
    pub(crate) const fn new() -> HeldOverFork<T> {
        HeldOverFork(UnsafeCell::new(None))
    }

    /// Keeps the guards of `locks` over the fork. To be called before the fork.
    ///
    /// # Safety
    ///
    /// All calls for one `HeldOverFork` pass guards of the same locks. A lock has one guard at a time.
    pub(crate) unsafe fn keep(&self, locks: T) {
        // SAFETY: the caller holds the locks, and passes them here. No other thread holds them, so
        // no other thread is in `keep`, or has anything to `take`.
        unsafe { *self.0.get() = Some(locks) };
    }

    /// Takes the guards out again, if any were kept. To be called after the fork.
    ///
    /// # Safety
    ///
    /// The caller is the thread that has called `keep`, or that thread's copy in the child.
    pub(crate) unsafe fn take(&self) -> Option<T> {
        // SAFETY: the caller has called `keep`, so it holds the locks, and no other thread is in
        // `keep` or `take`. The guards unlock only when the caller drops the returned value, after
        // this access.
        unsafe { (*self.0.get()).take() }
    }
}
