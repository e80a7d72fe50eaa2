//! A runtime inside the event loop of other code.
#![forbid(unsafe_code)]

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::time::Duration;

use super::join::LocalJoinHandle;
use super::spawn::Builder;
use super::{AbortOnUnwind, Runtime, fork};
use crate::task::Deadline;

/// What a [`turn`](Runtime::turn) has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// There is more to run at once.
    More,
    /// All coroutines of this worker wait.
    Waiting,
    /// No coroutine is left in the runtime, apart from [daemons](crate::Builder::daemon), and no timer of
    /// [`after`](crate::after()) is pending.
    Done,
    /// The runtime was asked to [stop](crate::Handle::stop), or a signal of
    /// [`unwind_on`](crate::signal::unwind_on) has come. The caller should drop the runtime. Further turns do not
    /// wait.
    Stopped,
}

impl Runtime {
    /// Gives worker 0 one turn: looks at I/O and timers, and then runs the coroutines that are ready.
    ///
    /// For the event loop of other code, such as a user interface, a game or another runtime, which runs on the
    /// thread that made this runtime. If no coroutine is ready, the turn waits for at most `timeout`, and returns
    /// early if anything happens; `None` is without a limit. It runs up to 256 turns of coroutines, or half a
    /// millisecond's worth, as far as the coroutines wait or yield.
    ///
    /// Between turns, coroutines of this worker do not run, and none are lost. [`as_fd`](Runtime::as_fd) tells
    /// when the next turn has something to do. In a runtime of several workers, the others go on, but sockets that
    /// were first waited for on this worker are looked at in its turns only.
    ///
    /// ```
    /// use greenroom::Turn;
    /// use greenroom::shims::thread::sleep;
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
    /// let clock = runtime.spawn(|| {
    ///     (0..3).for_each(|_| sleep(Duration::from_millis(5)));
    ///     "three ticks"
    /// });
    /// let mut frames = 0;
    /// while runtime.turn(Some(Duration::from_millis(2))) != Turn::Done {
    ///     frames += 1; // draws a frame
    /// }
    /// assert_eq!(clock.join().unwrap(), "three ticks");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If called inside a coroutine, or after the runtime has shut down.
    #[track_caller]
    pub fn turn(&self, timeout: Option<Duration>) -> Turn {
        self.assert_usable();
        fork::set_up_late();
        let abort = AbortOnUnwind;
        self.worker.drive_turn(timeout.and_then(Deadline::after));
        mem::forget(abort);
        if self.scheduler.is_asked_to_stop() || self.scheduler.is_stopping() {
            Turn::Stopped
        } else if self.worker.has_more() {
            Turn::More
        } else if self.scheduler.is_idle() {
            Turn::Done
        } else {
            Turn::Waiting
        }
    }

    /// Spawns a coroutine of worker 0, which may use what belongs to this thread. See
    /// [`spawn_local`](crate::spawn_local()), for callers that are no coroutines.
    ///
    /// The coroutine runs in [`turn`](Runtime::turn) and [`run`](Runtime::run). So a `join` outside of these waits
    /// for ever; [`LocalJoinHandle::is_finished`] does not wait.
    ///
    /// # Panics
    ///
    /// If there is no stack to be had, or if the runtime has shut down.
    #[track_caller]
    pub fn spawn_local<F, T>(&self, f: F) -> LocalJoinHandle<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        assert!(!self.stopped.get(), "the runtime has shut down");
        let spawned = Builder::new().spawn_local_at(&self.worker, Location::caller(), f);
        self.worker.note_fresh();
        spawned.expect("failed to spawn a coroutine")
    }
}

/// The descriptor by which the loop of other code waits for the runtime.
///
/// Once this was called, the descriptor is readable between turns whenever a [`turn`](Runtime::turn) has something
/// to do: an event has come, a deadline has passed, another thread has spawned or woken a coroutine, or asks the
/// runtime to stop; or the last turn has left something to run. It is for `poll`, `select` and epoll, both
/// level-triggered and edge-triggered. Nothing else may be done with it.
///
/// A loop that waits for edges resets its note of the readiness first, and takes the turn then: not the other way
/// round.
impl AsFd for Runtime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.worker.watch()
    }
}

impl AsRawFd for Runtime {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
