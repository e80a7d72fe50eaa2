//! The task that runs on a thread.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Task, TaskRef, os_thread};

thread_local! {
    /// The coroutine that runs on this thread. `None` also during an `Aside`.
    pub(super) static RUNNING: Cell<Option<NonNull<Task>>> = const { Cell::new(None) };
}

/// Whether the caller is a coroutine. If not, it is an OS thread, and what parks a coroutine blocks the thread.
///
/// ```
/// assert!(!greenroom::on_coroutine());
/// assert!(greenroom::run(greenroom::on_coroutine));
/// ```
#[inline]
#[must_use]
pub fn on_coroutine() -> bool {
    RUNNING.get().is_some()
}

/// Runs `turn`, which switches to the coroutine of `task`, as a turn of that coroutine.
#[inline(always)]
pub(crate) fn enter<R>(task: &TaskRef, turn: impl FnOnce() -> R) -> R {
    debug_assert!(RUNNING.get().is_none(), "one coroutine runs at a time");
    RUNNING.set(Some(task.as_ptr()));
    let result = turn();
    RUNNING.set(None);
    result
}

/// Calls `look` with the running coroutine's task; with `None` if the caller is no coroutine.
#[inline]
pub(crate) fn with_running<R>(look: impl FnOnce(Option<&Task>) -> R) -> R {
    // SAFETY: `enter` has got the pointer from a `TaskRef`, which its caller holds while the coroutine
    // runs. `look` returns before the coroutine ends.
    look(RUNNING.get().map(|task| unsafe { &*task.as_ptr() }))
}

/// A reference to the running coroutine's task. `None` if the caller is no coroutine.
#[inline]
pub(crate) fn running() -> Option<TaskRef> {
    // SAFETY: `enter` has got the pointer from a `TaskRef`, which its caller holds while the coroutine
    // runs.
    RUNNING.get().map(|task| unsafe { TaskRef::another(task) })
}

/// Whether the caller is a coroutine, and its runtime shuts down.
pub(crate) fn is_runtime_stopping() -> bool {
    with_running(|task| task.is_some_and(|task| task.owner().is_stopping()))
}

/// A reference to the calling task: the running coroutine, or the OS thread's task.
pub(crate) fn current() -> TaskRef {
    running().unwrap_or_else(os_thread::current)
}

/// Makes sure that the caller has a task, so that its next wait allocates nothing. A coroutine always has
/// one; an OS thread gets its task now.
#[inline]
pub(crate) fn prepare_to_wait() {
    if !on_coroutine() {
        os_thread::prepare();
    }
}

/// Whether the caller has a task, so that its next wait allocates nothing.
#[inline]
pub(crate) fn is_prepared_to_wait() -> bool {
    on_coroutine() || os_thread::is_prepared()
}

/// The calling task. Must stay in the frame of the caller.
pub(crate) struct Current {
    task: NonNull<Task>,
    /// The reference that keeps an OS thread's task alive. Dropped by `let_go`.
    thread: Option<ManuallyDrop<TaskRef>>,
}

impl Current {
    #[inline]
    pub(crate) fn get() -> Current {
        match RUNNING.get() {
            Some(task) => Current { task, thread: None },
            None => Current::of_thread(os_thread::current()),
        }
    }

    /// The calling task. `None` on an OS thread that is making its task, or has dropped it at its end: then the
    /// caller is the allocator, which was called for that.
    #[inline]
    pub(crate) fn try_get() -> Option<Current> {
        (RUNNING.get().is_some() || !os_thread::cannot_be_made()).then(Current::get)
    }

    #[cold]
    fn of_thread(task: TaskRef) -> Current {
        Current {
            task: task.as_ptr(),
            thread: Some(ManuallyDrop::new(task)),
        }
    }
}

impl Deref for Current {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: an OS thread's task is kept alive by the reference in `thread`. A coroutine's task is
        // kept alive by its worker until the coroutine has ended, and this lies in a frame of it.
        unsafe { self.task.as_ref() }
    }
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let_go(thread);
        }
    }
}

/// Not inlined, so that a coroutine's wait contains no code for it.
#[cold]
fn let_go(thread: ManuallyDrop<TaskRef>) {
    drop(ManuallyDrop::into_inner(thread));
}

/// Calls `f`, in which [`on_coroutine`] is true.
///
/// Nothing else here may be called by `f`.
pub(crate) fn as_if_on_coroutine<R>(f: impl FnOnce() -> R) -> R {
    let before = RUNNING.replace(Some(os_thread::no_task()));
    let returned = f();
    RUNNING.set(before);
    returned
}

/// Called in a forked child: the caller does not count as a coroutine any more.
pub(crate) fn forget_running() {
    RUNNING.set(None);
}
