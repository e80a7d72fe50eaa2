//! Channels between coroutines and OS threads: many producers, many consumers.
//!
//! | Channel | Messages | A sender waits | A receiver waits |
//! |---|---|---|---|
//! | [`unbounded`] | queued without limit | never | while there is none |
//! | [`bounded`] | at most so many are queued | while the queue is full | while there is none |
//! | `bounded(0)` | handed over directly: a *rendezvous* | until a receiver takes the message | until a sender gives one |
//! | [`oneshot()`] | one | never | until it comes |
//! | [`watch()`] | the latest one, which everybody sees | never | until there is a newer one |
//!
//! All of them work among coroutines, among OS threads, and between the two, with or without a runtime.
//! A wait parks the calling coroutine, or blocks the calling OS thread. Messages of one sender come in
//! the order in which they were sent. Waiters are served in the order in which they came.
//!
//! ```
//! use greenroom::channel;
//!
//! greenroom::run(|| {
//!     let (requests, inbox) = channel::bounded(2);
//!     let (replies, answers) = channel::unbounded();
//!     // Two workers share the inbox.
//!     for _ in 0..2 {
//!         let (inbox, replies) = (inbox.clone(), replies.clone());
//!         greenroom::spawn(move || {
//!             for n in inbox {
//!                 replies.send(n * n).unwrap();
//!             }
//!         });
//!     }
//!     drop((inbox, replies));
//!     greenroom::spawn(move || (1..=4).try_for_each(|n| requests.send(n)));
//!     assert_eq!(answers.iter().sum::<i32>(), 30);
//! });
//! ```
//!
//! [`select!`](crate::select!) waits for several channels at once.
//!
//! # The end of a channel
//!
//! A channel ends when all its senders or all its receivers are gone, or when `close` is called on either
//! end. From then on nothing can be sent: senders, and those that wait for room, get their messages
//! back in the error. Messages that are queued can still be received. After the last one, receivers get an
//! error. If all receivers are gone, the queued messages are dropped.
//!
//! # Nothing is lost
//!
//! A message that was not sent comes back in the error. A receiver that times out or unwinds has taken
//! none. A sender that unwinds out of a wait drops its message.
//!
//! # Unwinding
//!
//! All operations that wait are interruption points. An operation that need not wait counts towards a
//! budget. A coroutine that spends the budget yields to other coroutines of its worker, and that yield is
//! an interruption point, too. If the other end is gone and the runtime of the calling coroutine is
//! stopping, `send` and `recv` unwind instead of returning an error: the other end has gone for that
//! reason.
//!
//! # Forks
//!
//! A forked child may find a channel disconnected, if another thread was sending or receiving at the
//! moment of the fork.

pub(crate) mod callback;
mod handles;
pub(crate) mod mpmc;
pub mod oneshot;
pub mod watch;

use crate::park;

#[doc(no_inline)]
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

pub use handles::{IntoIter, Iter, Receiver, Sender, TryIter, bounded, unbounded};
pub use mpmc::SendTimeoutError;
#[doc(inline)]
pub use oneshot::oneshot;
#[doc(inline)]
pub use watch::watch;

/// Returns `error`, which says that the other end is gone. If the runtime of the calling coroutine is
/// stopping, unwinds instead: the other end has gone for that reason.
#[cold]
pub(crate) fn disconnected<E>(error: E) -> E {
    park::unwind_with_runtime();
    error
}
