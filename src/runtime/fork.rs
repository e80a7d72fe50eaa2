//! What becomes of this crate when the process forks.
//!
//! A forked child has one thread, the one that forked; but all memory, and all descriptors, which it
//! shares with the parent. A child of a process that has had a runtime is to call `exec` or `_exit`.
//! Until then
//!
//! - the forking thread is a plain one, even in the middle of a coroutine, on whose stack it goes
//!   on: the thread-locals that say otherwise are cleared, and its calls go to the kernel and block, as
//!   std's do;
//! - runtimes cannot be had. Those of before are not touched: their polls and timers are the parent's. To
//!   spawn, to run and to join fails with an error; what belongs to a runtime is leaked; sockets close
//!   without a trace in the parent;
//! - a lock that another thread held stays locked, as with std's.
//!
//! A coroutine must not return in the child, where the loop that it would return to is not to go on: that
//! aborts the child, see [`Task::end_in_its_process`](crate::task::Task::end_in_its_process).
//!
//! A process that forks before it has a runtime has two that know nothing of each other.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::coroutine::{self, overflow};
use crate::diagnose::panic_hook;
use crate::sys::fork;
use crate::sys::memory::page_size;
use crate::worker::{self, Worker};
use crate::{local, task};

/// What is set up. Locked meanwhile.
static SET_UP: Mutex<SetUp> = Mutex::new(SetUp {
    hook: false,
    handlers: false,
});

struct SetUp {
    /// The panic hook is wrapped.
    hook: bool,
    /// Overflows and forks are handled.
    handlers: bool,
}

impl SetUp {
    fn hook(&mut self) {
        self.hook = self.hook || panic_hook::install_hook();
    }
}

/// Fails in a fork of a process that has had a runtime.
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

/// Why nothing runs on a runtime of the process that this one is a fork of.
pub(crate) const LEFT_IN_PARENT: &str =
    "this process is a fork of one with a runtime, which is left in the parent";

pub(crate) fn left_in_parent() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, LEFT_IN_PARENT)
}

/// Sets up, once, what a process needs before it has its first runtime.
///
/// # Errors
///
/// Out of memory; `Unsupported` in a fork of a process that has had a runtime.
pub(crate) fn set_up_process() -> io::Result<()> {
    // Before the lock, which a thread of the parent may have held.
    refuse_in_child()?;
    let mut set_up = lock_set_up();
    set_up.hook();
    if !set_up.handlers {
        overflow::install();
        worker::set_up_stealing();
        page_size();
        fork::count_forks()?;
        // SAFETY: it stores to atomics, and to thread-locals without initialiser or destructor.
        unsafe { fork::in_children(in_child)? };
        set_up.handlers = true;
    }
    Ok(())
}

/// Sets up, on a thread that is about to drive a worker, what a thread could not that has made its
/// runtime amid a panic.
pub(crate) fn set_up_late() {
    lock_set_up().hook();
}

fn lock_set_up() -> MutexGuard<'static, SetUp> {
    SET_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn in_child() {
    fork::leave_runtimes();
    local::keep_over_fork();
    task::forget_running();
    coroutine::forget_running();
    Worker::forget_current();
}
