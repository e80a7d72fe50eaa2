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

/// What came of an attempt to send.
pub(super) enum Offer<'a, T, const N: usize> {
    /// The receiver that it was for, if one waited.
    Taken(Option<Woken>),
    /// Nobody waits to receive, nor begins to before the lock is given back.
    Full(T, Guard<'a, Sending<T, N>>),
    /// It takes a block to queue it, which the stock does not have: the caller is to try again with one.
    OutOfStock(T),
    Refused(T),
}

/// What came of an attempt to receive.
pub(super) enum Taken<'a, T, const N: usize> {
    /// And the sender that was relieved, if one waited.
    Value(T, Option<Woken>),
    /// Nobody waits to send, nor begins to before the lock is given back.
    Nothing(Guard<'a, Sending<T, N>>),
    /// As of an offer.
    OutOfStock,
    /// Nor will there be any: the queue is lost.
    Lost,
}

/// Whether a sender has to wait.
pub(super) enum Room<'a, T, const N: usize> {
    /// There was some again: the value is queued.
    Some,
    None(T, Guard<'a, Receiving<T, N>>),
    /// As of an offer.
    OutOfStock(T),
    /// There never will be any: the queue is lost.
    Lost(T),
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

    /// Takes `value`, if somebody waits for it or there is room.
    #[inline]
    pub(super) fn offer(&self, value: T, stock: &mut Stock<T, N>) -> Offer<'_, T, N> {
        let Some(mut back) = self.back().lock() else {
            return Offer::Refused(value);
        };
        if back.without_receivers {
            return Offer::Refused(value);
        }
        if back.receivers.len() > 0
            && let Some((receiver, woken)) = back.receivers.end_first_wait()
        {
            receiver.set(Some(value));
            return Offer::Taken(Some(woken));
        }
        if !self.has_room(&mut back) {
            return Offer::Full(value, back);
        }
        if let Err(OutOfStock) = self.prepare(&mut back, stock) {
            return Offer::OutOfStock(value);
        }
        self.push(&mut back, value);
        Offer::Taken(None)
    }

    /// Takes `value`, for which there was no room, if there is now; or has it stay so until the
    /// caller is queued.
    pub(super) fn offer_again<'a>(
        &'a self,
        value: T,
        mut back: Guard<'a, Sending<T, N>>,
        stock: &mut Stock<T, N>,
    ) -> Room<'a, T, N> {
        let Some(front) = self.front().lock() else {
            return Room::Lost(value);
        };
        if !self.has_room(&mut back) {
            return Room::None(value, front);
        }
        if let Err(OutOfStock) = self.prepare(&mut back, stock) {
            return Room::OutOfStock(value);
        }
        self.push(&mut back, value);
        Room::Some
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
