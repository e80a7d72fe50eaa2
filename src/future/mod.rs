//! Futures, run by the coroutine or OS thread that needs their output.
//!
//! [`block_on`] polls, and parks until the future's waker is called: see `signal`. The other direction, async
//! code that awaits a coroutine, is in `runtime/join/future.rs`.
#![forbid(unsafe_code)]

mod signal;

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::park;
use signal::Signal;

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// Runs a future to its end on the calling coroutine or OS thread, and returns its output.
///
/// The caller polls the future, and parks until the future's waker is called; other coroutines of its
/// worker run meanwhile. Any thread may call the waker: before the caller parks, many times, or after the
/// end. The waker does not touch the token of [`park`](crate::park()). The future needs neither
/// [`Send`] nor `'static`, and may itself call `block_on` in its polls.
///
/// ```
/// use std::future;
///
/// greenroom::run(|| {
///     assert_eq!(greenroom::block_on(async { future::ready(3).await + 4 }), 7);
///
///     // A coroutine is awaited by its handle.
///     let doubled = async {
///         let three = greenroom::spawn(|| 3).await.unwrap();
///         2 * three
///     };
///     assert_eq!(greenroom::block_on(doubled), 6);
/// });
/// ```
///
/// Futures that need no certain executor work as they are: those of the crates `futures`, `async-channel` and
/// `async-io`, and the channels and locks of tokio. tokio's sockets and timers must be polled inside a runtime
/// of tokio: see [the guide](crate::guide::porting#async-code).
///
/// The future lies on the caller's stack. Box a future that is large: `block_on(Box::pin(future))`.
///
/// A future that wakes itself while it is polled, such as a `yield_now` of other crates, lets the other
/// coroutines of the worker run.
///
/// # Unwinding
///
/// An interruption point, unless the future is ready at the first poll. The future is then dropped, which is
/// how futures are cancelled. Where interrupts are delivered as errors, the wait goes on, since a future has no
/// error for this. The future is also dropped if a poll panics.
///
/// In a destructor that runs while the caller unwinds from a panic, the call keeps its worker to itself until the
/// waker is called: see [the hazards](crate::guide::hazards#waiting-during-an-unwind).
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    park::spend_operation();
    let mut future = pin!(future.into_future());
    let signal = Arc::new(Signal::new());
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if signal.take() {
            // It has woken itself, as a future does that yields.
            park::yield_now();
            park::interruption_point();
        } else {
            signal.wait();
        }
    }
}
