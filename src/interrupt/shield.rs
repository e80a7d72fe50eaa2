//! Code that interrupts do not reach, or reach as errors, or that catches them.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::park::Cancelled;
use crate::task::{self, Change, InterruptScope, Interrupts};

/// Runs `f` to its end: neither a cancellation nor a [`timeout`](crate::timeout) around this call
/// interrupts it.
///
/// For steps that belong together, like the end of a transaction. What was kept away is delivered at the
/// next interruption point after this call. A timeout inside `f` works as usual.
///
/// When the runtime shuts down, waits in `f` for I/O, time and jobs of the pool go on until the
/// [grace](crate::RuntimeBuilder::grace) is over.
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let timed_out = greenroom::timeout(Duration::from_millis(1), || {
///         greenroom::shield(|| sleep(Duration::from_millis(5))); // is not cut short
///         sleep(Duration::from_secs(60)); // is
///     });
///     assert!(timed_out.is_err());
/// });
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    InterruptScope::enter(Change::Shield, |_| f())
}

/// Runs `f`, and returns an error if a cancellation unwinds it.
///
/// For code that cleans up. The cancellation stays: the next interruption point unwinds again, unless it is
/// in a [`shield`]. It lets others run first, and is counted by
/// [`Stats::swallowed_interrupts`](crate::Stats::swallowed_interrupts).
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use greenroom::{catch_cancel, shield};
/// use std::time::Duration;
///
/// let (tell, told) = greenroom::shims::sync::mpsc::channel();
/// let coroutine = greenroom::spawn(move || {
///     tell.send(()).unwrap();
///     let result = catch_cancel(|| sleep(Duration::from_secs(60)));
///     if result.is_err() {
///         shield(|| sleep(Duration::from_millis(1))); // says goodbye
///     }
///     "cleaned up"
/// });
/// told.recv().unwrap();
/// coroutine.cancel();
/// assert_eq!(coroutine.join().unwrap(), "cleaned up");
/// ```
///
/// # Errors
///
/// [`Cancelled`], if `f` was unwound by a cancellation.
///
/// # Panics
///
/// If `f` panics, with the same payload.
pub fn catch_cancel<T>(f: impl FnOnce() -> T) -> Result<T, Cancelled> {
    // The closure is consumed, and the caller sees either its result or its panic.
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| match payload.downcast::<Cancelled>() {
        Ok(cancelled) => {
            task::note_caught();
            *cancelled
        }
        Err(panic) => resume_unwind(panic),
    })
}

/// Runs `f`, and has interrupts inside it delivered as `how` says.
///
/// For code that is not written to be unwound by a wait, but handles errors; and, with
/// [`Interrupts::Unwind`], for code in such a coroutine that is.
///
/// ```
/// use greenroom::shims::net::TcpListener;
/// use greenroom::{Interrupts, timeout, with_interrupts};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// greenroom::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let accepted = timeout(Duration::from_millis(1), || {
///         with_interrupts(Interrupts::Errors, || listener.accept())
///     });
///     let error = accepted.expect("nothing unwinds").unwrap_err();
///     assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
///     Ok(())
/// })
/// # }
/// ```
pub fn with_interrupts<T>(how: Interrupts, f: impl FnOnce() -> T) -> T {
    InterruptScope::enter(Change::Interrupts(how), |_| f())
}
