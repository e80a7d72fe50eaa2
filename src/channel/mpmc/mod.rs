//! Channels: many senders, many receivers, and a queue between them.
//!
//! ```text
//!                 ┌ queue: at most `capacity` values
//!   senders ──▶   │ a b c d │   ──▶ receivers
//!   wait while it is full       wait while it is empty
//! ```
//!
//! Each end has a lock, which is held for a few instructions. User code never runs under a lock, nor
//! does the global allocator (see `chain::SpareBlocks`), and no task is scheduled under one. Senders
//! take the lock of the back, receivers that of the front. So they get in each other's way only if one
//! waits or is about to wait. See `state` for that, and `chain` for the queue.
//!
//! *When tasks wait.* Receivers wait only while the queue is empty and no sender waits; senders only
//! while the queue is full. This holds for a capacity of zero, too, where the queue is both.
//!
//! *Values are handed over, not just announced.* A thread that ends a wait also completes the waiting
//! operation. A sender puts its value into the frame of the first waiting receiver. A receiver takes the
//! first value of the queue, and moves the value of the first waiting sender to the end of the queue; if
//! the queue is empty, it takes that sender's value. So a woken task never finds that others were
//! faster, and a sender that fills the queue wakes its receiver only once.
//!
//! *Nothing is lost.* A wait ends for exactly one reason (see `task::word`). If that was the other end,
//! the value has changed hands, and the waiting task stays until it is scheduled, so its frame is still
//! there to receive the value. If it was a deadline or an interrupt, the waiting task still has its own
//! value, and a thread that finds its node in the queue of waiters passes over it.
//!
//! *In a forked child*, an end is lost if another thread held its lock at the fork (see `spin`). Then
//! the channel behaves as if the other end were closed, and queued values are leaked. Tasks that wait in
//! the parent are forgotten in the child.

mod arms;
mod chain;
mod ends;
mod error;
mod lock;
mod spin;
mod state;
mod waiting;

use std::cell::Cell;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::park::{self, Waited};
use crate::task::word::Outcome;
use crate::task::{Deadline, Reason, Woken};

pub(crate) use arms::{RecvArm, SendArm};
use chain::{NoSpareBlock, SpareBlocks};
pub(crate) use ends::{Receiver, Sender, channel};
pub use error::SendTimeoutError;
use lock::{Guard, Lock};
use state::{AtOnce, Offer, Receiving, Sending, State, Take, UNSENT};
use waiting::{WaitQueue, WaiterNode};

/// The most values in a block of the queue.
const BLOCK: usize = 32;

/// What senders and receivers share. `ends` has the handles.
pub(crate) struct Channel<T> {
    state: State<T, BLOCK>,
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Channel<T> {
        Channel {
            state: State::new(capacity),
        }
    }

    /// Sends `value`; waits until there is room. Gives the value back if there are no receivers, be it
    /// only after a while.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        park::spend_operation();
        match self.state.push_at_once(value) {
            AtOnce::Pushed => Ok(()),
            AtOnce::Not(value, back) => {
                self.send_slowly(value, back, || None, |value, _| SendError(value))
            }
            AtOnce::Lost(value) => Err(SendError(value)),
        }
    }

    /// Sends `value`; waits until there is room, or until the deadline, which is only computed if there
    /// is none. Gives the value back if it was not sent.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    fn send_until(
        &self,
        value: T,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<(), SendTimeoutError<T>> {
        park::spend_operation();
        match self.state.push_at_once(value) {
            AtOnce::Pushed => Ok(()),
            AtOnce::Not(value, back) => {
                self.send_slowly(value, back, deadline, |value, outcome| match outcome {
                    Outcome::TimedOut => SendTimeoutError::Timeout(value),
                    Outcome::Woken | Outcome::Interrupted => SendTimeoutError::Disconnected(value),
                })
            }
            AtOnce::Lost(value) => Err(SendTimeoutError::Disconnected(value)),
        }
    }

    /// Sends `value` if that is possible without waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    #[inline]
    fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        park::spend_operation();
        match self.state.push_at_once(value) {
            AtOnce::Pushed => Ok(()),
            AtOnce::Not(value, back) => self.try_send_slowly(value, back),
            AtOnce::Lost(value) => Err(TrySendError::Disconnected(value)),
        }
    }

    /// Receives a value. Waits for one until the deadline, which is only computed if there is no value.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    fn recv(&self, deadline: impl FnOnce() -> Option<Deadline>) -> Result<T, RecvTimeoutError> {
        park::spend_operation();
        match self.state.take_queued() {
            Some(value) => Ok(value),
            None => self.take_or_wait(deadline),
        }
    }

    /// Receives a value if that is possible without waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    fn try_recv(&self) -> Result<T, TryRecvError> {
        park::spend_operation();
        self.take_now()
    }

    /// Like `try_recv`, without counting an operation.
    fn take_now(&self) -> Result<T, TryRecvError> {
        if let Some(value) = self.state.take_queued() {
            return Ok(value);
        }
        let mut spare = SpareBlocks::new();
        loop {
            match self.state.take(&mut spare) {
                Take::Value(value, woken) => {
                    schedule(woken);
                    return Ok(value);
                }
                Take::Nothing(back) if back.without_senders => {
                    return Err(TryRecvError::Disconnected);
                }
                Take::Nothing(_) => return Err(TryRecvError::Empty),
                Take::NoSpareBlock => {}
                Take::Lost => return Err(TryRecvError::Disconnected),
            }
            spare.fill();
        }
    }

    /// Continues a `send` that took more than a push. If the value cannot be sent, `unsent` makes the
    /// error, of the value and how the wait for room has ended.
    ///
    /// From here on, the value stays in the node with which the sender may have to wait. The functions
    /// below take a reference to the node. The value may be large, and each function that took it by value
    /// would need room for it on the coroutine's stack.
    #[inline(never)]
    fn send_slowly<'a, E>(
        &'a self,
        value: T,
        back: Guard<'a, Sending<T, BLOCK>>,
        deadline: impl FnOnce() -> Option<Deadline>,
        unsent: impl FnOnce(T, Outcome) -> E,
    ) -> Result<(), E> {
        let node = WaiterNode::new(Some(value));
        let waited = match self.state.offer(node.value(), back) {
            Offer::Taken(woken) => {
                schedule(woken);
                Waited::Woken
            }
            Offer::Refused => Waited::Woken,
            // The most frequent case. `send_with_spare_blocks` has it, too, for its later rounds.
            Offer::Full(back) if park::is_prepared_to_wait() => {
                match self.state.confirm_full(node.value(), back) {
                    Err(front) => self.wait_for_room(&node, front, deadline),
                    Ok(offer) => self.send_with_spare_blocks(&node, offer, deadline),
                }
            }
            offer => self.send_with_spare_blocks(&node, offer, deadline),
        };
        match node.into_value() {
            None => Ok(()),
            Some(value) => Err(unsent(value, waited.or_unwind())),
        }
    }

    /// Continues a `send` that may have to call the allocator. A value that cannot be sent stays in the
    /// node.
    #[cold]
    #[inline(never)]
    fn send_with_spare_blocks<'a>(
        &'a self,
        node: &WaiterNode<T>,
        mut offer: Offer<'a, T, BLOCK>,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Waited {
        let mut spare = SpareBlocks::new();
        let value = node.value();
        loop {
            offer = match offer {
                Offer::Taken(woken) => {
                    schedule(woken);
                    return Waited::Woken;
                }
                Offer::Refused => return Waited::Woken,
                Offer::BlockFull(back) => self.push_to_next_block(value, back, &mut spare),
                // Both calls use the allocator. So they must come after the unlock, and before the wait.
                Offer::Full(back) if !spare.is_empty() || !park::is_prepared_to_wait() => {
                    drop(back);
                    spare.free();
                    park::prepare_to_wait();
                    self.state.offer_again(value)
                }
                Offer::Full(back) => match self.state.confirm_full(value, back) {
                    Err(front) => return self.wait_for_room(node, front, deadline),
                    Ok(offer) => offer,
                },
            };
        }
    }

    /// Continues a `try_send` that took more than a push.
    #[inline(never)]
    fn try_send_slowly<'a>(
        &'a self,
        value: T,
        back: Guard<'a, Sending<T, BLOCK>>,
    ) -> Result<(), TrySendError<T>> {
        let value = Cell::new(Some(value));
        let offer = self.state.offer(&value, back);
        let taken = self.push_offered(&value, offer);
        let unsent = || value.take().expect(UNSENT);
        match taken {
            Some(true) => Ok(()),
            Some(false) => Err(TrySendError::Disconnected(unsent())),
            None => Err(TrySendError::Full(unsent())),
        }
    }

    /// Sends the value if that is possible without waiting, without counting an operation. Returns whether it
    /// was sent; `None` if there is no room.
    fn send_now(&self, value: &Cell<Option<T>>) -> Option<bool> {
        self.push_offered(value, self.state.offer_again(value))
    }

    /// Continues an offer, without waiting. Returns whether the value was sent; `None` if there is no room.
    fn push_offered<'a>(
        &'a self,
        value: &Cell<Option<T>>,
        mut offer: Offer<'a, T, BLOCK>,
    ) -> Option<bool> {
        let mut spare = SpareBlocks::new();
        loop {
            offer = match offer {
                Offer::Taken(woken) => {
                    schedule(woken);
                    return Some(true);
                }
                Offer::BlockFull(back) => self.push_to_next_block(value, back, &mut spare),
                Offer::Refused => return Some(false),
                Offer::Full(back) => {
                    // Before `spare` is dropped, which calls the allocator.
                    drop(back);
                    return None;
                }
            };
        }
    }

    /// Pushes the value into the block after the last one, which is full. If that takes a new block and
    /// `spare` has none: unlocks, allocates a block, and offers the value again.
    fn push_to_next_block<'a>(
        &'a self,
        value: &Cell<Option<T>>,
        mut back: Guard<'a, Sending<T, BLOCK>>,
        spare: &mut SpareBlocks<T, BLOCK>,
    ) -> Offer<'a, T, BLOCK> {
        match self.state.push_to_next_block(value, &mut back, spare) {
            Ok(()) => Offer::Taken(None),
            Err(NoSpareBlock) => {
                drop(back);
                spare.fill();
                self.state.offer_again(value)
            }
        }
    }

    /// Waits until a receiver has taken the value, or until the deadline. Then, or if nothing can be sent
    /// any more, the value stays in the node.
    #[inline(always)]
    fn wait_for_room(
        &self,
        node: &WaiterNode<T>,
        front: Guard<'_, Receiving<T, BLOCK>>,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Waited {
        let end = self.state.front();
        node.wait(
            end,
            front,
            |front| &mut front.senders,
            Reason::Send,
            deadline(),
        )
    }

    /// Continues a `recv` that found no value to be popped under the front's lock alone.
    #[inline(never)]
    fn take_or_wait(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        // May call the allocator, so this comes before the locks.
        park::prepare_to_wait();
        let mut spare = SpareBlocks::new();
        let back = loop {
            match self.state.take(&mut spare) {
                Take::Value(value, woken) => {
                    schedule(woken);
                    return Ok(value);
                }
                Take::Nothing(back) if spare.is_empty() => break back,
                // The blocks are freed before the wait, so this unlocks and looks again.
                Take::Nothing(_) => {}
                Take::NoSpareBlock => {
                    spare.fill();
                    continue;
                }
                Take::Lost => return Err(RecvTimeoutError::Disconnected),
            }
            spare.free();
        };
        if back.without_senders {
            return Err(RecvTimeoutError::Disconnected);
        }
        drop(spare);
        let node = WaiterNode::new(None);
        let end = self.state.back();
        let waited = node.wait(
            end,
            back,
            |back| &mut back.receivers,
            Reason::Receive,
            deadline(),
        );
        match (node.into_value(), waited) {
            (Some(value), _) => Ok(value),
            (None, Waited::TimedOut) => Err(RecvTimeoutError::Timeout),
            // Woken without a value: the last sender has gone.
            (None, Waited::Woken) => Err(RecvTimeoutError::Disconnected),
            (None, Waited::Interrupted(interrupt)) => interrupt.unwind(),
        }
    }

    /// Closes the channel: nothing can be sent any more. Waiting senders get their values back. Queued
    /// values can still be received; then receivers find the channel disconnected.
    pub(crate) fn close(&self) {
        self.state.close();
        wake_all(self.state.back(), |back| &mut back.receivers);
        wake_all(self.state.front(), |front| &mut front.senders);
    }

    /// Called when the last sender has gone. Queued values can still be received; then receivers find
    /// the channel disconnected.
    fn close_sending(&self) {
        self.state.close_sending();
        wake_all(self.state.back(), |back| &mut back.receivers);
    }

    /// Called when the last receiver has gone. Waiting senders get their values back; queued values are
    /// dropped.
    fn close_receiving(&self) {
        self.state.close_receiving();
        wake_all(self.state.front(), |front| &mut front.senders);
        self.state.clear();
    }
}

/// Wakes all tasks of a queue, to which no task is added any more. Senders among them keep their values.
///
/// Unlocks before it schedules each task.
fn wake_all<T, E>(end: &Lock<E>, queue: fn(&mut E) -> &mut WaitQueue<T>) {
    while let Some(mut held) = end.lock() {
        let first = queue(&mut held).end_first_wait().map(|(_, woken)| woken);
        drop(held);
        match first {
            Some(woken) => woken.schedule(),
            None => return,
        }
    }
}

/// Schedules the task that an operation has woken, if any.
#[inline]
fn schedule(woken: Option<Woken>) {
    if let Some(woken) = woken {
        woken.schedule();
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut channel = f.debug_struct("Channel");
        // The counts are read first, since the formatter may be user code, and that must not run under
        // the locks.
        if let Some((queued, senders, receivers)) = self.counts() {
            channel
                .field("queued", &queued)
                .field("senders_waiting", &senders)
                .field("receivers_waiting", &receivers);
        }
        channel.finish_non_exhaustive()
    }
}

impl<T> Channel<T> {
    /// How many values are queued. Zero if the lock is lost.
    pub(crate) fn len(&self) -> usize {
        let back = self.state.back().lock();
        back.map_or(0, |mut back| self.state.len(&mut back))
    }

    /// How many values may be queued.
    pub(crate) fn capacity(&self) -> usize {
        // With a lost lock, nothing can be queued.
        self.state.back().lock().map_or(0, |back| back.capacity)
    }

    /// Whether nothing can be sent any more, because the channel was closed or one of its ends is gone.
    pub(crate) fn is_closed(&self) -> bool {
        let back = self.state.back().lock();
        back.is_none_or(|back| back.without_senders || back.without_receivers)
    }

    /// How many values are queued, how many senders wait, and how many receivers. `None` if a lock is
    /// lost.
    fn counts(&self) -> Option<(usize, usize, usize)> {
        let mut back = self.state.back().lock()?;
        let front = self.state.front().lock()?;
        let queued = self.state.len(&mut back);
        Some((queued, front.senders.len(), back.receivers.len()))
    }
}
