//! Joining: waiting for a coroutine's result.
//!
//! The task keeps its result in its body (`packet`). A `task::completion` says whether the task has ended.
//! Only the handle takes the result. If the handle is dropped unused, then the handle's drop or the end of
//! the task, whichever comes later, drops the result.

mod arm;
mod cancel;
mod future;
pub(crate) mod many;
mod packet;
mod registration;
pub(crate) mod unjoined;

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use super::thread::Thread;
use crate::diagnose::dropped_handle;
use crate::fatal;
use crate::park::{self, Cancelled, Wait, Waited};
use crate::task::word::{Kind, Outcome};
use crate::task::{
    self, Awaited, Awaiter, Awaiting, Awaits, Deadline, Description, Joiner, Reason, Task, TaskRef,
};

pub(crate) use arm::JoinArm;
pub use cancel::{CancelOnDrop, Canceller};
pub use future::JoinFuture;
pub use many::{
    Joinable, join_all, join_any, try_join_all, try_join_all_by, wait_all, wait_any, wait_count,
};
use packet::take_result;
pub(crate) use packet::{Failure, Packet, PacketGuard, drop_unwanted};

/// The only right to a task's result.
///
/// If this is dropped unused, then the drop of this or the end of the task, whichever comes later, drops the
/// result.
pub(crate) struct Join<T> {
    thread: Thread,
    /// The kind of the wait: interruptible or not.
    kind: Kind,
    /// The result, which is shared with the task until that ends. As std's handles, this is invariant in `T`
    /// and not unwind safe.
    result: PhantomData<Arc<UnsafeCell<T>>>,
}

impl<T> Join<T> {
    /// The right to the result of `task`.
    ///
    /// # Safety
    ///
    /// The task's body is a `Packet` for results of type `T`, and this is its only `Join`.
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

    /// Waits until the task has ended, and takes its result.
    pub(crate) fn join(&self) -> std::thread::Result<T> {
        if self.wait(None) == Ended::Never {
            return Err(Box::new(Cancelled));
        }
        let result = self.take();
        let result = result.expect("the result of a finished task is there until it is joined");
        // If the runtime stops, unwind now rather than report another coroutine's cancellation.
        if let Err(failure) = &result
            && failure.payload.is::<Cancelled>()
            && self.kind == Kind::Peer
        {
            park::unwind_with_runtime();
        }
        result.map_err(|failure| failure.payload)
    }

    /// Like `join`, until `deadline`. `None` if the task has not ended by then.
    pub(crate) fn join_until(&self, deadline: Option<Deadline>) -> Option<std::thread::Result<T>> {
        (self.wait(deadline) != Ended::NotYet).then(|| self.join())
    }

    /// Waits until the task has ended, or until `deadline`. To be called by one task at a time.
    fn wait(&self, deadline: Option<Deadline>) -> Ended {
        match self.is_finished() {
            true => Ended::Now,
            false => wait_for(self.thread.task(), self.kind, deadline),
        }
    }

    /// Takes the result. To be called when the task is done.
    fn take(&self) -> Option<Result<T, Failure>> {
        // SAFETY: the task is done, as both callers have checked. The caller of `new` has promised that the
        // body is a `Packet` for results of type `T`, and that there is no other `Join`, which could take
        // the result at the same time.
        unsafe { take_result(self.thread.task().body()) }
    }

    /// Gives up the result. Drops it if the task has ended; otherwise the task will drop it.
    ///
    /// If the task has ended without returning, and was not joined, returns its failure.
    pub(crate) fn detach(&self) -> Option<Failure> {
        let task = self.thread.task();
        if task.completion().is_detached() {
            return None;
        }
        if !task.completion().detach() {
            dropped_handle::note::<T>(task);
            return None;
        }
        match self.take()? {
            Ok(unwanted) => {
                dropped_handle::note::<T>(task);
                drop_unwanted(unwanted);
                None
            }
            Err(failure) => Some(failure),
        }
    }
}

/// Whether a task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Now,
    NotYet,
    /// It does not run in this process, which is a fork of the one that made it.
    Never,
}

/// Waits until `task` has ended, or until `deadline`.
///
/// # Panics
///
/// If the task is the calling one.
#[inline]
fn wait_for(task: &Task, kind: Kind, deadline: Option<Deadline>) -> Ended {
    if task.is_left_in_parent() {
        return Ended::Never;
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
        let joiner = Joiner::of_one(Awaiter::Task(wait.waiting()));
        let leaving = if task.completion().await_by(&joiner) {
            Some(Leaving(task))
        } else {
            // The task has ended meanwhile. A wait that has begun must be suspended, which returns at once.
            wait.end();
            None
        };
        let waited = wait.try_suspend(Awaiting::Described(&Joined(&[task])), deadline);
        match waited {
            // The finisher has ended the wait, and does not use it any more.
            Waited::Woken => mem::forget(leaving),
            _ => drop(leaving),
        }
        drop(wait);
        if waited.or_unwind() == Outcome::TimedOut && !task.completion().is_done() {
            return Ended::NotYet;
        }
    }
    Ended::Now
}

/// The tasks that a joiner waits for.
pub(super) struct Joined<'a>(pub(super) &'a [&'a Task]);

impl Awaited for Joined<'_> {
    fn describe(&self) -> Awaits {
        Awaits {
            tasks: self.0.iter().map(|task| task.id().get()).collect(),
            ..Awaits::new(Reason::Join)
        }
    }
}

/// Takes the joiner's wait back from the task's completion when dropped, since the wait has ended without
/// the task's end. Also runs if the joiner unwinds.
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

/// Aborts if the caller keeps its worker to itself while it waits, and `joined` may need that worker.
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
        let failure = self.detach();
        if let Some(panic) = failure.and_then(|failure| failure.into_panic(self.thread.task())) {
            unjoined::report(panic);
        }
    }
}

/// Joins a coroutine, like [`std::thread::JoinHandle`]. Async code can await it: see [`JoinFuture`].
///
/// Dropping the handle detaches the coroutine, which runs on.
pub struct JoinHandle<T>(Join<T>);

// SAFETY: as std's handle. Whichever thread has the handle gets the result. The caller of `new` has promised
// that the result may cross threads.
unsafe impl<T> Send for JoinHandle<T> {}
// SAFETY: a shared handle gives no access to the result, only to a `Thread`, which is `Sync`, and to the
// atomics of the task's completion.
unsafe impl<T> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// The handle of `task`.
    ///
    /// # Safety
    ///
    /// The task's body is a `Packet` for results of type `T`, and this is its only handle. Values of type
    /// `T` may cross threads.
    pub(crate) unsafe fn new(task: TaskRef) -> JoinHandle<T> {
        // SAFETY: the caller promises that the body is a `Packet` for results of type `T`, and that there is
        // no other handle.
        JoinHandle(unsafe { Join::new(task) })
    }

    /// Waits for the coroutine to finish, and returns its result.
    ///
    /// # Errors
    ///
    /// - the payload of the coroutine's panic;
    /// - [`Cancelled`], if the coroutine was [cancelled](JoinHandle::cancel), if its runtime has unwound it
    ///   or was gone before it started; and in a forked child, where the coroutine does not run;
    /// - an [`io::Error`](std::io::Error), if the operating system had no memory for the coroutine's stack,
    ///   so that the coroutine never started.
    ///
    /// A coroutine that its runtime has left behind never finishes, so this waits for ever. See the
    /// [hazards](crate::guide::hazards).
    ///
    /// # Panics
    ///
    /// If the coroutine joins itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point, unless the coroutine was spawned by
    /// [`spawn_unchecked`](crate::Builder::spawn_unchecked).
    pub fn join(self) -> std::thread::Result<T> {
        self.0.join()
    }

    /// The coroutine's handle.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.0.thread()
    }

    /// Waits for the coroutine to finish, for `timeout` at most, and returns its result. See
    /// [`join`](JoinHandle::join).
    ///
    /// ```
    /// use greenroom::shims::thread::sleep;
    /// use std::time::Duration;
    ///
    /// let slow = greenroom::spawn(|| sleep(Duration::from_secs(60)));
    /// let slow = slow.join_timeout(Duration::from_millis(1)).expect_err("it still sleeps");
    /// slow.cancel();
    /// assert!(slow.join().is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The handle, if the coroutine has not finished by then.
    ///
    /// # Panics
    ///
    /// If the coroutine joins itself.
    ///
    /// # Unwinding
    ///
    /// As `join`.
    pub fn join_timeout(self, timeout: Duration) -> Result<std::thread::Result<T>, JoinHandle<T>> {
        self.0.join_until(Deadline::after(timeout)).ok_or(self)
    }

    pub(crate) fn into_inner(self) -> Join<T> {
        self.0
    }

    /// This handle, but its join is no interruption point: it does not end before the coroutine has ended.
    /// Unsafe code relies on that.
    pub(crate) fn committed(mut self) -> JoinHandle<T> {
        self.0.kind = Kind::Plain;
        self
    }

    /// Whether the coroutine has finished, so that [`join`](JoinHandle::join) would not wait.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Joins a coroutine of the same worker. [`spawn_local`](crate::spawn_local) returns it.
///
/// The handle cannot leave its thread, so the result need not be [`Send`]. Dropping the handle detaches the
/// coroutine, which runs on.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::LocalJoinHandle<()>>();
/// ```
pub struct LocalJoinHandle<T> {
    join: Join<T>,
    /// Keeps the handle on its thread: it is neither `Send` nor `Sync`.
    local: PhantomData<*mut ()>,
}

impl<T> LocalJoinHandle<T> {
    /// The handle of `task`.
    ///
    /// # Safety
    ///
    /// The task's body is a `Packet` for results of type `T`, and this is its only handle. The task runs on
    /// the calling thread.
    pub(crate) unsafe fn new(task: TaskRef) -> LocalJoinHandle<T> {
        // SAFETY: the caller promises that the body is a `Packet` for results of type `T`, and that there is
        // no other handle.
        let join = unsafe { Join::new(task) };
        LocalJoinHandle {
            join,
            local: PhantomData,
        }
    }

    /// Waits for the coroutine to finish, and returns its result.
    ///
    /// # Errors
    ///
    /// - the payload of the coroutine's panic;
    /// - [`Cancelled`], if the coroutine was [cancelled](JoinHandle::cancel), if its runtime has unwound it
    ///   or was gone before it started; and in a forked child, where the coroutine does not run;
    /// - an [`io::Error`](std::io::Error), if the operating system had no memory for the coroutine's stack,
    ///   so that the coroutine never started.
    ///
    /// A coroutine that its runtime has left behind never finishes, so this waits for ever. See the
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
