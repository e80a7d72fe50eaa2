//! OS threads as tasks: a thread that waits through this crate owns itself.

use std::any::Any;
use std::panic::Location;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::word::{Kind, Outcome, Seq};
use super::{Body, Deadline, Owner, Role, Task, TaskRef};

thread_local! {
    static THREAD: TaskRef = new();
}

/// The calling OS thread's task.
pub(super) fn current() -> TaskRef {
    // While the thread's locals are torn down a passing identity has to do: a destructor may
    // still wait, but nobody can have kept a handle of it.
    THREAD.try_with(Arc::clone).unwrap_or_else(|_| new())
}

#[track_caller]
fn new() -> TaskRef {
    let name = std::thread::current().name().map(Box::from);
    let owner = Arc::new(OsThread::default());
    let body = NoBody { owner };
    let task = Task::new(name, Location::caller(), Role::OsThread, None, body);
    let task = Arc::new(task);
    // SAFETY: it is new; and the owner is a part of it.
    unsafe { Task::pin(&*task, &task.body.owner, 0) };
    task
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

    fn schedule(&self, _slot: u32) {
        *self
            .scheduled
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
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

    fn waits_alone(&self) -> bool {
        false
    }
}

/// What an OS thread runs is not ours.
struct NoBody {
    owner: Arc<dyn Owner>,
}

impl Body for NoBody {
    unsafe fn run(&self, _: &Task) {
        unreachable!("an OS thread runs by itself");
    }

    unsafe fn abandon(&self, _: Box<dyn Any + Send>) {
        unreachable!("an OS thread is never queued");
    }

    unsafe fn leak(&self, _: Box<dyn Any + Send>) {
        unreachable!("an OS thread has no owner to give it up");
    }

    fn is_done(&self) -> bool {
        false
    }

    fn wait_done(&self, _: Kind, _: Option<Deadline>) -> bool {
        unreachable!("an OS thread has no handle here");
    }

    fn detach(&self) -> bool {
        unreachable!("an OS thread has no handle here");
    }

    unsafe fn take_result(&self, _: *mut ()) {
        unreachable!("an OS thread has no handle here");
    }
}
