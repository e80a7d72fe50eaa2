//! Which coroutine of a thread unwinds.
//!
//! std counts the unwinds of an OS thread. A coroutine that is suspended in the middle of its unwind
//! stays in that count while other coroutines of the thread run. So there are two questions, with
//! different answers.
//!
//! *May a coroutine be unwound?* Only if it certainly does not unwind already, since a second unwind out
//! of a destructor aborts the process. If std's count is zero, it certainly does not. A wait that begins
//! then may be interrupted at any time, because a suspended coroutine cannot begin to unwind. A wait that
//! begins while the count is raised may be interrupted later, once its worker finds the count at zero
//! between two turns (`LATER` in `word`).
//!
//! *Does the caller unwind?* It does if the count is raised and no other coroutine of the thread is
//! suspended in its unwind ([`is_unwinding`]). Otherwise only one thing is known: whether the runtime has
//! unwound the caller. Nothing tells whether a coroutine has raised or caught a panic of its own while
//! another one of its thread was suspended in its unwind.
//!
//! Coroutines are suspended in their unwind only while their runtime stops. Before that, a worker waits
//! together with a coroutine that unwinds. In the panic hook it always waits with the coroutine, because
//! std notes by thread that a hook runs, and aborts if another coroutine panics meanwhile.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Task, with_running};

thread_local! {
    /// How many unwinds that std counts for this thread are certainly not the running coroutine's:
    /// suspensions of coroutines that began with std's count raised, and unwinds of the thread itself in
    /// the midst of which it drives a worker.
    static SUSPENDED: Cell<u32> = const { Cell::new(0) };

    /// How many panic hooks run on this thread.
    static HOOKS: Cell<u32> = const { Cell::new(0) };
}

/// Whether the caller certainly does not unwind, so that it may be unwound.
#[inline]
pub(crate) fn may_unwind() -> bool {
    !std::thread::panicking()
}

/// Whether the caller unwinds, as far as can be known, or is in the panic hook.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    std::thread::panicking() && is_own_unwind()
}

#[cold]
fn is_own_unwind() -> bool {
    is_unwinding_for_certain() || with_running(|task| task.is_some_and(Task::is_unwound))
}

/// Whether it is certain that the caller unwinds, given that std's count is raised.
pub(crate) fn is_unwinding_for_certain() -> bool {
    SUSPENDED.get() == 0 || is_in_hook()
}

/// Whether the caller keeps its thread to itself while it waits. It does in the panic hook, and if it
/// certainly unwinds and `may_switch` returns false.
#[cold]
pub(crate) fn keeps_thread(may_switch: impl FnOnce() -> bool) -> bool {
    is_in_hook() || (std::thread::panicking() && is_unwinding_for_certain() && !may_switch())
}

fn is_in_hook() -> bool {
    HOOKS.get() > 0
}

/// How often all coroutines of the process have caught the unwind of an interrupt and waited again.
static SWALLOWED: AtomicU64 = AtomicU64::new(0);

/// How often the coroutines of this process have caught the unwind of an interrupt and waited again.
pub(crate) fn swallowed_interrupts() -> u64 {
    SWALLOWED.load(Ordering::Relaxed)
}

impl Task {
    /// Whether an interrupt has begun to unwind the task, and the unwind has not come to its end.
    pub(crate) fn is_unwound(&self) -> bool {
        self.unwound.get()
    }

    /// How often the task has caught the unwind of an interrupt and waited again. Counts up to 255.
    pub(crate) fn swallowed(&self) -> u8 {
        self.swallowed.load(Ordering::Relaxed)
    }
}

/// Notes that an interrupt is about to unwind the running coroutine.
pub(super) fn begin_unwind(is_cancellation: bool) {
    with_running(|task| {
        let Some(task) = task else { return };
        // A cancellation stays when it was caught. A timeout that unwinds after that is another interrupt.
        if task.unwound.get() || (is_cancellation && task.caught.get()) {
            let so_far = task.swallowed();
            task.swallowed
                .store(so_far.saturating_add(1), Ordering::Relaxed);
            SWALLOWED.fetch_add(1, Ordering::Relaxed);
        }
        task.unwound.set(true);
    });
}

/// Notes that the unwind of the running coroutine is over.
pub(super) fn end_unwind() {
    with_running(|task| {
        if let Some(task) = task {
            task.unwound.set(false);
        }
    });
}

/// Marks an unwind on this thread as not that of the running coroutine, while this lives. Made for each
/// suspension that begins with std's count raised.
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

/// Notes that the panic hook runs on this thread, while this lives.
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
