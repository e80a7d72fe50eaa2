//! OS threads as tasks: a thread that waits through this crate owns itself.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::word::{Outcome, Seq};
use super::{Body, Deadline, Link, Owner, Role, Task, TaskRef};
use crate::fatal;
use crate::sys::switches::own_lock;
use crate::sys::thread_end::AtEnd;

thread_local! {
    /// The thread's task, when it has waited or was asked for: stands for a reference that was
    /// forgotten. Without a destructor: those of others' thread-locals may wait, too, and are found
    /// by who knows the thread from before.
    static THREAD: Cell<Option<NonNull<Task>>> = const { Cell::new(None) };

    /// The task is being made, which allocates: and the allocator may want to wait.
    static BEING_MADE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is about to have a task, and has none yet.
pub(super) fn is_being_made() -> bool {
    BEING_MADE.get()
}

/// The calling OS thread's task.
pub(super) fn current() -> TaskRef {
    let Some(task) = THREAD.get() else {
        return first();
    };
    // SAFETY: `THREAD` stands for one reference until `forget` takes that out, on this thread.
    unsafe { TaskRef::another(task) }
}

/// Whether the calling thread has its task.
pub(super) fn is_prepared() -> bool {
    THREAD.get().is_some()
}

/// Has the calling thread have its task.
pub(super) fn prepare() {
    if !is_prepared() {
        drop(first());
    }
}

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
    // Anything but null. Where that fails the task is leaked.
    let _ = AT_END.keep((&raw const AT_END).cast_mut().cast());
    task
}

/// Destructors of thread-locals, which go first, still are the thread.
static AT_END: AtEnd = AtEnd::new(forget);

/// The thread ends.
extern "C" fn forget(_: *mut c_void) {
    if let Some(task) = THREAD.take() {
        // SAFETY: `THREAD` stood for it, and does no more.
        drop(unsafe { TaskRef::taken_back(task) });
    }
}

#[track_caller]
fn new() -> (TaskRef, TaskRef) {
    let name = std::thread::current().name().map(Box::from);
    let owner: Box<Arc<dyn Owner>> = Box::new(Arc::new(OsThread::default()));
    let body = NoBody { owner };
    let task = Task::new(name, Location::caller(), Role::OsThread, 0, None, body);
    // SAFETY: it is new; and the owner stays in its place as long as the task is there.
    unsafe { Task::pin(&task, &task.body.owner, 0) };
    // SAFETY: it borrows nothing.
    unsafe { TaskRef::pair(task) }
}

/// Where an OS thread sleeps.
#[derive(Default)]
struct OsThread {
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
        // Sooner or later the system sees to that.
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
            // Beyond its deadline but woken: the waker is about to say so.
            let patience = if left.is_zero() { Duration::MAX } else { left };
            let waited = self.changed.wait_timeout(scheduled, patience);
            scheduled = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *scheduled = false;
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn waits_alone(&self) -> bool {
        false
    }

    fn refuse_deadlock(&self, _: &Task, _: u32) -> ! {
        unreachable!("an OS thread keeps nobody from running");
    }
}

/// What an OS thread runs is not ours.
struct NoBody {
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
