//! Waiting for the call of a callback.
//!
//! A oneshot channel, with two additions: the sending end can be cloned, and a value that the receiving end
//! does not return goes to a hook. Whether a value is late is decided under the lock of the channel's message:
//! the waiter closes the channel, and gets the value that was sent before; or the channel is closed, and the
//! value comes back to the caller.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::oneshot::{self, oneshot};
use super::{SendError, disconnected};
use crate::atomic::own_lock;

/// Calls `start` with a [`Done`], and waits until that is called. Returns the value that it was called with.
///
/// This turns an API that reports by a callback into a blocking call. `start` hands `done` to the API, in a
/// closure if need be. The callback may come at once, while `start` still runs, or later, from any coroutine or
/// OS thread. What `start` returns is kept until the wait is over, and then dropped: a guard that withdraws the
/// request, for instance.
///
/// ```
/// use greenroom::from_callback;
/// use std::thread;
///
/// /// Some library's.
/// fn look_up(key: u32, callback: impl FnOnce(String) + Send + 'static) {
///     thread::spawn(move || callback(format!("value {key}")));
/// }
///
/// greenroom::run(|| {
///     for key in 0..3 {
///         let value = from_callback(|done| look_up(key, move |value| _ = done.call(value)));
///         assert_eq!(value.unwrap(), format!("value {key}"));
///     }
/// });
/// ```
///
/// A `done` that is kept by what `start` returns keeps the caller waiting, because it may still be called.
///
/// # Errors
///
/// [`NeverCalled`], if `done` and all its clones were dropped without a call. So a callback that is dropped or
/// that panics does not leave the caller waiting.
///
/// # Unwinding
///
/// An interruption point, unless the call has come when `start` returns. A value that comes after the caller has
/// gone is given back by [`Done::call`]; if that is too late for the library, see [`from_callback_or`].
pub fn from_callback<T, R>(start: impl FnOnce(Done<T>) -> R) -> Result<T, NeverCalled> {
    wait_for_call(None, start)
}

/// Like [`from_callback`], but a value that the caller does not get is handed to `abandoned`.
///
/// That happens if the caller was interrupted, by a [`timeout`](crate::timeout) or a cancellation, or if `start`
/// panics. If the value comes after that, [`Done::call`] calls the hook, on the thread that has called it. If the
/// value was there before, the caller calls the hook before it unwinds further, where the
/// [hazards](crate::guide::hazards#waiting-during-an-unwind) of waits apply. So a connection, say, is always
/// either returned or closed in good order:
///
/// ```
/// use greenroom::{from_callback_or, timeout};
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let (give_back, given_back) = mpsc::channel();
///     let mut late = None;
///     let waited = timeout(Duration::from_millis(1), || {
///         from_callback_or(move |value| give_back.send(value).unwrap(), |done| late = Some(done))
///     });
///     assert!(waited.is_err());
///     late.unwrap().call("a connection").unwrap();
///     assert_eq!(given_back.recv(), Ok("a connection"));
/// });
/// ```
///
/// # Errors
///
/// As [`from_callback`]. The hook is not called then.
///
/// # Unwinding
///
/// As [`from_callback`].
pub fn from_callback_or<T, R>(
    abandoned: impl FnOnce(T) + Send + 'static,
    start: impl FnOnce(Done<T>) -> R,
) -> Result<T, NeverCalled> {
    wait_for_call(Some(Box::new(abandoned)), start)
}

fn wait_for_call<T, R>(
    abandoned: Option<Box<Hook<T>>>,
    start: impl FnOnce(Done<T>) -> R,
) -> Result<T, NeverCalled> {
    let (sender, receiver) = oneshot();
    let abandoned = Arc::new(Mutex::new(abandoned));
    let waiter = Waiter {
        receiver,
        abandoned: Arc::clone(&abandoned),
    };
    let done = Done(Arc::new(Calls {
        sender: Mutex::new(Some(sender)),
        abandoned,
    }));
    let started = start(done);
    waiter.receiver.wait_for_event();
    // Before the value is taken: if this unwinds, the value is the waiter's to abandon. Also before the waiter is
    // dropped, so that a request is withdrawn before its value counts as late.
    drop(started);
    let received = waiter.receiver.try_recv();
    received.map_err(|_| disconnected(NeverCalled))
}

type Hook<T> = dyn FnOnce(T) + Send;

/// The end that [`from_callback`] waits at.
struct Waiter<T> {
    receiver: oneshot::Receiver<T>,
    abandoned: Arc<Mutex<Option<Box<Hook<T>>>>>,
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        // There is a value if it came in time, but the waiter was interrupted or has panicked.
        if let Some(value) = self.receiver.close() {
            // Without a hook the value is dropped, as whatever belongs to a caller that unwinds.
            let _ = abandon(&self.abandoned, value);
        }
    }
}

/// Hands `value` to the hook, or back if there is none.
fn abandon<T>(hook: &Mutex<Option<Box<Hook<T>>>>, value: T) -> Result<(), SendError<T>> {
    let hook = own_lock(hook).take();
    // Not under the lock: it is the user's.
    match hook {
        Some(hook) => hook(value),
        None => return Err(SendError(value)),
    }
    Ok(())
}

/// What a callback calls to end the wait of a [`from_callback`]. May be cloned, for several callbacks of which
/// one is called: one for success and one for failure, for instance.
pub struct Done<T>(Arc<Calls<T>>);

/// What the clones of a [`Done`] share. Dropped with the last one, and the sender with it.
struct Calls<T> {
    /// Taken by the first call.
    sender: Mutex<Option<oneshot::Sender<T>>>,
    abandoned: Arc<Mutex<Option<Box<Hook<T>>>>>,
}

impl<T> Done<T> {
    /// Ends the wait with `value`. Never waits, except as the hook of a [`from_callback_or`] does. Works on any
    /// coroutine or OS thread.
    ///
    /// # Errors
    ///
    /// If this or a clone was called before; or if the waiter has gone, and there is no hook. The error has the
    /// value.
    pub fn call(&self, value: T) -> Result<(), SendError<T>> {
        let sender = own_lock(&self.0.sender).take();
        let Some(sender) = sender else {
            return Err(SendError(value));
        };
        match sender.send(value) {
            Err(SendError(value)) => abandon(&self.0.abandoned, value),
            sent => sent,
        }
    }
}

impl<T> Clone for Done<T> {
    fn clone(&self) -> Done<T> {
        Done(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done").finish_non_exhaustive()
    }
}

/// The error of [`from_callback`] if no callback was called, and none can be any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeverCalled;

impl fmt::Display for NeverCalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the callback was dropped without a call")
    }
}

impl Error for NeverCalled {}
