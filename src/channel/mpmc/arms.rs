//! Receiving and sending as one of several things that a task waits for: see `park/several.rs`.
//!
//! A task may wait to receive and to send at the same channel. In a rendezvous, it must not find itself at
//! the other end, so a task that is about to wait ignores its own node there.

use std::cell::Cell;
use std::sync::mpsc::{RecvError, SendError, TryRecvError};

use super::waiting::WaiterNode;
use super::{Channel, Receiver, Sender};
use crate::park::several::Arm;
use crate::task::{Awaits, Reason, Waiting};

/// A message to receive.
pub(crate) struct RecvArm<'a, T> {
    channel: &'a Channel<T>,
    node: WaiterNode<T>,
    received: Cell<Option<Result<T, RecvError>>>,
}

impl<'a, T> RecvArm<'a, T> {
    pub(crate) fn new(receiver: &'a Receiver<T>) -> RecvArm<'a, T> {
        RecvArm {
            channel: receiver.channel(),
            node: WaiterNode::new(None),
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
        let received = match self.channel.take_now() {
            Ok(value) => Ok(value),
            Err(TryRecvError::Disconnected) => Err(RecvError),
            Err(TryRecvError::Empty) => return false,
        };
        self.received.set(Some(received));
        true
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        let Some(mut back) = self.channel.state.hold_empty(waiting) else {
            return false;
        };
        // SAFETY: the caller promises that this arm, and so its node, does not move before `leave` has been
        // called, which unlinks it.
        unsafe { self.node.enqueue(&mut back.receivers, waiting) };
        true
    }

    fn leave(&self) -> bool {
        // A sender that has ended the wait has unlinked the node and put its value there.
        if self.node.has_value() {
            self.received.set(self.node.value().take().map(Ok));
            return true;
        }
        let end = self.channel.state.back();
        self.node.unlink(end, |back| &mut back.receivers);
        false
    }

    fn describe(&self) -> Awaits {
        Awaits::of(Reason::Receive, self.channel.state.back())
    }
}

/// A message to send.
pub(crate) struct SendArm<'a, T> {
    channel: &'a Channel<T>,
    /// Has the message as long as it was not sent.
    node: WaiterNode<T>,
    /// The arm was completed.
    is_complete: Cell<bool>,
    sent: Cell<Option<Result<(), SendError<T>>>>,
}

impl<'a, T> SendArm<'a, T> {
    pub(crate) fn new(sender: &'a Sender<T>, message: T) -> SendArm<'a, T> {
        SendArm {
            channel: sender.channel(),
            node: WaiterNode::new(Some(message)),
            is_complete: Cell::new(false),
            sent: Cell::new(None),
        }
    }

    /// Whether the message was sent, if the arm was completed.
    pub(crate) fn take(&self) -> Option<Result<(), SendError<T>>> {
        self.sent.take()
    }

    /// Whether the arm was completed. Stays the same while the arm is queued.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.get()
    }

    fn complete(&self, sent: Result<(), SendError<T>>) {
        self.sent.set(Some(sent));
        self.is_complete.set(true);
    }

    /// The message, if the arm was not completed.
    pub(crate) fn take_unsent(&self) -> Option<T> {
        self.node.value().take()
    }
}

impl<T> Arm for SendArm<'_, T> {
    fn try_complete(&self) -> bool {
        let sent = match self.channel.send_now(self.node.value()) {
            None => return false,
            Some(true) => Ok(()),
            Some(false) => {
                let message = self.node.value().take();
                Err(SendError(message.expect(super::UNSENT)))
            }
        };
        self.complete(sent);
        true
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        let Some(mut front) = self.channel.state.hold_full(waiting) else {
            return false;
        };
        // SAFETY: the caller promises that this arm, and so its node, does not move before `leave` has been
        // called, which unlinks it.
        unsafe { self.node.enqueue(&mut front.senders, waiting) };
        true
    }

    fn leave(&self) -> bool {
        // A receiver that has ended the wait has unlinked the node and taken the value.
        if !self.node.has_value() {
            self.complete(Ok(()));
            return true;
        }
        let end = self.channel.state.front();
        self.node.unlink(end, |front| &mut front.senders);
        false
    }

    fn describe(&self) -> Awaits {
        Awaits::of(Reason::Send, self.channel.state.front())
    }
}
