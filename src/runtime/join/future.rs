//! Joining by async code.
//!
//! The future registers its waker with the completion of the task: see `registration`.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::registration::Registration;
use super::{CancelOnDrop, JoinHandle, Joinable};

/// Waits for a coroutine in async code, on any executor. `await` makes one of a handle.
///
/// Its output is that of [`JoinHandle::join`]. So a coroutine that has panicked or was cancelled fails
/// the future, which has an `Err` as its output.
///
/// Dropping the future detaches the coroutine, which runs on. Dropping that of a [`CancelOnDrop`] cancels the
/// coroutine.
///
/// ```
/// use std::future::IntoFuture;
/// use std::time::Duration;
///
/// use greenroom::shims::thread::sleep;
///
/// async fn answer() -> u32 {
///     let blocking = greenroom::spawn(|| {
///         sleep(Duration::from_millis(1)); // parks a coroutine, and blocks no executor
///         42
///     });
///     blocking.await.unwrap()
/// }
///
/// assert_eq!(greenroom::block_on(answer()), 42);
///
/// // For the macros that poll a future several times:
/// let mut joined = greenroom::spawn(|| 7).into_future();
/// assert_eq!(greenroom::block_on(&mut joined).unwrap(), 7);
/// ```
///
/// If the coroutine awaits itself, the future is never ready.
#[must_use = "futures do nothing unless polled"]
pub struct JoinFuture<H: Joinable> {
    /// `None` once the coroutine was joined.
    handle: Option<H>,
    registration: Registration,
    /// Whether dropping this cancels the coroutine.
    cancels: bool,
}

impl<H: Joinable> JoinFuture<H> {
    pub(crate) fn new(handle: H) -> JoinFuture<H> {
        JoinFuture {
            handle: Some(handle),
            registration: Registration::NONE,
            cancels: false,
        }
    }

    /// Undoes the registration, if there is one.
    fn leave(&mut self) {
        let Some(handle) = &self.handle else { return };
        let task = handle.awaited().task;
        match task.is_left_in_parent() {
            // The fork may have come while the finisher, which is not here, used what is registered.
            true => self.registration.forget(),
            false => self.registration.leave(task.completion()),
        }
    }
}

// The handle is moved out in the end, and never pinned.
impl<H: Joinable> Unpin for JoinFuture<H> {}

impl<H: Joinable> Future for JoinFuture<H> {
    type Output = std::thread::Result<H::Output>;

    /// # Panics
    ///
    /// If the result was returned before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let handle = this.handle.as_ref();
        let awaited = handle
            .expect("polled after it has returned the result")
            .awaited();
        let completion = awaited.task.completion();
        if !awaited.has_ended() && this.registration.register(completion, context.waker()) {
            return Poll::Pending;
        }
        this.leave();
        let handle = this.handle.take();
        Poll::Ready(handle.expect("it was there").join())
    }
}

impl<H: Joinable> Drop for JoinFuture<H> {
    fn drop(&mut self) {
        self.leave();
        if let Some(handle) = self.handle.as_ref().filter(|_| self.cancels) {
            handle.cancel();
        }
    }
}

impl<H: Joinable> fmt::Debug for JoinFuture<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinFuture").finish_non_exhaustive()
    }
}

impl<T> IntoFuture for CancelOnDrop<T> {
    type Output = std::thread::Result<T>;
    type IntoFuture = JoinFuture<JoinHandle<T>>;

    /// The future of the handle, which cancels the coroutine when it is dropped.
    fn into_future(self) -> JoinFuture<JoinHandle<T>> {
        let mut future = JoinFuture::new(self.into_handle());
        future.cancels = true;
        future
    }
}
