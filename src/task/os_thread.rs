//! OS threads as tasks. A thread that waits through this crate is its own owner.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::word::{Outcome, Seq};
use super::{Body, Deadline, Interrupts, Link, Owner, Role, Task, TaskRef};
use crate::fatal;
use crate::sys::switches::own_lock;
use crate::sys::thread_end::AtEnd;

thread_local! {
    /// The thread's task, once it was needed. Stands for a reference, which `forget` takes back.
    ///
    /// It has no destructor of its own, since the destructors of other thread-locals may wait, too. They
    /// must find the task under which the thread is known from before.
    static THREAD: Cell<Option<NonNull<Task>>> = const { Cell::new(None) };

    /// Whether the task is being made. That allocates, and the allocator may want to wait.
    static BEING_MADE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is making its task, and has none yet.
pub(super) fn is_being_made() -> bool {
    BEING_MADE.get()
}

/// The calling OS thread's task.
pub(super) fn current() -> TaskRef {
    let Some(task) = THREAD.get() else {
        return first();
    };
    // SAFETY: `THREAD` stands for a reference until `forget` takes that back, on this thread.
    unsafe { TaskRef::another(task) }
}

/// Whether the calling thread has its task.
pub(super) fn is_prepared() -> bool {
    THREAD.get().is_some()
}

/// Makes sure that the calling thread has its task.
pub(super) fn prepare() {
    if !is_prepared() {
        drop(first());
    }
}

/// Makes the calling thread's task.
#[cold]
#[track_caller]
fn first() -> TaskRef {
    if BEING_MADE.replace(true) {
        fatal::abort(format_args!(
            "the global allocator waits, and not for a lock, when a thread waits for the first time"
        ));
    }
    let (task, kept) = new();
    THREAD.set(Some(ManuallyDrop::new(kept).as_ptr()));
    BEING_MADE.set(false);
    // `forget` is called at the end of the thread if the kept pointer is not null; which pointer does not
    // matter. If this fails, the task is leaked.
    let _ = AT_END.keep((&raw const AT_END).cast_mut().cast());
    task
}

/// Calls `forget` at the end of each thread that has a task, after the destructors of thread-locals.
static AT_END: AtEnd = AtEnd::new(forget);

/// Drops the reference that `THREAD` stands for.
extern "C" fn forget(_: *mut c_void) {
    if let Some(task) = THREAD.take() {
        // SAFETY: `THREAD` stood for a reference that `first` has forgotten, and now is empty, so the
        // reference is restored only once.
        drop(unsafe { TaskRef::taken_back(task) });
    }
}

#[track_caller]
fn new() -> (TaskRef, TaskRef) {
    let name = std::thread::current().name().map(Box::from);
    let owner: Box<Arc<dyn Owner>> = Box::new(Arc::new(OsThread::default()));
    let body = NoBody { owner };
    let task = Task::new(
        name,
        Location::caller(),
        Role::OsThread,
        0,
        Interrupts::Unwind,
        None,
        body,
    );
    // SAFETY: the task is new, so it has not been pinned. The owner lies in a box, which the task's body
    // keeps in place as long as the task exists.
    unsafe { Task::pin(&task, &task.body.owner, 0) };
    // SAFETY: the body borrows nothing.
    unsafe { TaskRef::pair(task) }
}

/// Where an OS thread sleeps while its task waits.
#[derive(Default)]
struct OsThread {
    /// The task's wait has ended.
    scheduled: Mutex<bool>,
    changed: Condvar,
}

impl Owner for OsThread {
    fn schedule_here(&self, _slot: u32) -> bool {
        false
    }

    unsafe fn schedule(&self, _: &Link) {
        *own_lock(&self.scheduled) = true;
        self.changed.notify_one();
    }

    fn runs_at_once(&self) -> bool {
        // The system runs the thread sooner or later, whatever other tasks do.
        true
    }

    fn arm(&self, _: u32, _: Deadline, _: Seq) {
        unreachable!("an OS thread sleeps with its deadline");
    }

    fn disarm(&self, _: u32) {
        unreachable!("an OS thread sleeps with its deadline");
    }

    fn suspend(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) {
        let mut scheduled = self
            .scheduled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !*scheduled {
            let Some(deadline) = deadline else {
                scheduled = self
                    .changed
                    .wait(scheduled)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.at.saturating_duration_since(Instant::now());
            if left.is_zero() && task.word.wake(seq, Outcome::TimedOut) {
                return;
            }
            // If the deadline has passed and the wait has ended otherwise, the waker is about to call
            // `schedule`. The thread must wait for that call, so that it does not end a later wait.
            let limit = if left.is_zero() { Duration::MAX } else { left };
            let waited = self.changed.wait_timeout(scheduled, limit);
            scheduled = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *scheduled = false;
    }

    fn waits_alone(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn refuse_deadlock(&self, _: &Task, _: u32) -> ! {
        unreachable!("an OS thread keeps nobody from running");
    }
}

/// The body of an OS thread's task, which runs no code of this crate.
struct NoBody {
    /// The task's owner. In a box, since tasks point to the `Arc`.
    owner: Box<Arc<dyn Owner>>,
}

impl Body for NoBody {
    unsafe fn run(&self, _: &Task) {
        unreachable!("an OS thread runs by itself");
    }

    unsafe fn abandon(&self, _: &Task, _: Box<dyn Any + Send>) {
        unreachable!("an OS thread is never queued");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_thread_goes_with_the_thread() {
        let task = std::thread::spawn(|| {
            let task = current();
            assert_eq!(task.as_ptr(), current().as_ptr());
            task
        });
        let task = task.join().unwrap();
        assert!(task.is_referred_to_once(), "only from here");
    }
}
