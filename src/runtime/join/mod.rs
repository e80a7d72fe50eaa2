//! Joining: waiting for a coroutine's result.

mod packet;

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::Arc;

use super::thread::Thread;
use crate::fatal;
use crate::park::{self, Cancelled, Wait};
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Description, Task, TaskRef};

pub(crate) use packet::{Guard, Packet, Unjoined};
use packet::{drop_unwanted, take_result};

/// The one right to a task's result.
///
/// Where it goes unused, the result is dropped by whoever is later: the end of the task, or this.
pub(crate) struct Join<T> {
    thread: Thread,
    /// How it waits.
    kind: Kind,
    /// Shared with the task until that ends. As std's handles, these are invariant in `T` and not
    /// unwind safe.
    result: PhantomData<Arc<UnsafeCell<T>>>,
}

impl<T> Join<T> {
    /// # Safety
    ///
    /// The task's body was made for results of type `T`, and this is its only `Join`.
    pub(crate) unsafe fn new(task: TaskRef) -> Join<T> {
        Join {
            thread: Thread::of(task),
            kind: Kind::Peer,
            result: PhantomData,
        }
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.task().completion().is_done()
    }

    /// Waits for the end of the task, and takes its result.
    pub(crate) fn join(&self) -> std::thread::Result<T> {
        if !self.is_finished() && !wait_for(self.thread.task(), self.kind) {
            return Err(Box::new(Cancelled));
        }
        let result = self.take();
        let result = result.expect("the result of a finished task is there until it is joined");
        if let Err(payload) = &result
            && payload.is::<Cancelled>()
            && self.kind == Kind::Peer
        {
            park::unwind_with_runtime();
        }
        result
    }

    fn take(&self) -> Option<std::thread::Result<T>> {
        // SAFETY: the task is done (the callers know), its results have this type, and there is no
        // other taker (the contract of `new`).
        unsafe { take_result(self.thread.task().body()) }
    }

    /// Drops the result where the task has ended; otherwise the task will.
    /// Returns how the task ended, if that was not well.
    pub(crate) fn detach(&self) -> Option<Unjoined> {
        let done = self.thread.task().completion().detach();
        let unwanted = done.then(|| self.take()).flatten()?;
        let unjoined = unwanted
            .as_ref()
            .err()
            .map(|payload| Unjoined::of(&**payload));
        drop_unwanted(unwanted);
        unjoined
    }
}

/// Waits for the end of `task`, which has not ended just now; returns whether that has come. It never
/// does in a fork of the process that the task runs in.
///
/// # Panics
///
/// If the task is the calling one.
#[inline]
fn wait_for(task: &Task, kind: Kind) -> bool {
    if task.is_left_in_parent() {
        return false;
    }
    assert!(
        !is_running(task),
        "failed to join thread: a coroutine that joins itself waits for ever"
    );
    if std::thread::panicking() {
        refuse_to_wait_alone(task);
    }
    while !task.completion().is_done() {
        let wait = Wait::begin(kind);
        let joiner = wait.waiting();
        let leaving = if task.completion().await_by(&joiner) {
            Some(Leaving(task))
        } else {
            wait.end();
            None
        };
        if wait.suspend(None) == Outcome::Woken {
            mem::forget(leaving);
        }
    }
    true
}

/// The wait of a joiner which may end otherwise than by the end of the task.
struct Leaving<'a>(&'a Task);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.completion().leave();
    }
}

/// Whether `task` is the calling one.
fn is_running(task: &Task) -> bool {
    task::with_running(|running| running.is_some_and(|running| ptr::addr_eq(running, task)))
}

/// Aborts if the caller keeps its worker to itself and `joined` may need the same one.
#[cold]
fn refuse_to_wait_alone(joined: &Task) {
    if let Some(joiner) = task::running()
        && joiner.waits_alone_for(joined)
    {
        fatal::abort(format_args!(
            "{}, unwinding from a panic, joins {}, which may need the same worker to finish",
            Description(&joiner),
            Description(joined),
        ));
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The right to join a coroutine, like [`std::thread::JoinHandle`].
///
/// Dropped, it detaches the coroutine, which runs on.
pub struct JoinHandle<T>(Join<T>);

// SAFETY: as std's: the result crosses to the joiner, which `spawn` has made sure it may (`T:
// Send`); a shared handle gives no access to it.
unsafe impl<T> Send for JoinHandle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// As [`Join::new`]; and `T` may cross threads.
    pub(crate) unsafe fn new(task: TaskRef) -> JoinHandle<T> {
        // SAFETY: the caller's promise is the same.
        JoinHandle(unsafe { Join::new(task) })
    }

    /// Waits for the coroutine to finish.
    ///
    /// # Errors
    ///
    /// The payload of its panic; [`Cancelled`], if its runtime has unwound it, or was gone before it
    /// started, or in a forked child; an [`io::Error`](std::io::Error), if the operating system had no
    /// memory for its stack when it was to start, so that it never did.
    ///
    /// A coroutine that its runtime has left behind does not end, and is waited for for ever: see the
    /// [hazards](crate::guide::hazards).
    ///
    /// # Panics
    ///
    /// If the coroutine joins itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point, unless the coroutine is from
    /// [`spawn_unchecked`](crate::Builder::spawn_unchecked).
    pub fn join(self) -> std::thread::Result<T> {
        self.0.join()
    }

    /// The coroutine's handle.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.0.thread()
    }

    pub(crate) fn into_inner(self) -> Join<T> {
        self.0
    }

    /// The same handle, the join of which does not unwind before the coroutine has ended: others
    /// rely on it.
    pub(crate) fn committed(mut self) -> JoinHandle<T> {
        self.0.kind = Kind::Plain;
        self
    }

    /// Whether the coroutine has finished, so that [`join`](JoinHandle::join) would not wait.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// The right to join a coroutine of the same worker, from [`spawn_local`](crate::spawn_local).
///
/// It does not leave its thread, so the result need not be [`Send`].
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::LocalJoinHandle<()>>();
/// ```
pub struct LocalJoinHandle<T> {
    join: Join<T>,
    /// Not `Send`.
    local: PhantomData<*mut ()>,
}

impl<T> LocalJoinHandle<T> {
    /// # Safety
    ///
    /// As [`Join::new`]; and the task runs on the calling thread.
    pub(crate) unsafe fn new(task: TaskRef) -> LocalJoinHandle<T> {
        // SAFETY: the caller's promise is the same.
        let join = unsafe { Join::new(task) };
        LocalJoinHandle {
            join,
            local: PhantomData,
        }
    }

    /// Waits for the coroutine to finish.
    ///
    /// # Errors
    ///
    /// The payload of its panic; [`Cancelled`], if its runtime has unwound it, or was gone before it
    /// started, or in a forked child; an [`io::Error`](std::io::Error), if the operating system had no
    /// memory for its stack when it was to start, so that it never did.
    ///
    /// A coroutine that its runtime has left behind does not end, and is waited for for ever: see the
    /// [hazards](crate::guide::hazards).
    ///
    /// # Panics
    ///
    /// If the coroutine joins itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn join(self) -> std::thread::Result<T> {
        self.join.join()
    }

    /// The coroutine's handle.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.join.thread()
    }

    /// Whether the coroutine has finished, so that [`join`](LocalJoinHandle::join) would not wait.
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for LocalJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalJoinHandle").finish_non_exhaustive()
    }
}
