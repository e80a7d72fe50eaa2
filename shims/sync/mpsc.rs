//! [`std::sync::mpsc`], where waits park the coroutine.
//!
//! What connects coroutines connects OS threads as well, in any mix, with or without a runtime. The
//! errors are std's own.
//!
//! # Unwinding
//!
//! [`Receiver::recv`], [`Receiver::recv_timeout`], [`SyncSender::send`] and the iterators that wait
//! are interruption points. A receiver that unwinds has taken nothing; what a sender waits with goes
//! with its frame. A destructor that waits here while its runtime shuts down waits for as long as others
//! may come, and is left behind when nothing happens any more.
//!
//! Operations that need not wait count as work: a coroutine that does many in a row lets others of
//! its worker go on now and then, which is an interruption point, too.
//!
//! # Forks
//!
//! In a forked child, a channel may be disconnected, if another thread was sending or receiving just
//! when the process forked.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

pub use ::std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::channel;
use crate::park;
use crate::task::Deadline;

/// Like [`std::sync::mpsc::channel`].
///
/// ```
/// use greenroom::shims as std;
/// use std::{sync::mpsc, thread};
///
/// let (sender, receiver) = mpsc::channel();
/// for name in ["ada", "grace"] {
///     let sender = sender.clone();
///     thread::spawn(move || sender.send(name.len()).unwrap());
/// }
/// drop(sender);
/// assert_eq!(receiver.iter().sum::<usize>(), 8);
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = channel::channel(usize::MAX);
    (Sender { inner: sender }, Receiver::new(receiver))
}

/// Like [`std::sync::mpsc::sync_channel`]. Memory is taken as it is needed, up to the bound.
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = channel::channel(bound);
    (SyncSender { inner: sender }, Receiver::new(receiver))
}

/// What the caller is told, unless it is to unwind like those who have gone.
#[cold]
fn disconnected<E>(error: E) -> E {
    park::unwind_with_runtime();
    error
}

/// Like [`std::sync::mpsc::Sender`].
pub struct Sender<T> {
    inner: channel::Sender<T>,
}

impl<T> Sender<T> {
    /// Like [`std::sync::mpsc::Sender::send`].
    ///
    /// # Errors
    ///
    /// If there is no receiver any more.
    ///
    /// # Unwinding
    ///
    /// If the receiver has gone because the runtime stops, and the caller is one of its coroutines.
    #[inline]
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        self.inner.send(t).map_err(disconnected)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            inner: self.inner.clone(),
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Like [`std::sync::mpsc::SyncSender`].
pub struct SyncSender<T> {
    inner: channel::Sender<T>,
}

impl<T> SyncSender<T> {
    /// Like [`std::sync::mpsc::SyncSender::send`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If there is no receiver any more.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        self.inner.send(t).map_err(disconnected)
    }

    /// Like [`std::sync::mpsc::SyncSender::try_send`].
    ///
    /// # Errors
    ///
    /// As std's.
    #[inline]
    pub fn try_send(&self, t: T) -> Result<(), TrySendError<T>> {
        self.inner.try_send(t)
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender {
            inner: self.inner.clone(),
        }
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

/// Like [`std::sync::mpsc::Receiver`].
pub struct Receiver<T> {
    inner: channel::Receiver<T>,
    /// As std's, it may be sent but not shared.
    not_sync: PhantomData<Cell<()>>,
}

// As std's: what others do to the channel meanwhile shows in no invariant of the handle.
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    fn new(inner: channel::Receiver<T>) -> Receiver<T> {
        Receiver {
            inner,
            not_sync: PhantomData,
        }
    }

    /// Like [`std::sync::mpsc::Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As std's.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// Like [`std::sync::mpsc::Receiver::recv`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If nothing is queued, and there is no sender any more.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        let received = self.inner.recv(|| None);
        received.map_err(|_| disconnected(RecvError))
    }

    /// Like [`std::sync::mpsc::Receiver::recv_timeout`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// As std's.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let received = self.inner.recv(|| Deadline::after(timeout));
        received.map_err(disconnected)
    }

    /// Like [`std::sync::mpsc::Receiver::iter`], but parks the coroutine.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { rx: self }
    }

    /// Like [`std::sync::mpsc::Receiver::try_iter`].
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { rx: self }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// Like [`std::sync::mpsc::Iter`].
#[derive(Debug)]
pub struct Iter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
    }
}

/// Like [`std::sync::mpsc::TryIter`].
#[derive(Debug)]
pub struct TryIter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

impl<'a, T> Iterator for TryIter<'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.try_recv().ok()
    }
}

/// Like [`std::sync::mpsc::IntoIter`].
#[derive(Debug)]
pub struct IntoIter<T> {
    rx: Receiver<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
    }
}

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
        IntoIter { rx: self }
    }
}
