//! Coroutines: code on a stack of its own, and the switch onto that stack and back.
//!
//! This is the layer below tasks. It knows nothing of schedulers, waits or wake-ups: a coroutine is
//! resumed, and runs until it suspends itself.
//!
//! - `stack`: one stack, a slot with a guard at its low end.
//! - `slab`: mappings that are cut into stacks.
//! - `class`: all stacks of one size; the accounting that lets `spawn` report that there are none.
//! - `pool`: the idle coroutines that a worker keeps for the tasks to come.
//! - `root`: the frame at which the backtraces of coroutines end.
//! - `perf_map`: the names of coroutines, for perf.
//! - `sight`: the backtrace of a coroutine that runs on another thread.
//! - `unwind`: walks over stacks from any registers on.
//! - `overflow`: the report and the abort when a stack overflows into its guard.
//!
//! # The life of a coroutine
//!
//! ```text
//!              resume                     the body returns
//!   startable ────────▶ running ───────────────────────────▶ startable again,
//!                        │   ▲                               on the same stack
//!     suspend: Parked or │   │ resume
//!                Yielded ▼   │
//!                      suspended
//! ```
//!
//! The body is one function for all coroutines of a pool: it runs one task. So the coroutine of a
//! finished task serves the next task without being torn down and built again.

mod class;
#[cfg(test)]
pub(crate) mod lacks;
pub(crate) mod overflow;
pub(crate) mod perf_map;
mod pool;
mod root;
mod sight;
mod slab;
mod stack;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod unwind;

use std::cell::Cell;
use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::ptr;

use corosensei::{CoroutineResult, Yielder};

use crate::sys::memory;

pub(crate) use class::{Class, Reservation, reserved, usage};
pub(crate) use pool::CoroutinePool;
pub(crate) use sight::{Seen, Sight};
use stack::Stack;

/// Why a coroutine returned control to the thread that resumed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspend {
    /// The coroutine waits. A waker will make it runnable.
    Parked,
    /// The coroutine is still runnable, and goes to the end of the queue.
    Yielded,
    /// The body has returned. The next resume calls the body once more.
    Finished,
}

/// A coroutine: startable, or started and suspended, or running.
///
/// Dropping it leaks its stack: other code may hold pointers into that. (corosensei's own drop would
/// unwind it.) [`into_stack`](Coroutine::into_stack) takes the stack back for reuse.
pub(crate) struct Coroutine {
    inner: ManuallyDrop<corosensei::Coroutine<(), Suspend, Infallible, Stack>>,
    /// The address of the suspended coroutine's yielder, which lies at the bottom of its stack.
    /// Null before the very first resume.
    yielder: *const Yielder<(), Suspend>,
    /// The address that `suspend` was called with: of a local variable in the frame that suspended the
    /// coroutine, on its own stack. Null if the body has not begun, or has finished.
    suspended_at: *const u8,
}

thread_local! {
    /// The yielder of the coroutine that runs on this thread. Null off-coroutine.
    static YIELDER: Cell<*const Yielder<(), Suspend>> = const { Cell::new(ptr::null()) };

    /// The `suspended_at` of the coroutine that was suspended last on this thread.
    static SUSPENDED_AT: Cell<*const u8> = const { Cell::new(ptr::null()) };
}

impl Coroutine {
    /// A coroutine that will run `body` on `stack`, again and again. A panic must not leave `body`.
    fn new(stack: Stack, body: fn()) -> Coroutine {
        let inner = corosensei::Coroutine::with_stack(stack, move |yielder, ()| {
            // The very first resume, which did not know the yielder yet.
            YIELDER.set(yielder);
            root::call(|| {
                loop {
                    body();
                    SUSPENDED_AT.set(ptr::null());
                    yielder.suspend(Suspend::Finished);
                }
            })
        });
        Coroutine {
            inner: ManuallyDrop::new(inner),
            yielder: ptr::null(),
            suspended_at: ptr::null(),
        }
    }

    /// Runs the coroutine on the calling thread until it suspends or finishes.
    ///
    /// Only one function in the program may call this: the worker's loop, which is never inlined.
    /// So no code around the switch can carry the address of a thread-local across it. The switch
    /// itself is inlined into that loop, because a processor mispredicts the return from a function
    /// that has switched stacks.
    #[inline(always)]
    pub(crate) fn resume(&mut self) -> Suspend {
        YIELDER.set(self.yielder);
        // The coroutine never returns: `new` made it an endless loop.
        let CoroutineResult::Yield(why) = self.inner.resume(());
        // The coroutine's yielder: set above or, on the very first resume, by the coroutine.
        self.yielder = YIELDER.replace(ptr::null());
        self.suspended_at = SUSPENDED_AT.get();
        why
    }

    /// Whether the body has begun and not finished.
    pub(crate) fn is_in_body(&self) -> bool {
        !self.suspended_at.is_null()
    }

    /// The variable that the suspended coroutine was suspended with. Null if the body has not begun, or has
    /// finished.
    pub(crate) fn suspended_at(&self) -> *const u8 {
        self.suspended_at
    }

    /// The stack of a coroutine that has been resumed, if it has `usable` bytes.
    pub(crate) fn extent(&self, usable: usize) -> Extent {
        let root = self.yielder.addr();
        // The top lies above the yielder, less than a page below the end of the slot: see `stack`.
        let end = (root + 1).next_multiple_of(memory::page_size());
        Extent {
            root,
            end,
            low: end - usable,
            at: self.suspended_at.addr(),
        }
    }

    /// Prefetches the memory that a resume touches first. Among thousands of coroutines, neither
    /// that memory nor the translation of its page is in the processor's caches.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        // The registers that the switch has saved lie just below, perhaps in another cache line.
        memory::prefetch(self.suspended_at.wrapping_sub(32));
        memory::prefetch(self.suspended_at.wrapping_add(32));
        memory::prefetch(self.yielder.cast());
    }

    /// Like `prefetch`, for a coroutine that has slept for long: prefetches the frames that it will
    /// return through as well.
    pub(crate) fn prefetch_frames(&self) {
        /// The most cache lines to prefetch, from where the coroutine was suspended upwards.
        const MOST_LINES: usize = 16;
        let end = self.yielder.cast::<u8>();
        let lines =
            (0..MOST_LINES).map(|line| self.suspended_at.wrapping_add(line * memory::CACHE_LINE));
        lines
            .take_while(|line| *line < end)
            .for_each(memory::prefetch);
        memory::prefetch(end);
    }

    /// Ends a coroutine that is not in its body, and returns its stack for reuse.
    ///
    /// # Panics
    ///
    /// If the coroutine is in its body.
    fn into_stack(self) -> Stack {
        assert!(
            !self.is_in_body(),
            "other code may hold pointers into the stack"
        );
        let mut inner = ManuallyDrop::into_inner(self.inner);
        // SAFETY: the coroutine has never been resumed, or it is suspended in the loop of `new`.
        // The only frames on its stack are then that loop's and those below, which hold a function
        // pointer and a reference: nothing that would have to be dropped.
        unsafe { inner.force_reset() };
        inner.into_stack()
    }
}

/// The stack of a suspended coroutine, as addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The frames of the coroutine lie below this.
    root: usize,
    /// The end of the usable bytes.
    end: usize,
    /// The lowest usable byte.
    low: usize,
    /// Lies in the frame that has suspended the coroutine.
    at: usize,
}

impl Extent {
    /// Whether a frame of this stack pointer is on the stack.
    pub(crate) fn has_frame(&self, stack: usize) -> bool {
        stack >= self.low && stack <= self.root
    }

    /// Whether a frame of this stack pointer is the one that has suspended the coroutine, or was called by that.
    /// Of several such frames, the outermost has.
    pub(crate) fn is_suspending(&self, stack: usize) -> bool {
        stack <= self.at
    }

    /// The bytes that are in use.
    pub(crate) fn depth(&self) -> usize {
        self.end - self.at
    }

    /// The most bytes that were in use since the memory of the stack was last given back: whole pages.
    pub(crate) fn high_water(&self) -> usize {
        let mut resident = memory::resident_pages(self.low, self.end - self.low);
        resident
            .next()
            .map_or(self.depth(), |lowest| self.end - lowest)
    }
}

/// Calls `f` on the stack of the thread that has resumed the running coroutine, whose own stack may be
/// used up.
///
/// # Panics
///
/// Off-coroutine.
pub(crate) fn on_parent_stack(f: fn()) {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a coroutine has a parent");
    // SAFETY: as in `suspend`.
    unsafe { (*yielder).on_parent_stack(f) };
}

/// Makes the calling thread one that is not on a coroutine. To be called in the child of a fork,
/// where the thread goes on with the stack that it forked on, but must not suspend: the worker's
/// loop belongs to the parent. Async-signal-safe.
pub(crate) fn forget_running() {
    YIELDER.set(ptr::null());
}

/// Suspends the running coroutine until it is resumed. `at` is a local variable of the caller's frame, which
/// [`suspended_at`](Coroutine::suspended_at) finds meanwhile.
///
/// # Panics
///
/// Off-coroutine.
#[inline(always)]
pub(crate) fn suspend<T>(why: Suspend, at: &T) {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a coroutine can be suspended");
    SUSPENDED_AT.set(ptr::from_ref(at).cast());
    // SAFETY: a non-null pointer is to the yielder of the coroutine that runs on this thread.
    // `resume`, or the first instructions of the coroutine, have set it, and `resume` clears it
    // when control returns. The yielder lies at the bottom of the running coroutine's stack, so it
    // outlives this call.
    unsafe { (*yielder).suspend(why) };
}
