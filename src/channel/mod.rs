//! Channels: many senders, many receivers, a queue between them.
//!
//! ```text
//!                 ┌ queue: at most `capacity` values
//!   senders ──▶   │ a b c d │   ──▶ receivers
//!   wait while it is full       wait while it is empty
//! ```
//!
//! There is a lock for each end, which is held for a few instructions, never while user code runs (be
//! it the allocator: see `chain::Stock`), and never while somebody is scheduled. Senders hold that of the back, receivers that of the front:
//! they meet only to wait, or where somebody waits. See `state`, and `chain` for the queue.
//!
//! *Under the locks*, receivers wait only where the queue is empty and no sender waits; and senders
//! only where the queue is full. So it is for a capacity of zero, where the queue is both.
//!
//! *Values are handed over, not just announced.* Who ends a wait completes the operation that
//! waited: a sender puts its value into the frame of the first receiver; a receiver takes the first
//! value of the queue, and moves that of the first sender to the end of it (or takes it, if there is
//! no queue). So nobody is woken in vain, or overtaken by who comes later, and a sender that fills
//! the queue wakes its receiver once.
//!
//! *Nothing is lost.* A wait ends by one cause (see `task::word`). If that was the other side, the
//! value has changed hands, and the waiter stays until it is scheduled: its frame is there
//! meanwhile. If it was a deadline or an interrupt, the waiter still has what it had; where its node
//! is found before it has taken that out, it is passed over.
//!
//! *In a forked child*, an end whose lock another thread had is lost (see `spin`), and so the channel
//! is as if those at the other end had gone. What is lost is leaked. Who waits in the parent is
//! forgotten.

mod chain;
mod ends;
mod lock;
mod spin;
mod state;
mod waiting;

use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::park;
use crate::task::word::Outcome;
use crate::task::{Deadline, Woken};

use chain::{OutOfStock, Stock};
pub(crate) use ends::{Receiver, Sender, channel};
use lock::{Guard, Lock};
use state::{AtOnce, Offer, Receiving, Sending, State, Taken, UNSENT};
use waiting::{Entry, Queue};

/// The most values in a block of the queue.
const BLOCK: usize = 32;

/// What senders and receivers share; see `ends`.
struct Channel<T> {
    state: State<T, BLOCK>,
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Channel<T> {
        Channel {
            state: State::new(capacity),
        }
    }

    /// Sends `value`; waits for room. Gives it back if there are no receivers (any more).
    ///
    /// # Unwinding
    ///
    /// An interruption point. In a destructor, at a time when nobody is left who could receive, the
    /// value is given back as well.
    #[inline]
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        park::spend_operation();
        match self.state.push_at_once(value) {
            AtOnce::Pushed => Ok(()),
            AtOnce::Not(value, back) => self.send_slowly(value, back),
            AtOnce::Lost(value) => Err(SendError(value)),
        }
    }

    /// Sends `value` if that needs no waiting.
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

    /// Receives a value; waits for one until a deadline, which is asked for if there is none.
    ///
    /// # Unwinding
    ///
    /// An interruption point. In a destructor, at a time when nobody is left who could send, the
    /// channel counts as disconnected.
    #[inline]
    fn recv(&self, deadline: impl FnOnce() -> Option<Deadline>) -> Result<T, RecvTimeoutError> {
        park::spend_operation();
        match self.state.take_queued() {
            Some(value) => Ok(value),
            None => self.take_or_wait(deadline),
        }
    }

    /// Receives a value if that needs no waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    fn try_recv(&self) -> Result<T, TryRecvError> {
        park::spend_operation();
        if let Some(value) = self.state.take_queued() {
            return Ok(value);
        }
        let mut stock = Stock::new();
        loop {
            match self.state.take(&mut stock) {
                Taken::Value(value, woken) => {
                    schedule(woken);
                    return Ok(value);
                }
                Taken::Nothing(back) if back.without_senders => {
                    return Err(TryRecvError::Disconnected);
                }
                Taken::Nothing(_) => return Err(TryRecvError::Empty),
                Taken::OutOfStock => {}
                Taken::Lost => return Err(TryRecvError::Disconnected),
            }
            stock.fill();
        }
    }

    /// Goes on with a `send` that could not push at once.
    ///
    /// From here on the value stays where it is until it is sent: it may be large, and functions that
    /// pass it on and give it back would take up much of a coroutine's stack.
    #[inline(never)]
    fn send_slowly<'a>(
        &'a self,
        value: T,
        back: Guard<'a, Sending<T, BLOCK>>,
    ) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        match self.state.offer(&mut value, back) {
            Offer::Taken(woken) => schedule(woken),
            Offer::Refused => {}
            Offer::Full(back) if park::is_prepared_to_wait() => {
                match self.state.confirm_full(&mut value, back) {
                    Err(front) => self.wait_for_room(&mut value, front),
                    Ok(offer) => self.send_with_stock(&mut value, offer),
                }
            }
            offer => self.send_with_stock(&mut value, offer),
        }
        match value {
            None => Ok(()),
            Some(value) => Err(SendError(value)),
        }
    }

    /// Goes on with a `send` that may have to call the allocator. Leaves the value that is not sent.
    #[cold]
    #[inline(never)]
    fn send_with_stock<'a>(&'a self, value: &mut Option<T>, mut offer: Offer<'a, T, BLOCK>) {
        let mut stock = Stock::new();
        loop {
            offer = match offer {
                Offer::Taken(woken) => return schedule(woken),
                Offer::Refused => return,
                Offer::BlockFull(back) => self.push_to_next_block(value, back, &mut stock),
                // Both call the allocator, so they come after the lock was given back, and before
                // the wait.
                Offer::Full(back) if !stock.is_empty() || !park::is_prepared_to_wait() => {
                    drop(back);
                    stock.free();
                    park::prepare_to_wait();
                    self.state.offer_again(value)
                }
                Offer::Full(back) => match self.state.confirm_full(value, back) {
                    Err(front) => return self.wait_for_room(value, front),
                    Ok(offer) => offer,
                },
            };
        }
    }

    /// Goes on with a `try_send` that could not push at once.
    #[inline(never)]
    fn try_send_slowly<'a>(
        &'a self,
        value: T,
        back: Guard<'a, Sending<T, BLOCK>>,
    ) -> Result<(), TrySendError<T>> {
        let mut stock = Stock::new();
        let mut value = Some(value);
        let mut offer = self.state.offer(&mut value, back);
        let is_full = loop {
            offer = match offer {
                Offer::Taken(woken) => {
                    schedule(woken);
                    return Ok(());
                }
                Offer::BlockFull(back) => self.push_to_next_block(&mut value, back, &mut stock),
                Offer::Refused => break false,
                Offer::Full(back) => {
                    // Before the stock is dropped, which calls the allocator.
                    drop(back);
                    break true;
                }
            };
        };
        let value = value.expect(UNSENT);
        Err(match is_full {
            true => TrySendError::Full(value),
            false => TrySendError::Disconnected(value),
        })
    }

    /// Pushes the value behind the last block, which is full. If that takes a block which the stock
    /// does not have, gives the lock back, allocates one, and offers the value again.
    fn push_to_next_block<'a>(
        &'a self,
        value: &mut Option<T>,
        mut back: Guard<'a, Sending<T, BLOCK>>,
        stock: &mut Stock<T, BLOCK>,
    ) -> Offer<'a, T, BLOCK> {
        match self.state.push_to_next_block(value, &mut back, stock) {
            Ok(()) => Offer::Taken(None),
            Err(OutOfStock) => {
                drop(back);
                stock.fill();
                self.state.offer_again(value)
            }
        }
    }

    /// Waits until a receiver takes the value, or leaves it here because there are no receivers.
    #[inline(always)]
    fn wait_for_room(&self, value: &mut Option<T>, front: Guard<'_, Receiving<T, BLOCK>>) {
        let entry = Entry::new(value.take());
        entry.wait(self.state.front(), front, |front| &mut front.senders, None);
        *value = entry.into_value();
    }

    #[inline(never)]
    fn take_or_wait(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        park::prepare_to_wait();
        let mut stock = Stock::new();
        let back = loop {
            match self.state.take(&mut stock) {
                Taken::Value(value, woken) => {
                    schedule(woken);
                    return Ok(value);
                }
                Taken::Nothing(back) if stock.is_empty() => break back,
                // To free it before the wait.
                Taken::Nothing(_) => {}
                Taken::OutOfStock => {
                    stock.fill();
                    continue;
                }
                Taken::Lost => return Err(RecvTimeoutError::Disconnected),
            }
            stock.free();
        };
        if back.without_senders {
            return Err(RecvTimeoutError::Disconnected);
        }
        let entry = Entry::new(None);
        let end = self.state.back();
        let outcome = entry.wait(end, back, |back| &mut back.receivers, deadline());
        match (entry.into_value(), outcome) {
            (Some(value), _) => Ok(value),
            (None, Outcome::TimedOut) => Err(RecvTimeoutError::Timeout),
            (None, Outcome::Woken | Outcome::Interrupted) => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// The last sender has gone: what is queued can still be received, then no more comes.
    fn close_sending(&self) {
        self.state.close_sending();
        release(self.state.back(), |back| &mut back.receivers);
    }

    /// The last receiver has gone: has senders keep what they have, and drops what is queued.
    fn close_receiving(&self) {
        self.state.close_receiving();
        release(self.state.front(), |front| &mut front.senders);
        self.state.clear();
    }
}

/// Wakes all of a queue to which nobody comes any more, with what they have.
fn release<T, E>(end: &Lock<E>, queue: fn(&mut E) -> &mut Queue<T>) {
    while let Some(mut held) = end.lock() {
        let first = queue(&mut held).end_first_wait().map(|(_, woken)| woken);
        drop(held);
        match first {
            Some(woken) => woken.schedule(),
            None => return,
        }
    }
}

#[inline]
fn schedule(woken: Option<Woken>) {
    if let Some(woken) = woken {
        woken.schedule();
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut channel = f.debug_struct("Channel");
        // What is written to may be the user's.
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
    /// The values queued, and those who wait to send and to receive; unless the queue is lost.
    fn counts(&self) -> Option<(usize, usize, usize)> {
        let mut back = self.state.back().lock()?;
        let front = self.state.front().lock()?;
        let queued = self.state.len(&mut back);
        Some((queued, front.senders.len(), back.receivers.len()))
    }
}
