//! What a coroutine runs, and what it leaves.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::thread;

use crate::local;
use crate::park::Cancelled;
use crate::task::{self, Body, Task, Woken};

/// A closure until it runs, then its result, until that is taken.
///
/// What it holds shows in the task's progress alone. The result lies at the beginning, whatever the
/// closure is: there the joiner finds it, which knows its type and no more.
#[repr(C)]
union Stage<F, T> {
    closure: ManuallyDrop<F>,
    result: ManuallyDrop<Option<thread::Result<T>>>,
}

/// A closure until it runs, then its result; with a guard that is dropped last of all.
///
/// Nothing of it is dropped with the task, which stale wakers and handles may keep alive beyond
/// the lifetimes of a scoped closure: `run` or `abandon` consumes the closure, and the handle (or,
/// where that is gone, the end of the task) consumes the result.
#[repr(C)]
pub(crate) struct Packet<F, T, G> {
    stage: UnsafeCell<Stage<F, T>>,
    guard: UnsafeCell<ManuallyDrop<Option<G>>>,
}

// SAFETY: the closure, result and guard are touched by one party at a time: by the owner until
// the task is done, by the one holder of the handle after that (see the contracts of
// `Body`). Whether they may cross threads is decided where the task is made: `spawn` demands
// `Send` of F and T, `spawn_local` confines owner and handle to one thread.
unsafe impl<F, T, G> Send for Packet<F, T, G> {}
// SAFETY: as above; shared references give no access but through `Body`.
unsafe impl<F, T, G> Sync for Packet<F, T, G> {}

impl<F, T, G> Packet<F, T, G> {
    pub(crate) fn new(f: F, guard: G) -> Packet<F, T, G> {
        Packet {
            stage: UnsafeCell::new(Stage {
                closure: ManuallyDrop::new(f),
            }),
            guard: UnsafeCell::new(ManuallyDrop::new(Some(guard))),
        }
    }

    /// # Safety
    ///
    /// Called once, by `run` or `abandon`.
    unsafe fn take_closure(&self) -> F {
        // SAFETY: the stage is what `new` made of it, and nobody else looks at it before a result
        // is there. It is not read as a closure again.
        unsafe { ManuallyDrop::take(&mut (*self.stage.get()).closure) }
    }

    /// # Safety
    ///
    /// The closure was taken, the task is not done, and the caller is the one that ends it.
    unsafe fn leave(&self, result: thread::Result<T>) {
        let result = ManuallyDrop::new(Some(result));
        // SAFETY: nobody else looks at the stage before the task is done.
        unsafe { self.stage.get().write(Stage { result }) };
    }
}

/// Takes the result of a task, unless it was taken.
///
/// # Safety
///
/// `body` is a `Packet` for results of type `T`; its task is done, and no other call takes the result
/// at the same time.
pub(super) unsafe fn take_result<T>(body: &dyn Body) -> Option<thread::Result<T>> {
    let result = ptr::from_ref(body).cast::<UnsafeCell<Option<thread::Result<T>>>>();
    // SAFETY: by their layouts, the packet begins with its stage, and that with the result, which
    // `leave` has put there; access to it is exclusive, says the caller.
    unsafe { (*(*result).get()).take() }
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
    /// Ends `task`, and its locals. A result that nobody wants is dropped before these, as in std;
    /// after them if that turns out too late.
    ///
    /// # Safety
    ///
    /// The caller is the one that took the closure of `task`'s body, this.
    unsafe fn finish(&self, task: &Task, result: thread::Result<T>) {
        // SAFETY: as the caller says; the guard is its too.
        let guard = unsafe { (*self.guard.get()).take() };
        if task.completion().is_detached() {
            drop_unjoined(result, guard.as_ref());
            local::end(task);
            publish(task);
        } else {
            local::end(task);
            // SAFETY: as the caller says.
            unsafe { self.leave(result) };
            if publish(task) {
                // SAFETY: the handle is gone, so nobody else takes the result.
                if let Some(result) = unsafe { take_result::<T>(self) } {
                    drop_unjoined(result, guard.as_ref());
                    // What that has made.
                    local::end(task);
                }
            }
        }
        drop(guard);
    }
}

/// Drops a result that nobody will see, and tells the guard how the task ended.
fn drop_unjoined<T>(result: thread::Result<T>, guard: Option<&impl Guard>) {
    if let (Err(payload), Some(guard)) = (&result, guard) {
        guard.unjoined(Unjoined::of(&**payload));
    }
    drop_unwanted(result);
}

/// Shows that the task is done, and wakes the joiner; returns whether nobody wants the result.
fn publish(task: &Task) -> bool {
    task.completion().finish(|joiner| {
        // SAFETY: the joiner is suspended in this wait, or stays for this to return.
        let woken = unsafe { (*joiner).end() };
        woken.map(Woken::schedule).is_some()
    })
}

impl<F, T, G> Body for Packet<F, T, G>
where
    F: FnOnce() -> T,
    G: Guard,
{
    unsafe fn run(&self, task: &Task) {
        // SAFETY: `run` is called once.
        let f = unsafe { self.take_closure() };
        let result = catch_unwind(AssertUnwindSafe(f));
        if result.is_err() {
            task::note_unwound();
        }
        task.end_in_its_process();
        // SAFETY: the closure was taken here.
        unsafe { self.finish(task, result) };
    }

    unsafe fn abandon(&self, task: &Task, why: Box<dyn Any + Send>) {
        // SAFETY: as in `run`, which is not called.
        let f = unsafe { self.take_closure() };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(f)));
        // SAFETY: the closure was taken here.
        unsafe { self.finish(task, Err(dropped.err().unwrap_or(why))) };
    }
}

/// Drops a result that nobody will see. A panic in its destructor has nowhere to go but to the
/// hook, which has reported it.
pub(super) fn drop_unwanted<T>(result: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(result))) {
        mem::forget(payload);
    }
}
