//! Interrupts: what ends a wait although neither its event nor its own deadline has come.
//!
//! There are two: the caller was cancelled (by a handle, or because its runtime stops), or the deadline of
//! an interrupt scope around the caller has passed. Either unwinds the caller, or an operation fails with
//! an error: see `task/interrupt_scope.rs`.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::time::Instant;

use super::{Waited, yield_now};
use crate::fatal;
use crate::task::{self, Cancellations, Change, Current, Deadline, InterruptScope, Interrupts};

/// The payload with which a cancelled coroutine unwinds.
///
/// Joining such a coroutine returns an `Err` with this payload. So does joining a coroutine that was
/// cancelled, or whose runtime ended, before it had started; and, in a forked child, joining a coroutine of
/// the parent.
///
/// In a coroutine that is set to [`Interrupts::Errors`], the error of the operation that was cancelled
/// holds this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the coroutine was cancelled")
    }
}

impl std::error::Error for Cancelled {}

impl From<Cancelled> for io::Error {
    /// An error of the kind `Other`. (`Interrupted` is for operations to be tried again, which std does.)
    fn from(cancelled: Cancelled) -> io::Error {
        io::Error::other(cancelled)
    }
}

/// The deadline of a [`timeout`](crate::timeout) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    /// An error of the kind `TimedOut`.
    fn from(elapsed: Elapsed) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// The payload with which a coroutine unwinds to the scope that has set the deadline. See
/// [`has_caused`](crate::task::InterruptScope::has_caused).
pub(crate) struct UnwindOfElapsed(pub(crate) u64);

/// Whether an unwind with this payload is that of an interrupt.
pub(crate) fn is_interrupt(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Cancelled>() || payload.is::<UnwindOfElapsed>()
}

/// Whether an operation has failed with this error because the caller was interrupted. Then nothing else
/// should be tried instead: a cancellation is told only once.
pub(crate) fn is_error_of_interrupt(error: &io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(|inner| inner.is::<Cancelled>() || inner.is::<Elapsed>())
}

/// If `error` is that of a cancellation, has the next interruption point tell it. For an operation that cannot return
/// the error, such as one that returns what it has done before. A deadline that has passed is told at each
/// interruption point anyway.
pub(crate) fn tell_later(error: &io::Error) {
    if is_cancellation(error) {
        Current::get().note_untold();
    }
}

fn is_cancellation(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

/// Whether an operation has returned the error of a cancellation to code that may ignore it. If this is so when it is
/// dropped, the next interruption point tells the cancellation.
#[derive(Debug, Default)]
pub(crate) struct Untold(bool);

impl Untold {
    /// Notes how an operation has ended. Returns the same.
    pub(crate) fn note<R>(&mut self, result: io::Result<R>) -> io::Result<R> {
        self.0 = result.as_ref().err().is_some_and(is_cancellation);
        result
    }

    /// The caller has seen the error.
    pub(crate) fn clear(&mut self) {
        self.0 = false;
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if self.0 {
            Current::get().note_untold();
        }
    }
}

/// Calls `f`, to which interrupts may be delivered as errors. Returns its result, and the interrupt that may be the
/// reason for it.
///
/// A cancellation has been told to `f`, which may have ignored it. The deadline is the earliest that holds here.
pub(crate) fn with_reason<R>(f: impl FnOnce() -> R) -> (R, Option<Interrupt>) {
    let task = Current::get();
    let told = task.told();
    let result = f();
    let reach = task.reach();
    let has_passed = |deadline: Deadline| deadline.at <= Instant::now();
    let reason = if task.told() != told {
        Some(Interrupt::Cancelled)
    } else if reach.how == Interrupts::Errors && reach.earliest.is_some_and(has_passed) {
        Some(Interrupt::Elapsed)
    } else {
        None
    };
    (result, reason)
}

/// Calls `f`, whose caller cannot return the error of an interrupt: where interrupts are delivered as errors, none
/// reaches `f`.
pub(crate) fn without_errors<R>(f: impl FnOnce() -> R) -> R {
    if task::on_coroutine() && Current::get().reach().how == Interrupts::Errors {
        return InterruptScope::enter(Change::Shield, |_| f());
    }
    f()
}

/// What has interrupted the caller.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// It was cancelled while it waited.
    Cancelled,
    /// It was cancelled before it waited.
    Pending,
    /// The earliest deadline of its interrupt scopes has passed.
    Elapsed,
}

impl Waited {
    #[inline(always)]
    pub(crate) fn is_woken(self) -> bool {
        matches!(self, Waited::Woken)
    }

    /// Delivers a cancellation at once. The deadline of a scope leaves time for one last attempt.
    ///
    /// # Errors
    ///
    /// The error with which the caller's operation fails, if interrupts are delivered as errors.
    #[inline]
    pub(crate) fn deliver_cancellation(self) -> io::Result<()> {
        match self {
            Waited::Interrupted(cancelled @ (Interrupt::Cancelled | Interrupt::Pending)) => {
                Err(cancelled.deliver())
            }
            _ => Ok(()),
        }
    }
}

impl Interrupt {
    /// Unwinds the caller, without calling the panic hook.
    ///
    /// Always inlined, because an unwind takes notably longer for each frame that it goes through.
    #[inline(always)]
    pub(crate) fn unwind(self) -> ! {
        resume_unwind(self.begin_unwind())
    }

    /// Prepares the unwind of the caller, which must begin at once. Returns the payload.
    #[cold]
    fn begin_unwind(self) -> Box<dyn Any + Send> {
        self.give_way();
        if cfg!(panic = "abort") && self != Interrupt::Elapsed {
            // A coroutine of a runtime that ends does not get here: it is left behind. So the caller
            // waits for something of another runtime, which has ended.
            fatal::abort(format_args!(
                "what the caller waits for was cancelled, and under panic = \"abort\" nothing can \
                 unwind"
            ));
        }
        task::note_unwind(self != Interrupt::Elapsed);
        match self {
            Interrupt::Cancelled | Interrupt::Pending => Box::new(Cancelled),
            Interrupt::Elapsed => {
                let number = Current::get().begin_unwind_of_earliest();
                Box::new(UnwindOfElapsed(number))
            }
        }
    }

    /// Unwinds the caller, or returns the error with which its operation fails. That depends on what is
    /// set for the code of the caller.
    #[inline]
    pub(crate) fn deliver(self) -> io::Error {
        if Current::get().reach().how == Interrupts::Unwind {
            self.unwind();
        }
        self.fail()
    }

    /// The error with which the caller's operation fails.
    #[cold]
    fn fail(self) -> io::Error {
        self.give_way();
        match self {
            Interrupt::Cancelled | Interrupt::Pending => {
                Current::get().note_told();
                Cancelled.into()
            }
            Interrupt::Elapsed => Elapsed.into(),
        }
    }

    /// A caller that is interrupted without a wait, and tries again in a loop, must not keep its worker.
    fn give_way(self) {
        if self == Interrupt::Pending {
            yield_now();
        }
    }
}

/// Unwinds the calling coroutine, because it was cancelled. Does not call the panic hook.
pub(crate) fn unwind() -> ! {
    Interrupt::Cancelled.unwind()
}

/// If the caller's runtime is stopping, unwinds the caller now rather than at its next interruption
/// point.
///
/// For a caller that has found that another coroutine is gone. If the shutdown has unwound the other
/// coroutine, the caller should not report that as a failure. With `panic = "abort"` a shutdown unwinds
/// nothing.
pub(crate) fn unwind_with_runtime() {
    if task::is_runtime_stopping() && may_be_cancelled() {
        unwind();
    }
}

/// Whether a cancellation would unwind the caller here.
fn may_be_cancelled() -> bool {
    if cfg!(panic = "abort") || !task::may_unwind() {
        return false;
    }
    let task = Current::get();
    let reach = task.reach();
    reach.how == Interrupts::Unwind && task.cancellations(reach) == Cancellations::All
}

/// Unwinds the calling coroutine if it was cancelled, or if the deadline of a [`timeout`](crate::timeout)
/// around it has passed.
///
/// For code that computes for long without waiting: every wait that is an interruption point does this
/// anyway. Does nothing in a [`shield`](crate::shield), nor where interrupts are delivered as errors, nor
/// while the caller unwinds.
///
/// ```
/// use std::time::Duration;
///
/// let endless = || -> () {
///     loop {
///         greenroom::interruption_point();
///     }
/// };
/// assert!(greenroom::timeout(Duration::from_millis(1), endless).is_err());
/// ```
///
/// # Unwinding
///
/// An interruption point.
pub fn interruption_point() {
    if !task::may_unwind() {
        return;
    }
    let task = Current::get();
    if task.is_outside_scopes() && !task.word.is_interrupted() {
        return;
    }
    let reach = task.reach();
    if reach.how != Interrupts::Unwind {
        return;
    }
    if task.word.is_interrupted() && task.cancellations(reach) == Cancellations::All {
        Interrupt::Pending.unwind();
    }
    let has_passed = |deadline: Deadline| deadline.at <= Instant::now();
    if reach.earliest.is_some_and(has_passed) {
        // As for a pending interrupt.
        yield_now();
        Interrupt::Elapsed.unwind();
    }
}
