//! Coroutines that run only if their worker has nothing else to run.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::Worker;
use crate::park::Waiters;
use crate::task::word::Kind;
use crate::task::{self, Current, Reason};

/// The coroutines of one worker that wait until it has nothing to run. Only that worker uses this.
pub(super) struct Idlers {
    waiters: Waiters,
    /// How many wait, or were woken and have not run yet.
    count: Cell<usize>,
}

impl Idlers {
    pub(super) fn new() -> Idlers {
        Idlers {
            waiters: Waiters::new(Reason::Yield),
            count: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn any(&self) -> bool {
        self.count.get() > 0
    }

    fn wait(&self) {
        let _counted = Counted::new(&self.count);
        // That the worker has nothing to run is an event that comes by itself.
        self.waiters.wait(Kind::Event, None, || false);
    }
}

/// Counts one more until it is dropped.
struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    fn new(count: &Cell<usize>) -> Counted<'_> {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Worker {
    /// Wakes one idler, if there is one and nothing else to run.
    #[inline]
    pub(super) fn wake_idler(&self) {
        if self.idlers.any() && !self.has_work() {
            self.idlers.waiters.wake_one(|| ());
        }
    }
}

/// Lets everything else run first that the calling coroutine's worker has to run.
///
/// The coroutine goes on when no other coroutine of its worker is ready, no event has come and no deadline has
/// passed; and, in a runtime of several workers, no fresh coroutine is there to be taken over from another. The
/// worker looks for events, without waiting, before each such turn. So a computation that calls this now and then
/// uses the time that is left, and delays others for as long as it goes on between two calls. [`yield_now`]
/// only lets those run that are ready, and has its turn with them.
///
/// A coroutine that is in this call keeps its worker busy if there is nothing else to do. Several of them take
/// turns.
///
/// ```
/// use greenroom::{spawn_local, yield_now, yield_until_idle};
/// use std::{cell::Cell, rc::Rc};
///
/// greenroom::run(|| {
///     let steps = Rc::new(Cell::new(0));
///     let walker = spawn_local({
///         let steps = Rc::clone(&steps);
///         move || {
///             for _ in 0..10 {
///                 yield_now();
///                 steps.set(steps.get() + 1);
///             }
///         }
///     });
///     yield_until_idle();
///     assert_eq!(steps.get(), 10);
///     walker.join().unwrap();
/// });
/// ```
///
/// Outside of coroutines, this is [`std::thread::yield_now`].
///
/// # Unwinding
///
/// An interruption point.
///
/// [`yield_now`]: crate::yield_now
pub fn yield_until_idle() {
    if !task::on_coroutine() {
        return std::thread::yield_now();
    }
    // A coroutine that unwinds from a panic keeps its worker, so nothing could run meanwhile.
    if std::thread::panicking() && Current::get().waits_alone() {
        return;
    }
    Worker::with_current(|worker| {
        let worker = worker.expect("a coroutine runs on its worker");
        worker.idlers.wait();
    });
}
