//! Futures and callbacks: coroutines that wait for them, and async code that awaits coroutines.

#[path = "../util/mod.rs"]
mod util;

mod block_on;
mod callback;
mod cancel;
mod join;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use util::until;

/// A flag that a future waits for, and a place that shows what its waker did.
#[derive(Debug, Default)]
struct Gate {
    is_open: AtomicBool,
    waker: Mutex<Option<Waker>>,
    polls: AtomicUsize,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::default()
    }

    /// Ready once the gate is open.
    fn passed(self: &Arc<Gate>) -> impl Future<Output = ()> + use<> {
        let gate = Arc::clone(self);
        poll_fn(move |context| {
            gate.polls.fetch_add(1, Ordering::SeqCst);
            *gate.waker.lock().unwrap() = Some(context.waker().clone());
            match gate.is_open.load(Ordering::SeqCst) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
    }

    /// The waker of the last poll; waits for the first poll.
    fn waker(&self) -> Waker {
        until("the future was polled", || {
            self.waker.lock().unwrap().is_some()
        });
        self.waker.lock().unwrap().clone().unwrap()
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        if let Some(waker) = &*self.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }

    /// Opens the gate when a future has been polled in vain.
    fn open_when_awaited(&self) {
        self.waker();
        self.open();
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }
}

/// A waker that counts how often it is called.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Counting {
    fn new() -> (Arc<Counting>, Waker) {
        let counting: Arc<Counting> = Arc::default();
        (Arc::clone(&counting), Waker::from(counting))
    }

    fn wakes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once.
fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Tells when it is dropped.
struct Tells(Arc<AtomicBool>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn flag() -> Arc<AtomicBool> {
    Arc::default()
}

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::SeqCst)
}

fn is_cancelled<T>(result: std::thread::Result<T>) -> bool {
    result.is_err_and(|payload| payload.is::<greenroom::Cancelled>())
}
