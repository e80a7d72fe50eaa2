//! The body of a coroutine's task: first its closure, then its result.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::task::Waker;
use std::thread;

use super::unjoined;
use crate::context::{self, Context};
use crate::diagnose::panic_hook::__rust_begin_short_backtrace;
use crate::diagnose::unjoined::UnjoinedPanic;
use crate::local;
use crate::park::{self, Cancelled};
use crate::task::{self, Body, Change, InterruptScope, Task, Told};

/// A closure until it runs, then its result, which is `None` once it was taken.
///
/// Nothing in here says which of the two it holds; that follows from the progress of the task. The result
/// lies at the start, whatever the type of the closure. So the joiner, which only knows the type of the
/// result, finds it there.
#[repr(C)]
union Stage<F, T> {
    closure: ManuallyDrop<F>,
    result: ManuallyDrop<Option<Result<T, Failure>>>,
}

/// How a task has ended that has not returned.
pub(crate) struct Failure {
    /// That of its panic or cancellation.
    pub(crate) payload: Box<dyn Any + Send>,
    /// The context of a task that has panicked: its hooks are called if nobody joins the task.
    context: Context,
}

impl Failure {
    /// That of `task`.
    ///
    /// # Safety
    ///
    /// The caller runs `task`, or abandons it without running it.
    unsafe fn of(task: &Task, payload: Box<dyn Any + Send>) -> Failure {
        let context = if payload.is::<Cancelled>() {
            Context::empty()
        } else {
            // SAFETY: the caller promises the same.
            unsafe { context::that_of(task) }
        };
        Failure { payload, context }
    }

    /// The panic of `task`, whose failure this is. `None` if the task was cancelled.
    pub(crate) fn into_panic(self, task: &Task) -> Option<UnjoinedPanic> {
        UnjoinedPanic::of(task, self.payload, self.context)
    }
}

/// The body of a task: a closure or its result, and a guard that is dropped after them.
///
/// When the task is freed, nothing in here is dropped. Late wakers and handles may keep the task allocated
/// longer than the borrows of a scoped closure last. Instead, `run` or `abandon` consumes the closure, and
/// the handle consumes the result; or the end of the task does, if the handle is gone.
#[repr(C)]
pub(crate) struct Packet<F, T, G> {
    stage: UnsafeCell<Stage<F, T>>,
    /// `None` once the task has ended.
    guard: UnsafeCell<ManuallyDrop<Option<G>>>,
}

// SAFETY: the parts of a packet are accessed by one thread at a time: by the task's owner until the task is
// done, then by the owner of its only handle (see the contracts of `Body`). Whether the parts may cross
// threads is checked where the task is made: `spawn` demands `Send` of `F`, `T` and `G`, and `spawn_local`
// keeps the owner and the handle on one thread.
unsafe impl<F, T, G> Send for Packet<F, T, G> {}
// SAFETY: a shared packet gives access to its parts only by the unsafe functions of `Body` and
// `take_result`. Their contracts allow one thread at a time.
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

    /// Takes the closure out.
    ///
    /// # Safety
    ///
    /// Called once, by `run` or `abandon`.
    unsafe fn take_closure(&self) -> F {
        // SAFETY: the stage still holds the closure that `new` has put there, since only this call takes
        // it. Nothing else accesses the stage before the task is done.
        unsafe { ManuallyDrop::take(&mut (*self.stage.get()).closure) }
    }

    /// Stores the result, for the handle to take.
    ///
    /// # Safety
    ///
    /// The closure was taken, and the caller is about to end the task, which is not done yet.
    unsafe fn leave(&self, result: Result<T, Failure>) {
        let result = ManuallyDrop::new(Some(result));
        // SAFETY: the closure was taken, so nothing in the stage is lost. Nothing else accesses the stage
        // before the task is done.
        unsafe { self.stage.get().write(Stage { result }) };
    }
}

/// Takes the result of a task. `None` if it was taken before.
///
/// # Safety
///
/// `body` is a `Packet` for results of type `T`. Its task is done, with a result that was stored, and no
/// other call takes the result at the same time.
pub(super) unsafe fn take_result<T>(body: &dyn Body) -> Option<Result<T, Failure>> {
    let result = ptr::from_ref(body).cast::<UnsafeCell<Option<Result<T, Failure>>>>();
    // SAFETY: by their `repr(C)`, the packet begins with its stage, and the stage with the result. The
    // caller promises that the result was stored, and that nothing else accesses it during this call.
    unsafe { (*(*result).get()).take() }
}

/// What a packet drops last, and tells about a result that is not joined.
pub(crate) trait PacketGuard {
    /// `task` has panicked or was cancelled, and will not be joined.
    fn unjoined(&self, failure: Failure, task: &Task);
}

impl PacketGuard for () {
    fn unjoined(&self, failure: Failure, task: &Task) {
        if let Some(panic) = failure.into_panic(task) {
            unjoined::report(panic);
        }
    }
}

impl<F, T, G> Packet<F, T, G>
where
    F: FnOnce() -> T,
    G: PacketGuard,
{
    /// Ends `task` with `result`, and drops its coroutine locals.
    ///
    /// A result that will not be taken is dropped before the coroutine locals, as in std. If that is known
    /// too late, it is dropped after them.
    ///
    /// # Safety
    ///
    /// This is the body of `task`, and the caller has taken its closure.
    unsafe fn finish(&self, task: &Task, result: thread::Result<T>) {
        // SAFETY: the caller runs or abandons the task, which happens once, and nothing else accesses the
        // guard.
        let guard = unsafe { (*self.guard.get()).take() };
        // SAFETY: the caller runs or abandons the task.
        let result = result.map_err(|payload| unsafe { Failure::of(task, payload) });
        if task.completion().is_detached() {
            drop_unjoined(result, guard.as_ref(), task);
            local::end(task);
            publish(task);
        } else {
            local::end(task);
            // SAFETY: the caller has taken the closure, and `publish` below ends the task.
            unsafe { self.leave(result) };
            if publish(task) {
                // SAFETY: this packet's results are of type `T`, and this one was just stored. The handle is
                // gone, so nothing else takes the result.
                if let Some(result) = unsafe { take_result::<T>(self) } {
                    drop_unjoined(result, guard.as_ref(), task);
                    // The result's destructor may have made further values.
                    local::end(task);
                }
            }
        }
        drop(guard);
    }
}

/// Drops a result that will not be taken, and tells the guard how `task` has ended, if it has not returned.
fn drop_unjoined<T>(result: Result<T, Failure>, guard: Option<&impl PacketGuard>, task: &Task) {
    match (result, guard) {
        (Err(failure), Some(guard)) => {
            InterruptScope::enter(Change::End, |_| guard.unjoined(failure, task));
        }
        (unwanted, _) if mem::needs_drop::<T>() => {
            InterruptScope::enter(Change::End, |_| drop_unwanted(unwanted));
        }
        (unwanted, _) => drop_unwanted(unwanted),
    }
}

/// Publishes that the task is done, and wakes the joiner. Returns whether nothing will take the result.
fn publish(task: &Task) -> bool {
    let mut future = None;
    let is_unwanted = task.completion().finish(
        |joiner| {
            // SAFETY: the joiner stays in the frame of this wait while it waits. If its wait ends
            // otherwise, it still stays until `finish` lets go of the wait, after this call. So the joiner
            // exists, and so does the task that its wait belongs to. The joiner of a future is allocated
            // until the future has left, for which it waits for `finish`, too.
            unsafe { (*joiner).arrive(|awaiter| awaiter.end()) }
        },
        |told| match told {
            Told::Task(woken) => woken.schedule(),
            Told::Future(waker) => future = Some(waker),
        },
    );
    if let Some(waker) = future {
        wake_future(waker, task);
    }
    is_unwanted
}

/// Wakes the future that joins `task`. The waker is foreign code. If it panics, the panic hook has reported that,
/// and there is no caller to which the panic could go on.
#[cold]
fn wake_future(waker: Waker, task: &Task) {
    let wake = || InterruptScope::enter(Change::End, |_| waker.wake());
    if let Err(payload) = catch_unwind(AssertUnwindSafe(wake)) {
        mem::forget(payload);
    }
    // The waker may have made values.
    local::end(task);
}

impl<F, T, G> Body for Packet<F, T, G>
where
    F: FnOnce() -> T,
    G: PacketGuard,
{
    unsafe fn run(&self, task: &Task) {
        // SAFETY: the contract of `run`: of `run` and `abandon`, only one is called, and once.
        let f = unsafe { self.take_closure() };
        let result = catch_unwind(AssertUnwindSafe(|| __rust_begin_short_backtrace(f)));
        if result.is_err() {
            task::note_unwound();
        }
        task.end_in_its_process();
        // SAFETY: the contract of `run`: this is the body of `task`. The closure was taken above.
        unsafe { self.finish(task, result) };
    }

    unsafe fn abandon(&self, task: &Task, why: Box<dyn Any + Send>) {
        // SAFETY: the contract of `abandon`: of `run` and `abandon`, only one is called, and once.
        let f = unsafe { self.take_closure() };
        let drop_closure = || InterruptScope::enter(Change::End, |_| drop(f));
        let dropped = catch_unwind(AssertUnwindSafe(drop_closure));
        // SAFETY: the contract of `abandon`: this is the body of `task`. The closure was taken above.
        unsafe { self.finish(task, Err(dropped.err().unwrap_or(why))) };
    }
}

/// Drops a result that will not be taken. If its destructor panics, the panic hook has reported that, and
/// there is no caller to which the panic could go on.
pub(crate) fn drop_unwanted<T>(result: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(result))) {
        if park::is_interrupt(&*payload) {
            task::note_unwound();
        }
        mem::forget(payload);
    }
}
