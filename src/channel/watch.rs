//! A channel that keeps the latest value.
//!
//! See [`watch()`].
//!
//! # How it works
//!
//! The value is in an `Arc`, so a reader takes a reference and leaves: no reader keeps the sender waiting,
//! and no destructor or `Clone` of the user's runs under the lock. The *state* is a counter of the values,
//! and a bit that says that no more will come. A sender changes the state, then wakes the queue of waiters.
//! A receiver compares the state under the lock of that queue before it waits: see `park/waiters.rs`.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{RecvError, RecvTimeoutError, SendError, disconnected};
use crate::atomic::own_lock;
use crate::park::{self, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Reason};

/// No more values come, because all senders are gone.
const CLOSED: u64 = 1;
/// The unit of the counter of values.
const VALUE: u64 = 2;

/// Makes a channel that keeps the latest value, and begins with `initial`: a configuration, a state that
/// others follow, a request to shut down.
///
/// All receivers see each value, unless a newer one has replaced it before they looked. Sending never
/// waits.
///
/// ```
/// use greenroom::channel;
///
/// greenroom::run(|| {
///     let (settings, mut follower) = channel::watch("slow");
///     assert_eq!(follower.get(), "slow");
///     let follows = greenroom::spawn(move || {
///         follower.changed().unwrap();
///         follower.get()
///     });
///     settings.send("fast").unwrap();
///     assert_eq!(follows.join().unwrap(), "fast");
/// });
/// ```
#[must_use]
pub fn watch<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: Mutex::new(Arc::new(initial)),
        state: AtomicU64::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        waiters: Waiters::new(Reason::Receive),
    });
    let receiver = Receiver {
        shared: Arc::clone(&shared),
        seen: 0,
    };
    (Sender { shared }, receiver)
}

/// What all handles share.
struct Shared<T> {
    value: Mutex<Arc<T>>,
    /// The counter of values, and CLOSED. The counter is raised under the lock of the value.
    state: AtomicU64,
    /// How many `Sender`s there are.
    senders: AtomicUsize,
    /// How many `Receiver`s there are.
    receivers: AtomicUsize,
    waiters: Waiters,
}

impl<T> Shared<T> {
    fn state(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// The latest value, and the state that it belongs to.
    fn latest(&self) -> (Arc<T>, u64) {
        let value = own_lock(&self.value);
        (Arc::clone(&value), self.state() & !CLOSED)
    }

    fn set(&self, value: T) {
        let value = Arc::new(value);
        let before = {
            let mut current = own_lock(&self.value);
            self.state.fetch_add(VALUE, Ordering::Release);
            mem::replace(&mut *current, value)
        };
        self.waiters.wake_all();
        drop(before);
    }
}

/// The end of a [`watch()`] channel that sets the value. Clones set the same value. When the last `Sender`
/// is dropped, no more values come.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sets the value, and wakes the receivers that wait for a new one.
    ///
    /// # Errors
    ///
    /// If there are no receivers. The error has the value, which was not set. See [`set`](Sender::set).
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        self.shared.set(value);
        Ok(())
    }

    /// Sets the value, even if there are no receivers. Those that [`subscribe`](Sender::subscribe) later
    /// see it.
    pub fn set(&self, value: T) {
        self.shared.set(value);
    }

    /// The latest value. Later values do not change what this returns.
    pub fn borrow(&self) -> Arc<T> {
        self.shared.latest().0
    }

    /// A new receiver. For it, the present value is not new.
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver {
            seen: self.shared.state() & !CLOSED,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether there are no receivers.
    pub fn is_closed(&self) -> bool {
        self.shared.receivers.load(Ordering::Acquire) == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.state.fetch_or(CLOSED, Ordering::Release);
            self.shared.waiters.wake_all();
        }
    }
}

/// The end of a [`watch()`] channel that sees the value. Each clone knows for itself which value it has
/// seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The state of the last value that this receiver has seen, without CLOSED.
    seen: u64,
}

impl<T> Receiver<T> {
    /// The latest value. Does not count as seen: [`changed`](Receiver::changed) still returns at once, if it
    /// would have before. Later values do not change what this returns.
    pub fn borrow(&self) -> Arc<T> {
        self.shared.latest().0
    }

    /// The latest value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Arc<T> {
        let (value, state) = self.shared.latest();
        self.seen = state;
        value
    }

    /// A clone of the latest value. Does not count as seen.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        T::clone(&self.borrow())
    }

    /// Whether there is a value that this receiver has not seen.
    pub fn has_changed(&self) -> bool {
        self.shared.state() & !CLOSED != self.seen
    }

    /// Waits until there is a value that this receiver has not seen. Then it counts as seen.
    ///
    /// The value that was there when the receiver was made counts as seen.
    ///
    /// # Errors
    ///
    /// If there is no new value, and all senders are gone.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn changed(&mut self) -> Result<(), RecvError> {
        self.changed_until(|| None).map_err(|_| RecvError)
    }

    /// Like [`changed`](Receiver::changed), but waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// - [`Timeout`](RecvTimeoutError::Timeout) if no new value came in time;
    /// - [`Disconnected`](RecvTimeoutError::Disconnected) if there is no new value, and all senders are
    ///   gone.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn changed_timeout(&mut self, timeout: Duration) -> Result<(), RecvTimeoutError> {
        self.changed_until(|| Deadline::after(timeout))
    }

    /// Like [`changed_timeout`](Receiver::changed_timeout), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// See [`changed_timeout`](Receiver::changed_timeout).
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn changed_deadline(&mut self, deadline: Instant) -> Result<(), RecvTimeoutError> {
        self.changed_until(|| Some(Deadline::at(deadline)))
    }

    fn changed_until(
        &mut self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<(), RecvTimeoutError> {
        park::spend_operation();
        if self.shared.state() == self.seen {
            let deadline = deadline();
            let changed = || self.shared.state() != self.seen;
            // The wake-up may be a late one, for a value that was seen already.
            while !changed() {
                let outcome = self.shared.waiters.wait(Kind::Peer, deadline, changed);
                if outcome == Outcome::TimedOut && !changed() {
                    return Err(RecvTimeoutError::Timeout);
                }
            }
        }
        let latest = self.shared.state() & !CLOSED;
        if latest == self.seen {
            return Err(disconnected(RecvTimeoutError::Disconnected));
        }
        self.seen = latest;
        Ok(())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::Release);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
