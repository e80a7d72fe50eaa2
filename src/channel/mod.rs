//! Channels: many senders, many receivers, a queue between them.
//!
//! All there is of a channel stands under one lock, which is held for a few instructions, never
//! while user code runs, and never while somebody is scheduled:
//!
//! ```text
//!                 ┌ queue: at most `capacity` values
//!   senders ──▶   │ a b c d │   ──▶ receivers
//!   wait while it is full       wait while it is empty
//! ```
//!
//! *Under the lock*, receivers wait only where the queue is empty and no sender waits; and senders
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

mod ends;
mod lock;
mod spin;
mod waiting;

use lock::{Guard, Lock};
use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::park;
use crate::task::Deadline;
use crate::task::word::Outcome;

pub(crate) use ends::{Receiver, Sender, channel};
use waiting::{Entry, Queue, Woken};

/// The most values that an empty queue keeps room for, if it has no bound.
const KEPT: usize = 1_024;

/// What senders and receivers share; see `ends`.
struct Channel<T> {
    /// The most values in the queue.
    capacity: usize,
    state: Lock<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    /// With the values that have no room.
    senders: Queue<T>,
    /// With room for a value.
    receivers: Queue<T>,
    /// No more values come.
    without_senders: bool,
    /// No more values are taken.
    without_receivers: bool,
}

/// What came of an attempt to send.
enum Offer<T> {
    Taken(Option<Woken>),
    Full(T),
    Refused(T),
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Channel<T> {
        Channel {
            capacity,
            state: Lock::new(State {
                queue: VecDeque::new(),
                senders: Queue::new(),
                receivers: Queue::new(),
                without_senders: false,
                without_receivers: false,
            }),
        }
    }

    /// Sends `value`; waits for room. Gives it back if there are no receivers (any more).
    ///
    /// # Unwinding
    ///
    /// An interruption point. In a destructor, at a time when nobody is left who could receive, the
    /// value is given back as well.
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        park::spend_operation();
        let mut state = self.lock();
        match state.offer(value, self.capacity) {
            Offer::Taken(woken) => {
                drop(state);
                schedule(woken);
                Ok(())
            }
            Offer::Full(value) => self.wait_for_room(state, value),
            Offer::Refused(value) => Err(SendError(value)),
        }
    }

    /// Sends `value` if that needs no waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        park::spend_operation();
        let offer = self.lock().offer(value, self.capacity);
        match offer {
            Offer::Taken(woken) => {
                schedule(woken);
                Ok(())
            }
            Offer::Full(value) => Err(TrySendError::Full(value)),
            Offer::Refused(value) => Err(TrySendError::Disconnected(value)),
        }
    }

    /// Receives a value; waits for one until a deadline, which is asked for if there is none.
    ///
    /// # Unwinding
    ///
    /// An interruption point. In a destructor, at a time when nobody is left who could send, the
    /// channel counts as disconnected.
    fn recv(&self, deadline: impl FnOnce() -> Option<Deadline>) -> Result<T, RecvTimeoutError> {
        park::spend_operation();
        let mut state = self.lock();
        if let Some((value, woken)) = state.take() {
            drop(state);
            schedule(woken);
            return Ok(value);
        }
        if state.without_senders {
            return Err(RecvTimeoutError::Disconnected);
        }
        self.wait_for_value(state, deadline())
    }

    /// Receives a value if that needs no waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    fn try_recv(&self) -> Result<T, TryRecvError> {
        park::spend_operation();
        let mut state = self.lock();
        match state.take() {
            Some((value, woken)) => {
                drop(state);
                schedule(woken);
                Ok(value)
            }
            None if state.without_senders => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    #[cold]
    fn wait_for_room(&self, state: Guard<'_, State<T>>, value: T) -> Result<(), SendError<T>> {
        let entry = Entry::new(Some(value));
        entry.wait(self, |state| &mut state.senders, state, None);
        match entry.into_value() {
            None => Ok(()),
            Some(value) => Err(SendError(value)),
        }
    }

    #[cold]
    fn wait_for_value(
        &self,
        mut state: Guard<'_, State<T>>,
        deadline: Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        if self.capacity == usize::MAX && state.queue.capacity() > 2 * KEPT {
            state.queue.shrink_to(KEPT);
        }
        let entry = Entry::new(None);
        let outcome = entry.wait(self, |state| &mut state.receivers, state, deadline);
        match (entry.into_value(), outcome) {
            (Some(value), _) => Ok(value),
            (None, Outcome::TimedOut) => Err(RecvTimeoutError::Timeout),
            (None, Outcome::Woken | Outcome::Interrupted) => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// The last sender has gone: what is queued can still be received, then no more comes.
    fn close_sending(&self) {
        self.lock().without_senders = true;
        self.release(|state| &mut state.receivers);
    }

    /// The last receiver has gone: drops what is queued, and has senders keep what they have.
    fn close_receiving(&self) {
        let left = {
            let mut state = self.lock();
            state.without_receivers = true;
            std::mem::take(&mut state.queue)
        };
        self.release(|state| &mut state.senders);
        // Not under the lock: destructors may come back to it.
        drop(left);
    }

    /// Wakes all of a queue to which nobody comes any more, with what they have.
    fn release(&self, queue: fn(&mut State<T>) -> &mut Queue<T>) {
        loop {
            let Some((_, woken)) = queue(&mut self.lock()).end_first_wait() else {
                return;
            };
            woken.schedule();
        }
    }

    fn lock(&self) -> Guard<'_, State<T>> {
        self.state.lock()
    }
}

fn schedule(woken: Option<Woken>) {
    if let Some(woken) = woken {
        woken.schedule();
    }
}

impl<T> State<T> {
    /// Takes `value`, if somebody waits for it or there is room.
    fn offer(&mut self, value: T, capacity: usize) -> Offer<T> {
        if self.without_receivers {
            return Offer::Refused(value);
        }
        if let Some((receiver, woken)) = self.receivers.end_first_wait() {
            receiver.set(Some(value));
            return Offer::Taken(Some(woken));
        }
        if self.queue.len() >= capacity {
            return Offer::Full(value);
        }
        self.queue.push_back(value);
        Offer::Taken(None)
    }

    /// The next value, if there is one, and the sender that is relieved by that.
    fn take(&mut self) -> Option<(T, Option<Woken>)> {
        let first = self.queue.pop_front();
        let Some((sender, woken)) = self.senders.end_first_wait() else {
            return first.map(|value| (value, None));
        };
        let sent = sender.take().expect("a sender waits with its value");
        let value = match first {
            Some(first) => {
                self.queue.push_back(sent);
                first
            }
            None => sent,
        };
        Some((value, Some(woken)))
    }
}

impl<T> fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Channel")
            .field("queued", &state.queue.len())
            .field("senders_waiting", &state.senders.len())
            .field("receivers_waiting", &state.receivers.len())
            .finish_non_exhaustive()
    }
}
