//! Which coroutine of a thread unwinds.
//!
//! std counts the unwinds of an OS thread, and a coroutine that is suspended amid its unwind stays in
//! that count while others of its thread run. So there are two questions, with different answers:
//!
//! - *May a coroutine be unwound?* Only if it certainly does not unwind: a second unwind out of a
//!   destructor aborts the process. It certainly does not while std's count is zero. So a wait that
//!   begins then may be interrupted at any time, for what a coroutine does cannot change while it is
//!   suspended. A wait that begins while the count is raised may be interrupted once its worker, between
//!   two turns, finds the count at zero (`LATER` in `word`).
//! - *Does the caller unwind?* It does if the count is raised and nobody else is suspended amid an
//!   unwind ([`is_unwinding`]); otherwise only what its runtime has done to it is known. A panic that a
//!   coroutine raises, or catches, while another one of its thread is suspended amid an unwind is not.
//!
//! Coroutines are suspended amid their unwind while their runtime stops, and only then; a worker
//! otherwise waits together with a coroutine that unwinds. In the panic hook that holds at any time, for
//! std notes by thread that a hook runs: a panic of another coroutine there would abort the process.

use std::cell::Cell;

use super::{Task, with_running};

thread_local! {
    /// Suspensions of this thread's coroutines that began with std's count raised, and unwinds of the
    /// thread itself amid which it drives a worker.
    static SUSPENDED: Cell<u32> = const { Cell::new(0) };

    /// Panic hooks that run on this thread.
    static HOOKS: Cell<u32> = const { Cell::new(0) };
}

/// Whether the caller certainly does not unwind, so that it may be unwound.
#[inline]
pub(crate) fn may_unwind() -> bool {
    !std::thread::panicking()
}

/// Whether the caller unwinds, as far as that is known; or is in the panic hook.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking() && is_own_unwind()
}

#[cold]
fn is_own_unwind() -> bool {
    is_unwinding_for_certain() || with_running(|task| task.is_some_and(Task::is_cancelled))
}

/// Whether the caller, while std's count is raised, is for certain the reason of that.
pub(crate) fn is_unwinding_for_certain() -> bool {
    SUSPENDED.get() == 0 || is_in_hook()
}

/// Whether the caller keeps its thread to itself while it waits: it is in the panic hook, or it is known
/// to unwind and `may_switch` does not hold.
#[cold]
pub(crate) fn keeps_thread(may_switch: impl FnOnce() -> bool) -> bool {
    is_in_hook() || (std::thread::panicking() && is_unwinding_for_certain() && !may_switch())
}

fn is_in_hook() -> bool {
    HOOKS.get() > 0
}

impl Task {
    /// Whether its runtime has unwound it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }
}

/// Notes that the runtime is about to unwind the running coroutine, or that this is over.
pub(super) fn note_cancelled(cancelled: bool) {
    with_running(|task| {
        if let Some(task) = task {
            task.cancelled.set(cancelled);
        }
    });
}

/// A suspension that began with std's count raised, until it is over.
pub(crate) struct Suspended(());

impl Suspended {
    pub(crate) fn begin() -> Suspended {
        SUSPENDED.set(SUSPENDED.get() + 1);
        Suspended(())
    }
}

impl Drop for Suspended {
    fn drop(&mut self) {
        SUSPENDED.set(SUSPENDED.get() - 1);
    }
}

/// A run of the panic hook.
pub(crate) struct InHook(());

impl InHook {
    pub(crate) fn enter() -> InHook {
        HOOKS.set(HOOKS.get() + 1);
        InHook(())
    }
}

impl Drop for InHook {
    fn drop(&mut self) {
        HOOKS.set(HOOKS.get() - 1);
    }
}
