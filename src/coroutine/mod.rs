//! A stack that code runs on, and the switch onto it and back.
//!
//! This is the layer below tasks: it knows neither who schedules a coroutine nor why it suspends.

pub(crate) mod overflow;
mod pool;
mod stack;

use std::cell::Cell;
use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::ptr;

use corosensei::{CoroutineResult, Yielder};

use crate::sys::memory;

pub(crate) use pool::Pool;
use stack::Stack;
pub(crate) use stack::{Class, Reservation, usage};

/// Why a running coroutine gave up its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspend {
    /// It waits, and somebody will schedule it.
    Parked,
    /// It is still ready, and goes to the end of the queue.
    Yielded,
    /// Its body has ended. The next turn is the first of the same body, run once more.
    Finished,
}

/// A started or startable coroutine.
///
/// One that has finished is startable again: its context stays where it is, for the next task.
///
/// It is never unwound by its own drop, as corosensei's would be: whoever gives up a started
/// coroutine leaks its stack, because others may hold pointers into it.
pub(crate) struct Coroutine {
    inner: ManuallyDrop<corosensei::Coroutine<(), Suspend, Infallible, Stack>>,
    /// Where the suspended coroutine's yielder lies, on its own stack; null before the very first
    /// turn.
    yielder: *const Yielder<(), Suspend>,
    /// Where its body was suspended, on its own stack, or near by; null if that has finished, or not
    /// begun.
    suspended_at: *const u8,
}

thread_local! {
    /// The yielder of the coroutine that runs on this thread; null off-coroutine.
    static YIELDER: Cell<*const Yielder<(), Suspend>> = const { Cell::new(ptr::null()) };

    /// A frame of the coroutine of this thread that was suspended last; null if it had finished.
    static SUSPENDED_AT: Cell<*const u8> = const { Cell::new(ptr::null()) };
}

impl Coroutine {
    /// A coroutine that will run `body` on `stack`, once and again. A panic must not leave `body`.
    fn new(stack: Stack, body: fn()) -> Coroutine {
        let inner = corosensei::Coroutine::with_stack(stack, move |yielder, ()| {
            YIELDER.set(yielder);
            loop {
                body();
                SUSPENDED_AT.set(ptr::null());
                yielder.suspend(Suspend::Finished);
            }
        });
        Coroutine {
            inner: ManuallyDrop::new(inner),
            yielder: ptr::null(),
            suspended_at: ptr::null(),
        }
    }

    /// Runs the coroutine until it suspends or finishes.
    ///
    /// To be called from one function alone, which is not inlined: the worker's.
    #[inline(always)]
    pub(crate) fn resume(&mut self) -> Suspend {
        YIELDER.set(self.yielder);
        let CoroutineResult::Yield(why) = self.inner.resume(());
        self.yielder = YIELDER.replace(ptr::null());
        self.suspended_at = SUSPENDED_AT.get();
        why
    }

    /// Whether its body has begun and not finished.
    pub(crate) fn is_in_body(&self) -> bool {
        !self.suspended_at.is_null()
    }

    /// Has the processor fetch what a resume will touch first. Among thousands of coroutines none
    /// of that is in its caches, nor the translation of its page.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        // What the switch has saved lies just below.
        memory::prefetch(self.suspended_at.wrapping_sub(32));
        memory::prefetch(self.suspended_at.wrapping_add(32));
        memory::prefetch(self.yielder.cast());
    }

    /// As `prefetch`, of one that has slept for long: all that it is likely to return through.
    pub(crate) fn prefetch_frames(&self) {
        const MOST: usize = 16;
        let end = self.yielder.cast::<u8>();
        let lines = (0..MOST).map(|line| self.suspended_at.wrapping_add(line * memory::CACHE_LINE));
        lines
            .take_while(|line| *line < end)
            .for_each(memory::prefetch);
        memory::prefetch(end);
    }

    /// Takes the stack.
    ///
    /// # Panics
    ///
    /// If it is in its body.
    fn into_stack(self) -> Stack {
        assert!(
            !self.is_in_body(),
            "others may have pointers into the stack"
        );
        let mut inner = ManuallyDrop::into_inner(self.inner);
        // SAFETY: it has not been resumed, or is suspended in the loop of `new`. That has a pointer to
        // a function and a reference in its frame, nothing to be dropped.
        unsafe { inner.force_reset() };
        inner.into_stack()
    }
}

/// In the child of a fork: the caller is on no coroutine that can be suspended, even if it was.
pub(crate) fn forget_running() {
    YIELDER.set(ptr::null());
}

/// Suspends the running coroutine until its next turn.
///
/// # Panics
///
/// Off-coroutine.
#[inline(always)]
pub(crate) fn suspend(why: Suspend) {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a coroutine can be suspended");
    SUSPENDED_AT.set((&raw const yielder).cast());
    // SAFETY: non-null, this is the yielder of the coroutine that runs on this thread (set by
    // `resume` or by the coroutine's first instructions, cleared when control returns). It lies
    // at the bottom of the running coroutine's stack, so it outlives this call.
    unsafe { (*yielder).suspend(why) };
}
