//! Events: flags that can be waited for.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::park::{self, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Reason};

/// A flag that can be set, cleared, and waited for.
///
/// Setting it wakes all that wait at that moment, even if it is cleared before they run.
///
/// ```
/// use greenroom::sync::Event;
/// use std::sync::Arc;
///
/// greenroom::run(|| {
///     let ready = Arc::new(Event::new());
///     let waiter = greenroom::spawn({
///         let ready = Arc::clone(&ready);
///         move || ready.wait()
///     });
///     ready.set();
///     waiter.join().unwrap();
///     assert!(ready.is_set());
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points.
pub struct Event {
    /// Set under the lock of `waiters`.
    set: AtomicBool,
    waiters: Waiters,
}

impl Event {
    /// Makes an event that is not set.
    pub const fn new() -> Event {
        Event {
            set: AtomicBool::new(false),
            waiters: Waiters::new(Reason::Event),
        }
    }

    /// Sets the event, and wakes all that wait for it. Does nothing if it is set.
    ///
    /// What the caller did before happens before what a waiter does next.
    pub fn set(&self) {
        // Under the lock, so that no waiter that comes later is woken for this.
        self.waiters
            .wake_all_if(|| !self.set.swap(true, Ordering::AcqRel));
    }

    /// Clears the event: from now on, callers of [`wait`](Event::wait) wait.
    pub fn clear(&self) {
        self.set.store(false, Ordering::Release);
    }

    /// Whether the event is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits until the event is set. Returns at once if it is.
    pub fn wait(&self) {
        self.wait_until(|| None);
    }

    /// Like [`wait`](Event::wait), for at most `timeout`. Returns whether the event was set.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(|| Deadline::after(timeout))
    }

    /// Like [`wait`](Event::wait), until `deadline` at the latest. Returns whether the event was set.
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(|| Some(Deadline::at(deadline)))
    }

    fn wait_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        park::spend_operation();
        if self.is_set() {
            return true;
        }
        let is_set = || self.is_set();
        self.waiters.wait(Kind::Peer, deadline(), is_set) == Outcome::Woken || self.is_set()
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("is_set", &self.is_set())
            .finish_non_exhaustive()
    }
}

/// A value that is set once, and that any number of tasks can wait for.
///
/// For a result that may be an error, wait for a `Result`:
///
/// ```
/// use greenroom::sync::ValueEvent;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let answer = Arc::new(ValueEvent::<Result<u32, String>>::new());
///     assert_eq!(answer.wait_timeout(Duration::from_millis(1)), None);
///     let waiters = [(); 2].map(|()| {
///         let answer = Arc::clone(&answer);
///         greenroom::spawn(move || answer.wait().clone())
///     });
///     answer.set(Err("no such host".into())).unwrap();
///     for waiter in waiters {
///         assert_eq!(waiter.join().unwrap(), Err("no such host".into()));
///     }
///     assert!(answer.set(Ok(7)).is_err(), "it is set once");
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points.
pub struct ValueEvent<T> {
    value: OnceLock<T>,
    waiters: Waiters,
}

impl<T> ValueEvent<T> {
    /// Makes an event without a value.
    pub const fn new() -> ValueEvent<T> {
        ValueEvent {
            value: OnceLock::new(),
            waiters: Waiters::new(Reason::Event),
        }
    }

    /// Sets the value, and wakes all that wait for it.
    ///
    /// # Errors
    ///
    /// If there is a value already. The error is the new one.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.waiters.wake_all();
        Ok(())
    }

    /// The value, if it was set.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Waits until the value is set.
    pub fn wait(&self) -> &T {
        let value = self.wait_until(|| None);
        value.expect("without a deadline the wait ends with the value")
    }

    /// Like [`wait`](ValueEvent::wait), for at most `timeout`. Returns `None` if the value was not set in
    /// time.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&T> {
        self.wait_until(|| Deadline::after(timeout))
    }

    /// Like [`wait`](ValueEvent::wait), until `deadline` at the latest. Returns `None` if the value was not
    /// set in time.
    pub fn wait_deadline(&self, deadline: Instant) -> Option<&T> {
        self.wait_until(|| Some(Deadline::at(deadline)))
    }

    /// The value, if it was set.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    fn wait_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> Option<&T> {
        park::spend_operation();
        if self.get().is_none() {
            let is_set = || self.get().is_some();
            // If this times out, the value may have come at the last moment.
            self.waiters.wait(Kind::Peer, deadline(), is_set);
        }
        self.get()
    }
}

impl<T> Default for ValueEvent<T> {
    fn default() -> ValueEvent<T> {
        ValueEvent::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for ValueEvent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueEvent")
            .field("value", &self.get())
            .finish_non_exhaustive()
    }
}
