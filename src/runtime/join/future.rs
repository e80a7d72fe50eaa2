//! Joining by async code.
//!
//! The future registers its waker with the completion of the task, as a joiner that always leaves (see
//! `task/completion.rs`): before it registers another waker, when it has the result, and when it is dropped.
//! The joiner is allocated, so that it stays where it is if the future moves, and also if the future is
//! forgotten and never leaves.
#![forbid(unsafe_code)]

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::{CancelOnDrop, JoinHandle, Joinable};
use crate::sys::switches::own_lock;
use crate::task::{Awaiter, Joiner, Task};

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

/// What a future has registered with the completion of its task.
struct Registration {
    /// Made by the first poll that has to wait.
    joiner: Option<Arc<Joiner<Awaiter>>>,
    /// Whether the task may use the joiner.
    is_registered: bool,
}

impl Registration {
    const NONE: Registration = Registration {
        joiner: None,
        is_registered: false,
    };

    /// Has `waker` called when `task` has ended. Returns false if it has ended already.
    fn register(&mut self, task: &Task, waker: &Waker) -> bool {
        // Foreign code, which may panic or take its time: not while something is half done or locked.
        let waker = waker.clone();
        let joiner = self.joiner.get_or_insert_with(|| {
            let awaiter = Awaiter::Future(Mutex::new(None));
            Arc::new(Joiner::of_several(awaiter, 1))
        });
        let Awaiter::Future(registered) = &joiner.wait else {
            unreachable!("the joiner of a future has a waker");
        };
        if self.is_registered {
            let is_same = |registered: &Waker| registered.will_wake(&waker);
            if own_lock(registered).as_ref().is_some_and(is_same) {
                return true;
            }
            task.completion().leave();
        }
        let before = own_lock(registered).replace(waker);
        self.is_registered = task.completion().await_by(Arc::as_ptr(joiner));
        drop(before);
        self.is_registered
    }

    /// Takes the joiner back from `task`, which does not use it any more after this.
    fn leave(&mut self, task: &Task) {
        if !mem::take(&mut self.is_registered) {
            return;
        }
        if task.is_left_in_parent() {
            // The fork may have come while the finisher, which is not here, used the joiner.
            return mem::forget(self.joiner.take());
        }
        task.completion().leave();
    }
}

impl<H: Joinable> JoinFuture<H> {
    pub(crate) fn new(handle: H) -> JoinFuture<H> {
        JoinFuture {
            handle: Some(handle),
            registration: Registration::NONE,
            cancels: false,
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
        if !awaited.has_ended() && this.registration.register(awaited.task, context.waker()) {
            return Poll::Pending;
        }
        this.registration.leave(awaited.task);
        let handle = this.handle.take();
        Poll::Ready(handle.expect("it was there").join())
    }
}

impl<H: Joinable> Drop for JoinFuture<H> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            self.registration.leave(handle.awaited().task);
            if self.cancels {
                handle.cancel();
            }
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
