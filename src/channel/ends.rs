//! The handles of a channel: whoever drops the last one of a kind closes that end.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::Channel;
use crate::atomic::{AtomicUsize, Ordering, fence, process};
use crate::task::Deadline;

/// A channel of which at most `capacity` values are queued.
pub(crate) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    process::count_forks();
    let shared = Arc::new(Shared {
        channel: Channel::new(capacity),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

struct Shared<T> {
    channel: Channel<T>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Deref for Shared<T> {
    type Target = Channel<T>;

    fn deref(&self) -> &Channel<T> {
        &self.channel
    }
}

/// One more handle. As many as would make the count overflow, `Arc` does not allow.
fn count_in(handles: &AtomicUsize) {
    handles.fetch_add(1, Ordering::Relaxed);
}

/// One handle less; returns whether it was the last. What was done with the others happened before.
fn count_out(handles: &AtomicUsize) -> bool {
    let last = handles.fetch_sub(1, Ordering::Release) == 1;
    if last {
        fence(Ordering::Acquire);
    }
    last
}

/// The end that values go into.
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

/// The end that values come out of.
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
