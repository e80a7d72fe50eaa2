//! What happens to this crate when the process forks.
//!
//! A forked child has one thread, the one that forked, but all of the parent's memory and
//! descriptors. After a process has had a runtime, its forked children should call `exec` or
//! `_exit`. Until they do:
//!
//! - The forking thread is an ordinary thread, even if it forked in the middle of a coroutine, on
//!   whose stack it then goes on. The thread-locals that say otherwise are cleared. Calls go to the
//!   kernel and block, as std's do.
//! - There are no runtimes. The parent's are left alone, since their polls and timers are shared with
//!   the parent. Spawning, running and joining fail with an error. What belongs to a runtime is
//!   leaked. Closing a socket leaves no trace in the parent.
//! - A lock that another thread held at the fork stays locked, as a std lock does.
//!
//! A coroutine must not return in the child, because its worker's loop must not go on there. The child
//! aborts if one does; see [`Task::end_in_its_process`](crate::task::Task::end_in_its_process).
//!
//! A process that forks before its first runtime has none of these limits, and neither has the child.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::coroutine::{self, overflow};
use crate::diagnose::panic_hook;
use crate::patch;
use crate::sys::fork;
use crate::sys::memory::page_size;
use crate::worker::{self, Worker};
use crate::{local, task};

/// What has been set up so far. Locked while something is being set up.
static SET_UP: Mutex<SetUp> = Mutex::new(SetUp {
    hook: false,
    handlers: false,
});

struct SetUp {
    /// Whether the panic hook is wrapped.
    hook: bool,
    /// Whether the handlers of stack overflows and of forks are installed.
    handlers: bool,
}

impl SetUp {
    fn hook(&mut self) {
        self.hook = self.hook || panic_hook::install_hook();
    }
}

/// Fails in a forked child of a process that has had a runtime.
///
/// # Errors
///
/// `Unsupported`.
pub(crate) fn refuse_in_child() -> io::Result<()> {
    match fork::has_left_runtimes() {
        true => Err(left_in_parent()),
        false => Ok(()),
    }
}

/// The message of [`left_in_parent`].
pub(crate) const LEFT_IN_PARENT: &str =
    "this process is a fork of one with a runtime, which is left in the parent";

/// The error for using a runtime that was left in the parent of this process.
pub(crate) fn left_in_parent() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, LEFT_IN_PARENT)
}

/// Sets up, once, what a process needs before its first runtime.
///
/// # Errors
///
/// The operating system's, if it is out of memory. `Unsupported` in a forked child of a process that has
/// had a runtime, and in a program where the libc patch has no effect.
pub(crate) fn set_up_process() -> io::Result<()> {
    // Checked before the lock is taken: a thread of the parent may have held the lock at the fork.
    refuse_in_child()?;
    patch::check()?;
    let mut set_up = lock_set_up();
    set_up.hook();
    if !set_up.handlers {
        overflow::install();
        worker::set_up_stealing();
        page_size();
        fork::count_forks()?;
        // SAFETY: `in_child` only stores to atomics and to thread-locals that have neither an
        // initialiser nor a destructor, so it is async-signal-safe.
        unsafe { fork::in_children(in_child)? };
        set_up.handlers = true;
    }
    Ok(())
}

/// Wraps the panic hook, if `set_up_process` could not: a panicking thread may not change the hook.
/// Called by each thread that is about to drive a worker.
pub(crate) fn set_up_late() {
    lock_set_up().hook();
}

fn lock_set_up() -> MutexGuard<'static, SetUp> {
    SET_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in each forked child, on the thread that forked.
unsafe extern "C" fn in_child() {
    fork::leave_runtimes();
    local::keep_over_fork();
    task::forget_running();
    coroutine::forget_running();
    Worker::forget_current();
}
