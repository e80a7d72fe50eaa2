//! The handles of a channel. Dropping the last handle of a kind closes that end.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::{Channel, SendTimeoutError};
use crate::atomic::{AtomicUsize, Ordering, fence, process};
use crate::task::Deadline;

/// Makes a channel that queues at most `capacity` values. It has no bound if that is [`usize::MAX`].
pub(crate) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    // The locks and the queues of waiters tell a forked child by its number.
    process::count_forks();
    let shared = Arc::new(Shared {
        channel: Channel::new(capacity),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// What all handles of a channel share. The `Arc` frees it; the counts close the ends.
struct Shared<T> {
    channel: Channel<T>,
    /// How many `Sender`s there are.
    senders: AtomicUsize,
    /// How many `Receiver`s there are.
    receivers: AtomicUsize,
}

impl<T> Deref for Shared<T> {
    type Target = Channel<T>;

    fn deref(&self) -> &Channel<T> {
        &self.channel
    }
}

/// Counts one more handle. Cannot overflow: each handle is also counted by an `Arc`, which aborts long
/// before that.
fn count_in(handles: &AtomicUsize) {
    // The new handle is made from one that exists, so the count cannot reach zero meanwhile.
    handles.fetch_add(1, Ordering::Relaxed);
}

/// Counts one handle less. Returns whether it was the last one. Then everything that was done with the
/// other handles has happened before.
fn count_out(handles: &AtomicUsize) -> bool {
    let last = handles.fetch_sub(1, Ordering::Release) == 1;
    if last {
        // Pairs with the `Release` of the other handles.
        fence(Ordering::Acquire);
    }
    last
}

/// A handle of the end that values are sent to. The end closes when the last `Sender` is dropped.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// See [`Channel::send`].
    #[inline]
    pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value)
    }

    /// See [`Channel::try_send`].
    #[inline]
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.0.try_send(value)
    }

    /// See [`Channel::send_until`].
    #[inline]
    pub(crate) fn send_until(
        &self,
        value: T,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<(), SendTimeoutError<T>> {
        self.0.send_until(value, deadline)
    }

    /// What all handles of the channel share.
    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.0.channel
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        count_in(&self.0.senders);
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if count_out(&self.0.senders) {
            self.0.close_sending();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.channel.fmt(f)
    }
}

/// A handle of the end that values are received from. The end closes when the last `Receiver` is
/// dropped.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// See [`Channel::recv`].
    #[inline]
    pub(crate) fn recv(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        self.0.recv(deadline)
    }

    /// See [`Channel::try_recv`].
    #[inline]
    pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.try_recv()
    }

    /// What all handles of the channel share.
    pub(crate) fn channel(&self) -> &Channel<T> {
        &self.0.channel
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        count_in(&self.0.receivers);
        Receiver(Arc::clone(&self.0))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if count_out(&self.0.receivers) {
            self.0.close_receiving();
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.channel.fmt(f)
    }
}
