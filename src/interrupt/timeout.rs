//! Timeouts around any code.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::deadline::Deadline;
use crate::park::{Elapsed, UnwindOfElapsed};
use crate::task::{self, Change, InterruptScope};

/// Runs `f`, and interrupts it if it waits for something when `limit` has passed.
///
/// This works around *any* code: reads and writes, names that are resolved, children, channels, joins,
/// jobs of the pool, and other people's code that waits through the [`shims`](crate::shims).
///
/// ```
/// use greenroom::timeout;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let (_sender, receiver) = greenroom::shims::sync::mpsc::channel::<u32>();
///     let received = timeout(Duration::from_millis(10), || receiver.recv());
///     assert!(received.is_err());
/// });
/// ```
///
/// # When it interrupts
///
/// Only while the caller waits at an interruption point, or comes to one: I/O, sleep, join, channels,
/// jobs of the pool, [`interruption_point`](crate::interruption_point). Code that computes is not
/// interrupted, and neither are waits that std never unwinds: locks, condition variables, `park`,
/// barriers, the end of a scope. An operation that need not wait succeeds, even after the limit. A
/// limit of zero therefore lets `f` do what it can do at once.
///
/// Nothing can be interrupted after this has returned: no timer is left, and no waiter.
///
/// # What an interrupt does
///
/// The wait unwinds to here, without a message of the panic hook, and runs the destructors on its way.
/// What `f` has read or written so far is not undone; keep what must survive outside of `f`. Where
/// interrupts are delivered as errors (see [`Interrupts::Errors`](crate::Interrupts::Errors)), every
/// operation that would wait after the limit fails with `TimedOut` instead, and this returns what `f`
/// makes of that.
///
/// If `f` catches the unwind and returns, this returns its value.
///
/// Timeouts nest. The one that passes first interrupts, and exactly the call that has set it returns the
/// error; of several with the same moment, the outermost. The limit does not pass on to coroutines that
/// `f` spawns; but a scope in `f` cancels its coroutines when it is interrupted.
///
/// Outside of coroutines, a timeout limits the waits of this crate ([`JoinHandle::join`], channels,
/// [`interval`](crate::interval), [`wait_fd`](crate::wait_fd)…), but not system calls that block the
/// thread.
///
/// # Errors
///
/// [`Elapsed`], if `f` was interrupted because `limit` had passed.
///
/// # Panics
///
/// If `f` panics, with the same payload.
///
/// [`JoinHandle::join`]: crate::JoinHandle::join
#[inline]
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    timeout_at(Deadline::after(limit), f)
}

/// Like [`timeout`], until a moment that other operations may share.
///
/// ```
/// use greenroom::{Deadline, timeout_at};
/// use std::time::Instant;
///
/// assert_eq!(timeout_at(Deadline::NEVER, || 1), Ok(1));
/// assert_eq!(timeout_at(Instant::now(), || 2), Ok(2), "nothing has to wait");
/// ```
///
/// # Errors
///
/// [`Elapsed`], if `f` was interrupted because `deadline` had passed.
///
/// # Panics
///
/// If `f` panics, with the same payload.
#[inline]
pub fn timeout_at<T>(deadline: impl Into<Deadline>, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    let Some(deadline) = deadline.into().of_wait() else {
        return Ok(f());
    };
    InterruptScope::enter(Change::Deadline(deadline), |scope| {
        // The closure is consumed, and the caller sees either its result or its panic.
        let payload = match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => return Ok(value),
            Err(payload) => payload,
        };
        match payload.downcast_ref::<UnwindOfElapsed>() {
            Some(unwind) if scope.has_caused(unwind.0) => {
                task::note_unwound();
                Err(Elapsed)
            }
            _ => resume_unwind(payload),
        }
    })
}
