//! [`std::sync::mpsc`], but waits park the coroutine.
//!
//! A channel connects coroutines and OS threads in any mix, with or without a runtime. The errors are
//! std's own.
//!
//! # Unwinding
//!
//! [`Receiver::recv`], [`Receiver::recv_timeout`], [`SyncSender::send`] and the iterators that wait
//! are interruption points. A receiver that unwinds out of a wait has taken no message. A sender that
//! unwinds out of a wait drops the message. While a runtime shuts down, a destructor may wait here for
//! as long as messages may still come; when nothing can happen any more, the coroutine is left behind.
//!
//! An operation that need not wait counts towards a budget. A coroutine that spends the budget yields
//! to other coroutines of its worker, and that yield is an interruption point, too.
//!
//! # Forks
//!
//! A forked child may find a channel disconnected, if another thread was sending or receiving at the
//! moment of the fork.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

pub use ::std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::channel::{disconnected, mpmc};
use crate::select::parts::{Receives, RecvPart, SendPart, Sends};
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
    let (sender, receiver) = mpmc::channel(usize::MAX);
    (Sender { inner: sender }, Receiver::new(receiver))
}

/// Like [`std::sync::mpsc::sync_channel`], but allocates memory as messages come, up to the bound.
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = mpmc::channel(bound);
    (SyncSender { inner: sender }, Receiver::new(receiver))
}

/// Like [`std::sync::mpsc::Sender`].
pub struct Sender<T> {
    inner: mpmc::Sender<T>,
}

impl<T> Sender<T> {
    /// Like [`std::sync::mpsc::Sender::send`].
    ///
    /// # Errors
    ///
    /// If the receiver is gone.
    ///
    /// # Unwinding
    ///
    /// If the receiver is gone and the caller is a coroutine of a runtime that is stopping.
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
    inner: mpmc::Sender<T>,
}

impl<T> SyncSender<T> {
    /// Like [`std::sync::mpsc::SyncSender::send`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the receiver is gone.
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
    /// As std.
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
    inner: mpmc::Receiver<T>,
    /// Makes the type `Send` but not `Sync`, as std's is.
    not_sync: PhantomData<Cell<()>>,
}

// As std's: a panic cannot leave the handle in a broken state.
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    fn new(inner: mpmc::Receiver<T>) -> Receiver<T> {
        Receiver {
            inner,
            not_sync: PhantomData,
        }
    }

    /// Like [`std::sync::mpsc::Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// Like [`std::sync::mpsc::Receiver::recv`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the channel is empty and all senders are gone.
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
    /// As std.
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

// For `select!`.

impl<T> Receives for Receiver<T> {
    type Message = T;
    type Part<'a>
        = RecvPart<'a, T>
    where
        T: 'a;

    fn __select_part(&self) -> RecvPart<'_, T> {
        RecvPart::new(&self.inner)
    }
}

impl<T> Sends for Sender<T> {
    type Message = T;

    fn __select_part<'a>(&'a self, message: &'a mut Option<T>) -> SendPart<'a, T> {
        SendPart::new(&self.inner, message)
    }
}

impl<T> Sends for SyncSender<T> {
    type Message = T;

    fn __select_part<'a>(&'a self, message: &'a mut Option<T>) -> SendPart<'a, T> {
        SendPart::new(&self.inner, message)
    }
}
