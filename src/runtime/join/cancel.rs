//! Cancelling a coroutine from outside.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use super::{Ended, Join, JoinHandle, LocalJoinHandle};
use crate::task::{Deadline, TaskRef};

impl<T> Join<T> {
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(self.thread().task().clone())
    }

    /// Cancels the task, and waits until it has ended, for `timeout` at most. Returns whether it has.
    pub(crate) fn cancel_wait(&mut self, timeout: Duration) -> bool {
        self.thread().task().cancel();
        self.wait(Deadline::after(timeout)) != Ended::NotYet
    }
}

impl<T> JoinHandle<T> {
    /// Cancels the coroutine: it unwinds, and so drops all that it owns, at its next interruption point.
    ///
    /// A coroutine that waits at an interruption point unwinds at once. These are I/O, sleep, join,
    /// channels, `select`, jobs of the pool, and [`interruption_point`](crate::interruption_point). Waits
    /// that std never unwinds go on: locks, condition variables, `park`, barriers, `Once`. A coroutine
    /// that has not started never runs. One that has finished is not affected.
    ///
    /// The coroutine ends by an unwind with the payload [`Cancelled`](crate::Cancelled), which
    /// [`join`](JoinHandle::join) returns. No message is printed. If the coroutine catches the unwind and
    /// goes on, its next interruption point unwinds again, and lets others run first.
    ///
    /// A scope that waits for its coroutines, or is unwound, cancels them too, and does not return before
    /// they have ended.
    ///
    /// [`shield`](crate::shield) keeps a cancellation away from some code.
    /// [`Interrupts::Errors`](crate::Interrupts::Errors) has an operation fail instead of unwinding.
    /// Cancelling twice is the same as once.
    ///
    /// ```
    /// use greenroom::shims::thread::sleep;
    /// use std::time::Duration;
    ///
    /// let sleeper = greenroom::spawn(|| sleep(Duration::from_secs(60)));
    /// sleeper.cancel();
    /// assert!(sleeper.join().unwrap_err().is::<greenroom::Cancelled>());
    /// ```
    ///
    /// # Destructors
    ///
    /// They run while the coroutine unwinds, as after a panic, so the [hazards](crate::guide::hazards) of
    /// waits during an unwind apply: I/O that would wait fails, and a join of a coroutine of the same
    /// worker aborts. A destructor that panics then aborts the process, as always in Rust.
    pub fn cancel(&self) {
        self.thread().task().cancel();
    }

    /// Cancels the coroutine, and waits until it has ended, for `timeout` at most. Returns whether it has
    /// ended. The result can then be [joined](JoinHandle::join) without waiting.
    ///
    /// # Panics
    ///
    /// If the coroutine waits for itself.
    ///
    /// # Unwinding
    ///
    /// As [`join`](JoinHandle::join).
    pub fn cancel_wait(&mut self, timeout: Duration) -> bool {
        self.0.cancel_wait(timeout)
    }

    /// A handle that can only cancel the coroutine, for any number of holders.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.0.canceller()
    }

    /// Has the coroutine cancelled when the returned guard is dropped.
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { handle: Some(self) }
    }
}

impl<T> LocalJoinHandle<T> {
    /// Cancels the coroutine. See [`JoinHandle::cancel`].
    pub fn cancel(&self) {
        self.thread().task().cancel();
    }

    /// Cancels the coroutine, and waits until it has ended. See [`JoinHandle::cancel_wait`].
    ///
    /// # Panics
    ///
    /// If the coroutine waits for itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn cancel_wait(&mut self, timeout: Duration) -> bool {
        self.join.cancel_wait(timeout)
    }

    /// A handle that can only cancel the coroutine, for any number of holders, on any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.join.canceller()
    }
}

/// Cancels a coroutine. Any number of these, on any thread, may be for the same coroutine.
///
/// [`JoinHandle::canceller`] makes one. It neither joins the coroutine nor keeps it from being detached.
#[derive(Clone)]
pub struct Canceller(TaskRef);

impl Canceller {
    /// Cancels the coroutine. See [`JoinHandle::cancel`].
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether the coroutine has finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.completion().is_done()
    }
}

// As `Thread`: the handle has no invariant that a panic could break.
impl UnwindSafe for Canceller {}
impl RefUnwindSafe for Canceller {}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Canceller").field(&self.0.name()).finish()
    }
}

/// A [`JoinHandle`] that cancels its coroutine when it is dropped. It does not wait for the coroutine's
/// end.
///
/// [`JoinHandle::cancel_on_drop`] makes one.
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use std::time::Duration;
///
/// let guard = greenroom::spawn(|| sleep(Duration::from_secs(60))).cancel_on_drop();
/// let cancelled = guard.canceller();
/// drop(guard);
/// while !cancelled.is_finished() {
///     sleep(Duration::from_millis(1));
/// }
/// ```
#[must_use = "dropping the guard cancels the coroutine"]
pub struct CancelOnDrop<T> {
    /// `None` once `into_handle` has taken it.
    handle: Option<JoinHandle<T>>,
}

const TAKEN: &str = "the handle is there until it is taken";

impl<T> CancelOnDrop<T> {
    /// The handle. Dropping it detaches the coroutine, as usual.
    pub fn into_handle(mut self) -> JoinHandle<T> {
        self.handle.take().expect(TAKEN)
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = JoinHandle<T>;

    fn deref(&self) -> &JoinHandle<T> {
        self.handle.as_ref().expect(TAKEN)
    }
}

impl<T> DerefMut for CancelOnDrop<T> {
    fn deref_mut(&mut self) -> &mut JoinHandle<T> {
        self.handle.as_mut().expect(TAKEN)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelOnDrop").finish_non_exhaustive()
    }
}
