//! What the senders and the receivers of a channel share: two ends, each under a lock.
//!
//! Who sends holds the back, and finds there whether somebody waits for a value; who receives holds
//! the front, and finds there whether somebody waits for room. Who needs both takes the back first.
//!
//! ```text
//!   holding      the back                          the front
//!   may          push                              pop
//!                queue a receiver, wake one        queue a sender, wake one
//! ```
//!
//! *Receivers wait only where the queue is empty.* Who holds the back, and sees as many values popped
//! as were pushed, knows that the queue is empty: no more than these can have been popped. It stays
//! so, as nobody else can push, until the receiver is queued where the next sender will find it.
//!
//! *Senders wait only where the queue is full.* Who holds both, and sees it full, may give back the
//! back: it stays full, as nobody else can pop, until the sender is queued where the next receiver
//! will find it. While somebody waits there, values are popped under both locks, and the queue is
//! refilled: nobody finds the room before who waits for it.
//!
//! *Nobody waits for who waits for it.* The two exclude each other but for a capacity of zero, where
//! the queue is both. There, a receiver asks under both locks whether a sender waits. A sender that
//! is not queued yet, but holds the front to be, is waited for; and one that comes later finds the
//! receiver, which keeps the back until it is queued.

use std::mem::{self, MaybeUninit};
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::chain::{self, OutOfStock, Popped, Pushed, Stock};
use super::lock::{Guard, Lock};
use super::waiting::Queue;
use crate::task::Woken;

/// The queue, in blocks of up to `N` values, and those who wait.
#[repr(C)]
pub(super) struct State<T, const N: usize> {
    back: Back<T, N>,
    /// Has the ends lie in different cache lines, and not in two that processors fetch together. To
    /// be aligned to that, a channel would cost thrice as much to allocate.
    _gap: [MaybeUninit<u8>; 128],
    front: Front<T, N>,
}

struct Back<T, const N: usize> {
    pushed: Pushed<T, N>,
    lock: Lock<Sending<T, N>>,
}

/// What lies under the lock of the back.
pub(super) struct Sending<T, const N: usize> {
    /// The most values in the queue.
    capacity: usize,
    queue: chain::Back<T, N>,
    /// With room for a value.
    pub(super) receivers: Queue<T>,
    /// No more values come.
    pub(super) without_senders: bool,
    /// No more values are taken.
    without_receivers: bool,
}

struct Front<T, const N: usize> {
    popped: Popped,
    lock: Lock<Receiving<T, N>>,
}

/// What lies under the lock of the front.
pub(super) struct Receiving<T, const N: usize> {
    queue: chain::Front<T, N>,
    /// With the values that have no room.
    pub(super) senders: Queue<T>,
}

// As a mutex, though this cannot be poisoned: user code is never unwound through it.
impl<T, const N: usize> UnwindSafe for State<T, N> {}
impl<T, const N: usize> RefUnwindSafe for State<T, N> {}

/// What came of an attempt to send without more ado.
pub(super) enum AtOnce<'a, T, const N: usize> {
    Pushed,
    /// It takes more: see [`State::offer`].
    Not(T, Guard<'a, Sending<T, N>>),
    /// It cannot be sent: the queue is lost.
    Lost(T),
}

/// What came of an attempt to send.
pub(super) enum Offer<'a, T, const N: usize> {
    /// The value has gone: to this receiver, if one waited.
    Taken(Option<Woken>),
    /// Nobody waits to receive, nor begins to before the lock is given back. See
    /// [`State::confirm_full`].
    Full(Guard<'a, Sending<T, N>>),
    /// There is room, but the last block is full: see [`State::push_to_next_block`].
    BlockFull(Guard<'a, Sending<T, N>>),
    /// The value cannot be sent: there are no receivers, or the queue is lost.
    Refused,
}

/// Why a value that is offered is there to be sent.
pub(super) const UNSENT: &str = "a value is here until it has been sent";

/// What came of an attempt to receive.
pub(super) enum Taken<'a, T, const N: usize> {
    /// And the sender that was relieved, if one waited.
    Value(T, Option<Woken>),
    /// Nobody waits to send, nor begins to before the lock is given back.
    Nothing(Guard<'a, Sending<T, N>>),
    /// To relieve the first sender takes a block, which the stock does not have: the caller is to try
    /// again with one.
    OutOfStock,
    /// Nor will there be any: the queue is lost.
    Lost,
}

impl<T, const N: usize> State<T, N> {
    /// For so many values room is kept when they have gone, if there is no bound. If there is, for all.
    const KEPT: usize = 1_024;

    pub(super) fn new(capacity: usize) -> State<T, N> {
        let is_unbounded = capacity == usize::MAX;
        let kept = if is_unbounded { Self::KEPT } else { usize::MAX };
        State {
            back: Back {
                pushed: Pushed::new(),
                lock: Lock::new(Sending {
                    capacity,
                    queue: chain::Back::new(kept),
                    receivers: Queue::new(),
                    without_senders: false,
                    without_receivers: false,
                }),
            },
            _gap: [MaybeUninit::uninit(); 128],
            front: Front {
                popped: Popped::new(),
                lock: Lock::new(Receiving {
                    queue: chain::Front::new(),
                    senders: Queue::new(),
                }),
            },
        }
    }

    #[inline]
    pub(super) fn back(&self) -> &Lock<Sending<T, N>> {
        &self.back.lock
    }

    /// To be held after the back, if both are.
    #[inline]
    pub(super) fn front(&self) -> &Lock<Receiving<T, N>> {
        &self.front.lock
    }

    /// Queues `value`, if nobody waits for it and the last block has room.
    ///
    /// The most frequent end of a `send`, to be inlined into it.
    #[inline(always)]
    pub(super) fn push_at_once(&self, value: T) -> AtOnce<'_, T, N> {
        let Some(mut back) = self.back().lock() else {
            return AtOnce::Lost(value);
        };
        if back.without_receivers
            || back.receivers.len() > 0
            || !self.has_room(&mut back)
            || back.queue.is_block_full(&self.back.pushed)
        {
            return AtOnce::Not(value, back);
        }
        self.push(&mut back, value);
        AtOnce::Pushed
    }

    /// Takes the value out, if somebody waits for it or there is room.
    #[inline]
    pub(super) fn offer<'a>(
        &'a self,
        value: &mut Option<T>,
        mut back: Guard<'a, Sending<T, N>>,
    ) -> Offer<'a, T, N> {
        if back.without_receivers {
            return Offer::Refused;
        }
        if back.receivers.len() > 0
            && let Some((receiver, woken)) = back.receivers.end_first_wait()
        {
            receiver.set(value.take());
            return Offer::Taken(Some(woken));
        }
        if !self.has_room(&mut back) {
            return Offer::Full(back);
        }
        self.queue(value, back)
    }

    /// As `offer`, for a caller that has given the lock back meanwhile.
    #[inline(never)]
    pub(super) fn offer_again(&self, value: &mut Option<T>) -> Offer<'_, T, N> {
        match self.back().lock() {
            Some(back) => self.offer(value, back),
            None => Offer::Refused,
        }
    }

    /// Queues the value, for which there is room, unless that takes another block.
    #[inline]
    fn queue<'a>(
        &self,
        value: &mut Option<T>,
        mut back: Guard<'a, Sending<T, N>>,
    ) -> Offer<'a, T, N> {
        if back.queue.is_block_full(&self.back.pushed) {
            return Offer::BlockFull(back);
        }
        self.push(&mut back, value.take().expect(UNSENT));
        Offer::Taken(None)
    }

    /// Queues the value, for which there is room, where the last block is full. Fails if that takes a
    /// block which the stock does not have.
    pub(super) fn push_to_next_block(
        &self,
        value: &mut Option<T>,
        back: &mut Sending<T, N>,
        stock: &mut Stock<T, N>,
    ) -> Result<(), OutOfStock> {
        self.prepare(back, stock)?;
        self.push(back, value.take().expect(UNSENT));
        Ok(())
    }

    /// Offers the value, for which there was no room, once more. Fails if there still is none; then
    /// there will be none before the lock, which the caller gets, is given back.
    #[inline]
    pub(super) fn confirm_full<'a>(
        &'a self,
        value: &mut Option<T>,
        mut back: Guard<'a, Sending<T, N>>,
    ) -> Result<Offer<'a, T, N>, Guard<'a, Receiving<T, N>>> {
        let Some(front) = self.front().lock() else {
            return Ok(Offer::Refused);
        };
        if !self.has_room(&mut back) {
            return Err(front);
        }
        drop(front);
        Ok(self.queue(value, back))
    }

    /// Takes the next value, if it seems that there is one, and nobody has to be relieved.
    #[inline]
    pub(super) fn take_queued(&self) -> Option<T> {
        if self.front.popped.seems_all(&self.back.pushed) {
            return None;
        }
        let mut front = self.front().lock()?;
        match front.senders.len() {
            0 => self.pop(&mut front),
            _ => None,
        }
    }

    /// Takes the next value; or makes sure that there is none.
    #[inline]
    pub(super) fn take(&self, stock: &mut Stock<T, N>) -> Taken<'_, T, N> {
        let Some(mut back) = self.back().lock() else {
            return Taken::Lost;
        };
        if back.capacity > 0 && self.len(&mut back) == 0 {
            back.queue.shrink(stock);
            return Taken::Nothing(back);
        }
        let Some(front) = self.front().lock() else {
            return Taken::Lost;
        };
        // Then one of them may be relieved, whose value is queued.
        if back.capacity > 0
            && front.senders.len() > 0
            && let Err(OutOfStock) = self.prepare(&mut back, stock)
        {
            return Taken::OutOfStock;
        }
        match self.take_and_refill(&mut back, front) {
            Some((value, woken)) => Taken::Value(value, woken),
            None => Taken::Nothing(back),
        }
    }

    fn take_and_refill(
        &self,
        back: &mut Sending<T, N>,
        mut front: Guard<'_, Receiving<T, N>>,
    ) -> Option<(T, Option<Woken>)> {
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

    /// No more values come. Those who wait to receive are left for the caller.
    pub(super) fn close_sending(&self) {
        if let Some(mut back) = self.back().lock() {
            back.without_senders = true;
        }
    }

    /// No more values are taken. Those who wait to send are left for the caller.
    pub(super) fn close_receiving(&self) {
        if let Some(mut back) = self.back().lock() {
            back.without_receivers = true;
        }
    }

    /// Drops what is queued, when nobody sends or receives any more; not under a lock, since
    /// destructors may come back to it. If the queue is lost, so is what it has.
    pub(super) fn clear(&self) {
        let rest = Rest(self);
        while self.has_some()
            && let Some(mut front) = self.front().lock()
        {
            let first = self.pop(&mut front);
            drop(front);
            drop(first);
        }
        mem::forget(rest);
        let mut stock = Stock::new();
        if let Some(mut back) = self.back().lock() {
            back.queue.shrink_to_nothing(&self.front.popped, &mut stock);
        }
    }

    /// Whether values are queued. Asked when nobody sends or receives any more.
    fn has_some(&self) -> bool {
        !self.front.popped.is_all(&self.back.pushed)
    }

    /// To be called before `push`.
    #[inline]
    fn prepare(&self, back: &mut Sending<T, N>, stock: &mut Stock<T, N>) -> Result<(), OutOfStock> {
        back.queue
            .prepare(&self.back.pushed, &self.front.popped, stock)
    }

    #[inline]
    fn push(&self, back: &mut Sending<T, N>, value: T) {
        back.queue.push(value, &self.back.pushed);
    }

    #[inline]
    fn has_room(&self, back: &mut Sending<T, N>) -> bool {
        back.queue
            .has_room(back.capacity, &self.back.pushed, &self.front.popped)
    }

    /// The values queued, or, unless the front is held as well, more: somebody may be taking them.
    pub(super) fn len(&self, back: &mut Sending<T, N>) -> usize {
        back.queue.len(&self.back.pushed, &self.front.popped)
    }

    #[inline]
    fn pop(&self, front: &mut Receiving<T, N>) -> Option<T> {
        front.queue.pop(&self.back.pushed, &self.front.popped)
    }
}

/// Clears what is left where a destructor panics.
struct Rest<'a, T, const N: usize>(&'a State<T, N>);

impl<T, const N: usize> Drop for Rest<'_, T, N> {
    fn drop(&mut self) {
        if self.0.has_some() {
            self.0.clear();
        }
    }
}

impl<T, const N: usize> Drop for State<T, N> {
    fn drop(&mut self) {
        if self.has_some() {
            self.clear();
        }
        if self.has_some() {
            return;
        }
        if let Some(back) = self.back.lock.get_mut() {
            // SAFETY: nobody else has the state, and the queue is empty.
            unsafe { back.queue.free() };
        }
    }
}
