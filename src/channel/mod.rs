//! Channels: many senders, many receivers, a queue between them.
//!
//! ```text
//!                 ┌ queue: at most `capacity` values
//!   senders ──▶   │ a b c d │   ──▶ receivers
//!   wait while it is full       wait while it is empty
//!
//!   at the back: where to push,    at the front: where to pop,
//!   the receivers that wait        the senders that wait
//! ```
//!
//! There is a lock for each end, which is held for a few instructions, never while user code runs,
//! and never while somebody is scheduled. Who sends holds that of the back, and finds there whether
//! somebody waits for a value; who receives holds that of the front, and finds there whether
//! somebody waits for room. So they meet only to wait, or where somebody does. Who needs both takes
//! the back first. How values get from end to end: see `chain`.
//!
//! *Receivers wait only where the queue is empty and no sender waits; and senders only where the
//! queue is full.* Nobody pushes but who holds the back: a receiver that holds it, and sees as many
//! values popped as were pushed, knows that the queue is empty, for no more than these can be popped,
//! and that it stays so until it has queued itself where the next sender will find it. Nobody
//! pops but who holds the front: a sender that holds both, and sees the queue full, knows that it
//! stays so until it has queued itself where the next receiver will find it. And where senders wait,
//! a receiver holds both to take the first value and refill the queue from them, so that it is full
//! all the time. A capacity of zero, where the queue is both empty and full, has senders that wait
//! for receivers and receivers that wait for senders: there, receivers take both locks before they
//! wait, too.
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

mod chain;
mod ends;
mod lock;
mod spin;
mod waiting;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::mpsc::{RecvTimeoutError, SendError, TryRecvError, TrySendError};

use crate::park;
use crate::task::Deadline;
use crate::task::word::Outcome;

use chain::{Popped, Pushed};
pub(crate) use ends::{Receiver, Sender, channel};
use lock::{Guard, Lock};
use waiting::{Entry, Queue, Woken};

/// The most values that an empty queue keeps room for, if it has no bound.
const KEPT: usize = 1_024;

/// The values of a block.
const BLOCK: usize = 32;

/// What senders and receivers share; see `ends`.
struct Channel<T> {
    back: Aligned<Back<T>>,
    front: Aligned<Front<T>>,
}

/// Alone in its cache line, and in the one that processors fetch along with it.
#[repr(align(128))]
struct Aligned<E>(E);

struct Back<T> {
    pushed: Pushed<T, BLOCK>,
    lock: Lock<Sending<T>>,
}

/// What lies under the lock of the back.
struct Sending<T> {
    /// The most values in the queue.
    capacity: usize,
    queue: chain::Back<T, BLOCK>,
    /// With room for a value.
    receivers: Queue<T>,
    /// No more values come.
    without_senders: bool,
    /// No more values are taken.
    without_receivers: bool,
}

struct Front<T> {
    popped: Popped,
    lock: Lock<Receiving<T>>,
}

/// What lies under the lock of the front.
struct Receiving<T> {
    queue: chain::Front<T, BLOCK>,
    /// With the values that have no room.
    senders: Queue<T>,
}

// As a mutex, though this cannot be poisoned: user code is never unwound through it.
impl<T> UnwindSafe for Channel<T> {}
impl<T> RefUnwindSafe for Channel<T> {}

/// What came of an attempt to send.
enum Offer<'a, T> {
    Taken(Option<Woken>),
    /// So it was, and nobody waited to receive; nor does anybody begin to.
    Full(T, Guard<'a, Sending<T>>),
    Refused(T),
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Channel<T> {
        Channel {
            back: Aligned(Back {
                pushed: Pushed::new(),
                lock: Lock::new(Sending {
                    capacity,
                    queue: chain::Back::new(),
                    receivers: Queue::new(),
                    without_senders: false,
                    without_receivers: false,
                }),
            }),
            front: Aligned(Front {
                popped: Popped::new(),
                lock: Lock::new(Receiving {
                    queue: chain::Front::new(),
                    senders: Queue::new(),
                }),
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
        match self.offer(value) {
            Offer::Taken(woken) => {
                schedule(woken);
                Ok(())
            }
            Offer::Full(value, back) => self.wait_for_room(back, value),
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
        match self.offer(value) {
            Offer::Taken(woken) => {
                schedule(woken);
                Ok(())
            }
            Offer::Full(value, _) => Err(TrySendError::Full(value)),
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
        match self.take() {
            Ok((value, woken)) => {
                schedule(woken);
                Ok(value)
            }
            Err(back) if back.without_senders => Err(RecvTimeoutError::Disconnected),
            Err(back) => self.wait_for_value(back, deadline()),
        }
    }

    /// Receives a value if that needs no waiting.
    ///
    /// # Unwinding
    ///
    /// See [`park::spend_operation`].
    fn try_recv(&self) -> Result<T, TryRecvError> {
        park::spend_operation();
        match self.take() {
            Ok((value, woken)) => {
                schedule(woken);
                Ok(value)
            }
            Err(back) if back.without_senders => Err(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// Takes `value`, if somebody waits for it or there is room.
    #[inline]
    fn offer(&self, value: T) -> Offer<'_, T> {
        let mut back = self.back.0.lock.lock();
        if back.without_receivers {
            return Offer::Refused(value);
        }
        if !back.receivers.is_empty()
            && let Some((receiver, woken)) = back.receivers.end_first_wait()
        {
            receiver.set(Some(value));
            return Offer::Taken(Some(woken));
        }
        if !self.has_room(&mut back) {
            return Offer::Full(value, back);
        }
        self.push(&mut back, value);
        Offer::Taken(None)
    }

    /// The next value, and the sender that is relieved by that. Where there is none, no sender waits
    /// with one either, nor comes before the lock is given back.
    #[inline]
    fn take(&self) -> Result<(T, Option<Woken>), Guard<'_, Sending<T>>> {
        match self.take_queued() {
            Some(value) => Ok((value, None)),
            None => self.take_or_make_sure(),
        }
    }

    /// The next value, if nothing but the front is needed for it.
    #[inline]
    fn take_queued(&self) -> Option<T> {
        if self.front.0.popped.seems_all(&self.back.0.pushed) {
            return None;
        }
        let mut front = self.front.0.lock.lock();
        // Otherwise they have to be relieved.
        match front.senders.is_empty() {
            true => self.pop(&mut front),
            false => None,
        }
    }

    /// As `take`, which comes here first where somebody waits, or is going to.
    #[inline(never)]
    fn take_or_make_sure(&self) -> Result<(T, Option<Woken>), Guard<'_, Sending<T>>> {
        let mut back = self.back.0.lock.lock();
        if back.capacity > 0 && self.len(&mut back) == 0 {
            return Err(back);
        }
        self.take_and_refill(&mut back).ok_or(back)
    }

    /// The next value, as above, under both locks.
    fn take_and_refill(&self, back: &mut Sending<T>) -> Option<(T, Option<Woken>)> {
        let mut front = self.front.0.lock.lock();
        let first = self.pop(&mut front);
        let Some((sender, woken)) = front.senders.end_first_wait() else {
            return first.map(|value| (value, None));
        };
        let sent = sender.take().expect("a sender waits with its value");
        let value = match first {
            Some(first) => {
                self.push(back, sent);
                first
            }
            None => sent,
        };
        Some((value, Some(woken)))
    }

    #[cold]
    fn wait_for_room(&self, mut back: Guard<'_, Sending<T>>, value: T) -> Result<(), SendError<T>> {
        let front = self.front.0.lock.lock();
        if self.has_room(&mut back) {
            self.push(&mut back, value);
            return Ok(());
        }
        // It stays full without this, and whoever needs both locks finds us queued.
        drop(back);
        let entry = Entry::new(Some(value));
        entry.wait(&self.front.0.lock, front, |front| &mut front.senders, None);
        match entry.into_value() {
            None => Ok(()),
            Some(value) => Err(SendError(value)),
        }
    }

    #[cold]
    fn wait_for_value(
        &self,
        mut back: Guard<'_, Sending<T>>,
        deadline: Option<Deadline>,
    ) -> Result<T, RecvTimeoutError> {
        if back.capacity == usize::MAX {
            back.queue
                .shrink(KEPT, &self.back.0.pushed, &self.front.0.popped);
        }
        let entry = Entry::new(None);
        let end = &self.back.0.lock;
        let outcome = entry.wait(end, back, |back| &mut back.receivers, deadline);
        match (entry.into_value(), outcome) {
            (Some(value), _) => Ok(value),
            (None, Outcome::TimedOut) => Err(RecvTimeoutError::Timeout),
            (None, Outcome::Woken | Outcome::Interrupted) => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// The last sender has gone: what is queued can still be received, then no more comes.
    fn close_sending(&self) {
        self.back.0.lock.lock().without_senders = true;
        release(&self.back.0.lock, |back| &mut back.receivers);
    }

    /// The last receiver has gone: has senders keep what they have, and drops what is queued.
    fn close_receiving(&self) {
        self.back.0.lock.lock().without_receivers = true;
        release(&self.front.0.lock, |front| &mut front.senders);
        self.drop_queued();
        let mut back = self.back.0.lock.lock();
        back.queue
            .shrink(0, &self.back.0.pushed, &self.front.0.popped);
    }

    /// Not under a lock: destructors may come back to it.
    fn drop_queued(&self) {
        loop {
            let first = self.pop(&mut self.front.0.lock.lock());
            match first {
                Some(value) => drop(value),
                None => return,
            }
        }
    }

    /// Called under the lock of the back, as are the two below.
    #[inline]
    fn push(&self, back: &mut Sending<T>, value: T) {
        back.queue
            .push(value, &self.back.0.pushed, &self.front.0.popped);
    }

    #[inline]
    fn has_room(&self, back: &mut Sending<T>) -> bool {
        back.queue
            .has_room(back.capacity, &self.back.0.pushed, &self.front.0.popped)
    }

    fn len(&self, back: &mut Sending<T>) -> usize {
        back.queue.len(&self.back.0.pushed, &self.front.0.popped)
    }

    /// Called under the lock of the front.
    #[inline]
    fn pop(&self, front: &mut Receiving<T>) -> Option<T> {
        front.queue.pop(&self.back.0.pushed, &self.front.0.popped)
    }
}

impl<T> Drop for Channel<T> {
    fn drop(&mut self) {
        // A destructor that panicked may have left some.
        self.drop_queued();
        // SAFETY: nobody else has the channel, and the queue is empty.
        unsafe { self.back.0.lock.lock().queue.free() };
    }
}

/// Wakes all of a queue to which nobody comes any more, with what they have.
fn release<T, E>(end: &Lock<E>, queue: fn(&mut E) -> &mut Queue<T>) {
    loop {
        let Some((_, woken)) = queue(&mut end.lock()).end_first_wait() else {
            return;
        };
        woken.schedule();
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
        let mut back = self.back.0.lock.lock();
        let front = self.front.0.lock.lock();
        f.debug_struct("Channel")
            .field("queued", &self.len(&mut back))
            .field("senders_waiting", &front.senders.len())
            .field("receivers_waiting", &back.receivers.len())
            .finish_non_exhaustive()
    }
}
