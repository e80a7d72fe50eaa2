//! A channel for one message.
//!
//! See [`oneshot()`].
//!
//! # How it works
//!
//! The sender stores the message, then sets `settled`, then wakes the queue of waiters. A receiver reads
//! `settled` under the lock of that queue before it waits. So it sees the message, or the sender sees the
//! receiver: see `park/waiters.rs`.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{RecvError, RecvTimeoutError, SendError, TryRecvError, disconnected};
use crate::atomic::own_lock;
use crate::park::several::Arm;
use crate::park::{self, WaitPlace, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{Awaits, Deadline, Reason, Waiting};

/// Makes a channel for one message: the answer to a request, for instance.
///
/// ```
/// use greenroom::channel::{self, oneshot};
///
/// greenroom::run(|| {
///     let (requests, inbox) = channel::unbounded::<(u32, oneshot::Sender<u32>)>();
///     greenroom::spawn(move || {
///         for (n, reply) in inbox {
///             reply.send(n + 1).unwrap();
///         }
///     });
///
///     let (reply, answer) = channel::oneshot();
///     requests.send((41, reply)).unwrap();
///     assert_eq!(answer.recv(), Ok(42));
/// });
/// ```
#[must_use]
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        message: Mutex::new(Message::NotYet),
        settled: AtomicBool::new(false),
        waiters: Waiters::new(Reason::Receive),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// What both ends share.
struct Shared<T> {
    /// Locked to store the message and to take it.
    message: Mutex<Message<T>>,
    /// The message was stored, or the sender is gone.
    settled: AtomicBool,
    waiters: Waiters,
}

enum Message<T> {
    NotYet,
    Sent(T),
    /// It was received, or never will be, because one of the ends is gone.
    Over,
}

impl<T> Shared<T> {
    /// Replaces what is there. The caller drops that after the unlock, since it may be user code.
    fn replace(&self, by: Message<T>) -> Message<T> {
        mem::replace(&mut own_lock(&self.message), by)
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }
}

/// The end that sends the message. See [`oneshot()`].
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends the message. Never waits.
    ///
    /// # Errors
    ///
    /// If the receiver is gone. The error has the message.
    pub fn send(self, message: T) -> Result<(), SendError<T>> {
        {
            let mut held = own_lock(&self.0.message);
            match *held {
                Message::NotYet => *held = Message::Sent(message),
                Message::Sent(_) | Message::Over => return Err(SendError(message)),
            }
        }
        // The drop of `self` wakes the receiver.
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        matches!(*own_lock(&self.0.message), Message::Over)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        {
            let mut message = own_lock(&self.0.message);
            if let Message::NotYet = *message {
                *message = Message::Over;
            }
        }
        self.0.settle();
    }
}

/// The end that receives the message. See [`oneshot()`].
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Receives the message. Waits until it comes.
    ///
    /// # Errors
    ///
    /// If the sender was dropped without sending, or the message was received before.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(Kind::Peer, || None).map_err(|_| RecvError)
    }

    /// Waits until the message is there, or it is certain that none comes. The message is an event that comes by
    /// itself, and not from another coroutine.
    pub(super) fn wait_for_event(&self) {
        self.wait_until(Kind::Event, || None);
    }

    /// Has all later messages come back to the sender. Returns the message that came before.
    pub(super) fn close(&self) -> Option<T> {
        match self.0.replace(Message::Over) {
            Message::Sent(message) => Some(message),
            Message::NotYet | Message::Over => None,
        }
    }

    /// Receives the message if it is there.
    ///
    /// # Errors
    ///
    /// - [`Empty`](TryRecvError::Empty) if it may still come;
    /// - [`Disconnected`](TryRecvError::Disconnected) if the sender was dropped without sending, or the
    ///   message was received before.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        if !self.0.is_settled() {
            return Err(TryRecvError::Empty);
        }
        self.close().ok_or(TryRecvError::Disconnected)
    }

    /// Receives the message. Waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// - [`Timeout`](RecvTimeoutError::Timeout) if it did not come in time;
    /// - [`Disconnected`](RecvTimeoutError::Disconnected) if the sender was dropped without sending, or
    ///   the message was received before.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(Kind::Peer, || Deadline::after(timeout))
    }

    /// Like [`recv_timeout`](Receiver::recv_timeout), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// See [`recv_timeout`](Receiver::recv_timeout).
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.recv_until(Kind::Peer, || Some(Deadline::at(deadline)))
    }

    fn recv_until(
        &self,
        kind: Kind,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        if !self.wait_until(kind, deadline) {
            return Err(RecvTimeoutError::Timeout);
        }
        self.try_recv()
            .map_err(|_| disconnected(RecvTimeoutError::Disconnected))
    }

    /// Waits until the message is there, or it is certain that none comes. Returns false if neither was so in time.
    #[inline]
    fn wait_until(&self, kind: Kind, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        park::spend_operation();
        let settled = || self.0.is_settled();
        settled() || self.0.waiters.wait(kind, deadline(), settled) == Outcome::Woken || settled()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Drops a message that was not received. Not under the lock.
        drop(self.close());
    }
}

/// The message, as one of several things that a task waits for. See `park/several.rs`.
pub(crate) struct RecvArm<'a, T> {
    receiver: &'a Receiver<T>,
    place: WaitPlace,
    received: Cell<Option<Result<T, RecvError>>>,
}

impl<'a, T> RecvArm<'a, T> {
    pub(crate) fn new(receiver: &'a Receiver<T>) -> RecvArm<'a, T> {
        RecvArm {
            receiver,
            place: WaitPlace::new(),
            received: Cell::new(None),
        }
    }

    /// What was received, if the arm was completed.
    pub(crate) fn take(&self) -> Option<Result<T, RecvError>> {
        self.received.take()
    }
}

impl<T> Arm for RecvArm<'_, T> {
    fn try_complete(&self) -> bool {
        let received = match self.receiver.try_recv() {
            Err(TryRecvError::Empty) => return false,
            received => received.map_err(|_| RecvError),
        };
        self.received.set(Some(received));
        true
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        let shared = &self.receiver.0;
        // SAFETY: the caller promises that this arm, and so its place, does not move before `leave` has been
        // called, which leaves the queue.
        unsafe {
            shared
                .waiters
                .enqueue(&self.place, waiting, || shared.is_settled())
        }
    }

    fn leave(&self) -> bool {
        self.receiver.0.waiters.leave(&self.place);
        // The message is found by the next try.
        false
    }

    fn describe(&self) -> Awaits {
        Awaits::of(Reason::Receive, &self.receiver.0.waiters)
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
