//! What a coroutine runs, and what it leaves.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::completion::Completion;
use crate::local;
use crate::park::{Cancelled, Wait};
use crate::task::word::{Kind, Outcome};
use crate::task::{Body, Deadline, Task};

enum Stage<F, T> {
    Fresh(F),
    Taken,
    Done(std::thread::Result<T>),
}

/// A closure until it runs, then its result; with a guard that is dropped last of all.
///
/// Nothing of it is dropped with the task, which stale wakers and handles may keep alive beyond
/// the lifetimes of a scoped closure: `run` or `abandon` consumes the closure, and the handle (or,
/// where that is gone, the end of the task) consumes the result.
pub(crate) struct Packet<F, T, G> {
    stage: UnsafeCell<ManuallyDrop<Stage<F, T>>>,
    guard: UnsafeCell<ManuallyDrop<Option<G>>>,
    completion: Completion<Wait>,
}

// SAFETY: the closure, result and guard are touched by one party at a time: by the owner until
// the completion is done, by the one holder of the handle after that (see the contracts of
// `Body`). Whether they may cross threads is decided where the task is made: `spawn` demands
// `Send` of F and T, `spawn_local` confines owner and handle to one thread.
unsafe impl<F, T, G> Send for Packet<F, T, G> {}
// SAFETY: as above; shared references give no access but through `Body`.
unsafe impl<F, T, G> Sync for Packet<F, T, G> {}

impl<F, T, G> Packet<F, T, G> {
    pub(crate) fn new(f: F, guard: G) -> Packet<F, T, G> {
        Packet {
            stage: UnsafeCell::new(ManuallyDrop::new(Stage::Fresh(f))),
            guard: UnsafeCell::new(ManuallyDrop::new(Some(guard))),
            completion: Completion::new(),
        }
    }

    /// # Safety
    ///
    /// No other access to the stage is under way.
    unsafe fn replace(&self, stage: Stage<F, T>) -> Stage<F, T> {
        // SAFETY: exclusive, says the caller.
        let cell = unsafe { &mut *self.stage.get() };
        ManuallyDrop::into_inner(mem::replace(cell, ManuallyDrop::new(stage)))
    }
}

/// What a packet tells its guard about a result that nobody took.
pub(crate) trait Guard {
    /// The task did not end well, and nobody will join it.
    fn unjoined(&self, _how: Unjoined) {}
}

/// How a task ended whose result nobody takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unjoined {
    Panicked,
    Cancelled,
}

impl Unjoined {
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Unjoined {
        if payload.is::<Cancelled>() {
            Unjoined::Cancelled
        } else {
            Unjoined::Panicked
        }
    }
}

impl Guard for () {}

impl<F, T, G> Packet<F, T, G>
where
    F: FnOnce() -> T,
    G: Guard,
{
    /// Shows the result, and wakes the joiner; returns whether nobody wants the result.
    fn publish(&self) -> bool {
        self.completion.finish(|wait| {
            // SAFETY: the joiner is suspended in this wait, or stays for this to return.
            unsafe { (*wait).end() }
        })
    }

    /// # Safety
    ///
    /// The caller is the one that consumed the closure.
    unsafe fn finish(&self, result: std::thread::Result<T>) {
        // SAFETY: the closure has been consumed by the caller, and the result is not yet visible.
        let guard = unsafe {
            self.replace(Stage::Done(result));
            (*self.guard.get()).take()
        };
        if self.publish() {
            // SAFETY: the handle is gone, so nobody else takes the result.
            if let Stage::Done(result) = unsafe { self.replace(Stage::Taken) } {
                if let (Err(payload), Some(guard)) = (&result, &guard) {
                    guard.unjoined(Unjoined::of(&**payload));
                }
                drop_unwanted(result);
            }
        }
        drop(guard);
    }
}

impl<F, T, G> Body for Packet<F, T, G>
where
    F: FnOnce() -> T,
    G: Guard,
{
    unsafe fn run(&self, task: &Task) {
        // SAFETY: `run` is called once and by the owner, so the closure is there and ours.
        let Stage::Fresh(f) = (unsafe { self.replace(Stage::Taken) }) else {
            unreachable!("a task runs once");
        };
        let result = catch_unwind(AssertUnwindSafe(f));
        task.end_in_its_process();
        local::end(task);
        // SAFETY: the closure was consumed here.
        unsafe { self.finish(result) };
        // What was made meanwhile, by a result that nobody has taken.
        local::end(task);
    }

    unsafe fn abandon(&self, why: Box<dyn Any + Send>) {
        // SAFETY: as in `run`, which is not called.
        let Stage::Fresh(f) = (unsafe { self.replace(Stage::Taken) }) else {
            unreachable!("only a fresh task is abandoned");
        };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(f)));
        local::end_running();
        // SAFETY: the closure was consumed here.
        unsafe { self.finish(Err(dropped.err().unwrap_or(why))) };
    }

    unsafe fn leak(&self, why: Box<dyn Any + Send>) {
        if self.completion.is_done() {
            // Suspended while it dropped its own result, by a destructor that waits.
            return;
        }
        // SAFETY: `run` has taken the closure, and will not come to its result, which is not
        // visible: so nobody else looks at the stage.
        unsafe { self.replace(Stage::Done(Err(why))) };
        if self.publish() {
            // SAFETY: the handle is gone, so nobody else takes the result.
            drop_unwanted(unsafe { self.replace(Stage::Taken) });
        }
        // The guard stays: what the closure borrows, its stack still does.
    }

    fn is_done(&self) -> bool {
        self.completion.is_done()
    }

    fn wait_done(&self, kind: Kind, deadline: Option<Deadline>) -> bool {
        if self.is_done() {
            return true;
        }
        let wait = Wait::begin(kind);
        let leaving = if self.completion.await_by(&wait) {
            Some(Leaving(&self.completion))
        } else {
            wait.end();
            None
        };
        let woken = wait.suspend(deadline) == Outcome::Woken;
        if woken {
            mem::forget(leaving);
        }
        woken
    }

    fn detach(&self) -> bool {
        self.completion.detach()
    }

    unsafe fn take_result(&self, out: *mut ()) {
        // SAFETY: the completion is done and nobody else takes the result, says the caller.
        if let Stage::Done(result) = unsafe { self.replace(Stage::Taken) } {
            // SAFETY: `out` has this type, says the caller.
            unsafe { *out.cast::<Option<std::thread::Result<T>>>() = Some(result) };
        }
    }
}

/// The wait of a joiner which may end otherwise than by the end of the task.
struct Leaving<'a>(&'a Completion<Wait>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Drops a result that nobody will see. A panic in its destructor has nowhere to go but to the
/// hook, which has reported it.
pub(super) fn drop_unwanted<T>(result: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(result))) {
        mem::forget(payload);
    }
}
