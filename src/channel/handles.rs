//! The two ends of a channel that queues messages.
#![forbid(unsafe_code)]

use std::fmt;
use std::iter::FusedIterator;
use std::ptr;
use std::time::{Duration, Instant};

use super::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
    disconnected, mpmc,
};
use crate::task::Deadline;

/// The capacity of a channel without bound.
const UNBOUNDED: usize = usize::MAX;

/// Makes a channel that queues any number of messages.
///
/// ```
/// let (sender, receiver) = greenroom::channel::unbounded();
/// std::thread::spawn(move || {
///     for n in 1..=3 {
///         sender.send(n).unwrap();
///     }
/// });
/// assert!(receiver.iter().eq([1, 2, 3]));
/// ```
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(UNBOUNDED)
}

/// Makes a channel that queues at most `capacity` messages. A capacity of zero makes a rendezvous: each
/// message is handed from a sender to a receiver, and the first to come waits for the other.
///
/// The memory is allocated as messages come, not in advance.
///
/// ```
/// use greenroom::channel::{self, TrySendError};
///
/// let (sender, receiver) = channel::bounded(1);
/// sender.send("a").unwrap();
/// assert_eq!(sender.try_send("b"), Err(TrySendError::Full("b")));
/// assert_eq!(receiver.recv(), Ok("a"));
/// assert!(sender.try_send("b").is_ok());
/// ```
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    // A queue of `usize::MAX` messages has no bound that could be reached.
    channel(capacity)
}

fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpmc::channel(capacity);
    (Sender { inner: sender }, Receiver { inner: receiver })
}

/// The end of a channel that messages are sent to. See [`unbounded`] and [`bounded`].
///
/// Clones send to the same channel. When the last `Sender` is dropped, the channel ends.
pub struct Sender<T> {
    inner: mpmc::Sender<T>,
}

impl<T> Sender<T> {
    /// Sends `message`. Waits while the queue is full. In a rendezvous, waits until a receiver has taken
    /// the message.
    ///
    /// # Errors
    ///
    /// If the channel was closed or all receivers are gone, be it during the wait. The error has the
    /// message.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.inner.send(message).map_err(disconnected)
    }

    /// Sends `message` if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// - [`Full`](TrySendError::Full) if the queue is full; in a rendezvous, if no receiver waits;
    /// - [`Disconnected`](TrySendError::Disconnected) if the channel was closed or all receivers are gone.
    ///
    /// The error has the message.
    #[inline]
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.inner.try_send(message)
    }

    /// Sends `message`. Waits for at most `timeout`.
    ///
    /// ```
    /// use greenroom::channel;
    /// use std::time::Duration;
    ///
    /// let (sender, receiver) = channel::bounded(0);
    /// let late = sender.send_timeout("late", Duration::from_millis(1)).unwrap_err();
    /// assert!(late.is_timeout());
    /// assert_eq!(late.into_inner(), "late");
    /// # drop(receiver);
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Timeout`](SendTimeoutError::Timeout) if there was no room in time;
    /// - [`Disconnected`](SendTimeoutError::Disconnected) if the channel was closed or all receivers are
    ///   gone, be it during the wait.
    ///
    /// The error has the message.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_until(message, || Deadline::after(timeout))
    }

    /// Like [`send_timeout`](Sender::send_timeout), but waits until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// See [`send_timeout`](Sender::send_timeout).
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_until(message, || Some(Deadline::at(deadline)))
    }

    fn send_until(
        &self,
        message: T,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<(), SendTimeoutError<T>> {
        let sent = self.inner.send_until(message, deadline);
        sent.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => error,
            SendTimeoutError::Disconnected(_) => disconnected(error),
        })
    }
}

/// The end of a channel that messages are received from. See [`unbounded`] and [`bounded`].
///
/// Clones receive from the same channel: each message goes to one of them. When the last `Receiver` is
/// dropped, the channel ends, and queued messages are dropped.
pub struct Receiver<T> {
    inner: mpmc::Receiver<T>,
}

impl<T> Receiver<T> {
    /// Receives a message. Waits until there is one.
    ///
    /// # Errors
    ///
    /// If there is no message, and the channel was closed or all senders are gone.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        let received = self.inner.recv(|| None);
        received.map_err(|_| disconnected(RecvError))
    }

    /// Receives a message if there is one. In a rendezvous, if a sender waits.
    ///
    /// # Errors
    ///
    /// - [`Empty`](TryRecvError::Empty) if there is no message now;
    /// - [`Disconnected`](TryRecvError::Disconnected) if there will be none any more.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// Receives a message. Waits for at most `timeout`. A message that is there is received whatever the
    /// timeout.
    ///
    /// # Errors
    ///
    /// - [`Timeout`](RecvTimeoutError::Timeout) if no message came in time;
    /// - [`Disconnected`](RecvTimeoutError::Disconnected) if there is no message, and the channel was
    ///   closed or all senders are gone.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(|| Deadline::after(timeout))
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
        self.recv_until(|| Some(Deadline::at(deadline)))
    }

    fn recv_until(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        let received = self.inner.recv(deadline);
        received.map_err(|error| match error {
            RecvTimeoutError::Timeout => error,
            RecvTimeoutError::Disconnected => disconnected(error),
        })
    }

    /// Receives messages until the channel has ended. Waits for each.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Receives the messages that are there. Does not wait.
    ///
    /// ```
    /// let (sender, receiver) = greenroom::channel::unbounded();
    /// sender.send(1).unwrap();
    /// sender.send(2).unwrap();
    /// assert!(receiver.try_iter().eq([1, 2]));
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }
}

/// What both ends can do.
macro_rules! end_methods {
    ($end:ident) => {
        impl<T> $end<T> {
            pub(crate) fn inner(&self) -> &mpmc::$end<T> {
                &self.inner
            }

            /// Closes the channel for all its handles. Nothing can be sent any more; waiting senders get
            /// their messages back. Queued messages can still be received; then receivers get an error.
            ///
            /// ```
            /// use greenroom::channel::{self, RecvError, SendError};
            ///
            /// let (sender, receiver) = channel::unbounded();
            /// sender.send("before").unwrap();
            /// sender.close();
            /// assert_eq!(sender.send("after"), Err(SendError("after")));
            /// assert_eq!(receiver.recv(), Ok("before"));
            /// assert_eq!(receiver.recv(), Err(RecvError));
            /// ```
            pub fn close(&self) {
                self.inner.channel().close();
            }

            /// Whether nothing can be sent any more. Messages may still be queued.
            pub fn is_closed(&self) -> bool {
                self.inner.channel().is_closed()
            }

            /// How many messages are queued. By the time the caller looks at the number, it may have
            /// changed.
            pub fn len(&self) -> usize {
                self.inner.channel().len()
            }

            /// Whether no message is queued. Always true for a rendezvous.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Whether as many messages are queued as may be. Always true for a rendezvous.
            pub fn is_full(&self) -> bool {
                let channel = self.inner.channel();
                channel.len() >= channel.capacity()
            }

            /// How many messages may be queued. `None` for a channel without bound.
            pub fn capacity(&self) -> Option<usize> {
                let capacity = self.inner.channel().capacity();
                (capacity != UNBOUNDED).then_some(capacity)
            }

            /// Whether `other` is a handle of the same channel.
            pub fn same_channel(&self, other: &$end<T>) -> bool {
                ptr::eq(self.inner.channel(), other.inner.channel())
            }
        }

        impl<T> Clone for $end<T> {
            fn clone(&self) -> $end<T> {
                $end {
                    inner: self.inner.clone(),
                }
            }
        }

        impl<T> fmt::Debug for $end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).finish_non_exhaustive()
            }
        }
    };
}

end_methods!(Sender);
end_methods!(Receiver);

/// Receives messages until the channel has ended. See [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

// Once a channel has ended, no message comes any more.
impl<T> FusedIterator for Iter<'_, T> {}

/// Receives the messages that are there. See [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// Receives messages until the channel has ended, and owns the receiver.
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T> FusedIterator for IntoIter<T> {}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}
