//! Where the hooks are called for a panic that nobody joins.

use std::any::Any;
use std::panic::Location;

use super::{JoinHandle, Packet, drop_unwanted};
use crate::context::Context;
use crate::diagnose::unjoined::UnjoinedPanic;
use crate::pool;
use crate::task::{self, Interrupts, Role, Task, TaskRef};
use crate::worker::Scheduler;

/// Has the hooks called for `panic`.
///
/// By the caller, unless that is a coroutine that unwinds: a hook that waits there would keep the worker, and
/// a join in it could abort the process. Another coroutine calls the hooks then.
#[cold]
pub(crate) fn report(panic: UnjoinedPanic) {
    let pending = Pending(Some(panic));
    match Scheduler::current() {
        Some(scheduler) if task::is_unwinding() && !scheduler.is_left_in_parent() => {
            report_elsewhere(&scheduler, pending);
        }
        _ => drop(pending),
    }
}

/// Has the hooks called for a panic of the calling coroutine, which has caught it and goes on.
pub(crate) fn report_caught(payload: Box<dyn Any + Send>) {
    task::with_running(|task| match task {
        Some(task) => {
            let panic = UnjoinedPanic::of(task, payload, Context::current());
            panic.into_iter().for_each(report);
        }
        None => drop_unwanted(payload),
    });
}

/// A panic of which the hooks have yet to be told. Tells them when it is dropped: also if that happens because
/// the coroutine that was to do it never runs.
struct Pending(Option<UnjoinedPanic>);

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(panic) = self.0.take() {
            panic.tell();
        }
    }
}

fn report_elsewhere(scheduler: &Scheduler, pending: Pending) {
    let tell = move || drop(pending);
    let Ok(reservation) = scheduler.reserve_stack(None) else {
        return pool::submit_waiting(Box::new(tell));
    };
    let task = Task::new(
        Some("unjoined".into()),
        Location::caller(),
        Role::Spawned,
        scheduler.number(),
        Interrupts::Unwind,
        Some(reservation),
        Packet::new(tell, ()),
    );
    // SAFETY: the closure owns what it uses; it and its result borrow nothing.
    let (task, joined) = unsafe { TaskRef::pair(task) };
    scheduler.spawn(task);
    // SAFETY: the task's body was made for results of type `()`, and this is its only handle.
    drop(unsafe { JoinHandle::<()>::new(joined) });
}
