//! What the senders and the receivers of a channel share: its two ends, each under a lock of its own.
//!
//! A sender locks the back, and finds there whether a receiver waits for a value. A receiver locks the
//! front, and finds there whether a sender waits for room. A thread that needs both locks takes the
//! back first.
//!
//! ```text
//!   holding      the back                          the front
//!   may          push                              pop
//!                queue a receiver, wake one        queue a sender, wake one
//! ```
//!
//! *Receivers wait only while the queue is empty.* A receiver about to wait holds the back, and reads
//! that as many values have been popped as were pushed. No more can have been popped, so the queue is
//! empty. It stays empty, since only the holder of the back pushes, until the receiver is in the queue
//! of waiters, where the next sender finds it.
//!
//! *Senders wait only while the queue is full.* A sender about to wait holds both locks, and sees that
//! the queue is full. Then it may unlock the back: the queue stays full, since only the holder of the
//! front pops, until the sender is in the queue of waiters, where the next receiver finds it. While a
//! sender waits, receivers pop under both locks, and push the first waiting sender's value into the room
//! that this makes. So no other sender finds that room first.
//!
//! *A sender and a receiver never wait for each other.* The conditions above exclude each other, except
//! for a capacity of zero, where the queue is both empty and full. There, a receiver takes both locks
//! and looks for a waiting sender. Take a sender that is about to wait, and holds the front: the
//! receiver gets that lock only after the sender is queued. A sender that comes later gets the back only
//! after the receiver is queued.

use std::cell::Cell;
use std::mem::{self, MaybeUninit};
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::chain::{self, NoSpareBlock, Popped, Pushed, SpareBlocks};
use super::lock::{Guard, Lock};
use super::waiting::WaitQueue;
use crate::task::{Waiting, Woken};

/// The queue, in blocks of up to `N` values, and the waiters.
///
/// Senders write the first part, receivers the last one.
#[repr(C)]
pub(super) struct State<T, const N: usize> {
    back: Back<T, N>,
    /// Keeps the two ends in different cache lines, and not in two lines that processors fetch as a
    /// pair. An alignment to 128 bytes would do so too, but would make a channel three times as
    /// expensive to allocate.
    _gap: [MaybeUninit<u8>; 128],
    front: Front<T, N>,
}

/// The end that values are sent to.
struct Back<T, const N: usize> {
    pushed: Pushed<T, N>,
    lock: Lock<Sending<T, N>>,
}

/// The data under the lock of the back.
pub(super) struct Sending<T, const N: usize> {
    /// How many values may be queued.
    pub(super) capacity: usize,
    queue: chain::Tail<T, N>,
    /// The waiting receivers.
    pub(super) receivers: WaitQueue<T>,
    /// The last sender has gone, or the channel was closed, so no more values come.
    pub(super) without_senders: bool,
    /// The last receiver has gone, or the channel was closed, so no more values are taken.
    pub(super) without_receivers: bool,
}

/// The end that values are received from.
struct Front<T, const N: usize> {
    popped: Popped,
    lock: Lock<Receiving<T, N>>,
}

/// The data under the lock of the front.
pub(super) struct Receiving<T, const N: usize> {
    queue: chain::Head<T, N>,
    /// The waiting senders, each with its value.
    pub(super) senders: WaitQueue<T>,
}

// As std's mutex. User code never unwinds while a lock is held, so no broken invariant can be seen.
impl<T, const N: usize> UnwindSafe for State<T, N> {}
impl<T, const N: usize> RefUnwindSafe for State<T, N> {}

/// The result of [`State::push_at_once`].
pub(super) enum AtOnce<'a, T, const N: usize> {
    Pushed,
    /// The value takes more than a push. Continue with [`State::offer`].
    Not(T, Guard<'a, Sending<T, N>>),
    /// The lock of the back is lost, so nothing can be sent.
    Lost(T),
}

/// The result of [`State::offer`]. Except for `Taken`, the value is left where it was.
pub(super) enum Offer<'a, T, const N: usize> {
    /// The value was sent. If a receiver waited, it went to that receiver, which the caller is to
    /// schedule.
    Taken(Option<Woken>),
    /// There seems to be no room. No receiver waits, and none begins to wait while the lock is held. To
    /// wait, continue with [`State::confirm_full`].
    Full(Guard<'a, Sending<T, N>>),
    /// There is room, but the last block is full. Continue with [`State::push_to_next_block`].
    BlockFull(Guard<'a, Sending<T, N>>),
    /// The value cannot be sent: there are no receivers, or a lock is lost.
    Refused,
}

/// Why `expect` finds a value that is being sent.
pub(super) const UNSENT: &str = "a value is here until it has been sent";

/// The result of [`State::take`].
pub(super) enum Take<'a, T, const N: usize> {
    /// The first value. If a sender waited, its value was moved into the queue or is this one, and the
    /// caller is to schedule the sender.
    Value(T, Option<Woken>),
    /// There is no value. No sender waits, and none begins to wait while the lock is held.
    Nothing(Guard<'a, Sending<T, N>>),
    /// Moving the first waiting sender's value into the queue takes a new block, and the spare blocks
    /// have none. Nothing was changed; the caller is to try again with a block.
    NoSpareBlock,
    /// A lock is lost, so nothing can be received.
    Lost,
}

impl<T, const N: usize> State<T, N> {
    /// For how many values a channel without bound keeps room. A bounded channel keeps all its room.
    const KEPT: usize = 1_024;

    pub(super) fn new(capacity: usize) -> State<T, N> {
        let is_unbounded = capacity == usize::MAX;
        let kept = if is_unbounded { Self::KEPT } else { usize::MAX };
        State {
            back: Back {
                pushed: Pushed::new(),
                lock: Lock::new(Sending {
                    capacity,
                    queue: chain::Tail::new(kept),
                    receivers: WaitQueue::new(),
                    without_senders: false,
                    without_receivers: false,
                }),
            },
            _gap: [MaybeUninit::uninit(); 128],
            front: Front {
                popped: Popped::new(),
                lock: Lock::new(Receiving {
                    queue: chain::Head::new(),
                    senders: WaitQueue::new(),
                }),
            },
        }
    }

    /// The lock of the back.
    #[inline]
    pub(super) fn back(&self) -> &Lock<Sending<T, N>> {
        &self.back.lock
    }

    /// The lock of the front. A thread that needs both takes the back first.
    #[inline]
    pub(super) fn front(&self) -> &Lock<Receiving<T, N>> {
        &self.front.lock
    }

    /// Queues `value`, if no receiver waits for it and the last block has room.
    ///
    /// Most sends end here, so this is inlined into them. Everything else is left to
    /// [`offer`](State::offer).
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

    /// Sends the value, if a receiver waits for it or there is room. Takes it out of `value` then.
    #[inline(always)]
    pub(super) fn offer<'a>(
        &'a self,
        value: &Cell<Option<T>>,
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

    /// As [`offer`](State::offer), for a caller that has unlocked the back in the meantime.
    #[inline(never)]
    pub(super) fn offer_again(&self, value: &Cell<Option<T>>) -> Offer<'_, T, N> {
        match self.back().lock() {
            Some(back) => self.offer(value, back),
            None => Offer::Refused,
        }
    }

    /// Queues the value, unless that takes another block. There must be room for it.
    #[inline]
    fn queue<'a>(
        &self,
        value: &Cell<Option<T>>,
        mut back: Guard<'a, Sending<T, N>>,
    ) -> Offer<'a, T, N> {
        if back.queue.is_block_full(&self.back.pushed) {
            return Offer::BlockFull(back);
        }
        self.push(&mut back, value.take().expect(UNSENT));
        Offer::Taken(None)
    }

    /// Queues the value in the next block, after the last one has been found full. There must be room
    /// for the value. Fails if that takes a new block and `spare` has none.
    pub(super) fn push_to_next_block(
        &self,
        value: &Cell<Option<T>>,
        back: &mut Sending<T, N>,
        spare: &mut SpareBlocks<T, N>,
    ) -> Result<(), NoSpareBlock> {
        self.prepare(back, spare)?;
        self.push(back, value.take().expect(UNSENT));
        Ok(())
    }

    /// Takes the front as well, and looks once more whether the queue is full. If so, unlocks the back
    /// and returns the front as the error: the queue stays full while the caller holds that.
    #[inline]
    pub(super) fn confirm_full<'a>(
        &'a self,
        value: &Cell<Option<T>>,
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

    /// Makes sure that there is nothing to receive. Returns the lock of the back: nothing comes while the
    /// caller holds that, which may begin to wait there. `None` if there is something, or nothing can come any
    /// more.
    ///
    /// Ignores a sender of the wait `own`.
    pub(super) fn hold_empty(&self, own: Waiting) -> Option<Guard<'_, Sending<T, N>>> {
        let mut back = self.back().lock()?;
        if back.without_senders || self.len(&mut back) > 0 {
            return None;
        }
        // As in `take`, senders wait although the queue is empty only for a capacity of zero.
        if back.capacity == 0 && self.front().lock()?.senders.has_other_than(own) {
            return None;
        }
        Some(back)
    }

    /// Makes sure that nothing can be sent. Returns the lock of the front: no room is made while the caller
    /// holds that, which may begin to wait there. `None` if something can be sent, or nothing can be any more.
    ///
    /// Ignores a receiver of the wait `own`.
    pub(super) fn hold_full(&self, own: Waiting) -> Option<Guard<'_, Receiving<T, N>>> {
        let mut back = self.back().lock()?;
        if back.without_receivers || back.receivers.has_other_than(own) {
            return None;
        }
        let front = self.front().lock()?;
        // With the lock of the front, the length is exact.
        (!self.has_room(&mut back)).then_some(front)
    }

    /// Takes the next value without the lock of the back, if there seems to be one and no sender waits
    /// for the room.
    #[inline]
    pub(super) fn take_queued(&self) -> Option<T> {
        if self.front.popped.seems_empty(&self.back.pushed) {
            return None;
        }
        let mut front = self.front().lock()?;
        match front.senders.len() {
            0 => self.pop(&mut front),
            _ => None,
        }
    }

    /// Takes the next value, or makes sure that there is none.
    ///
    /// Always inlined, because a `recv` that waits goes through it, and each call on the way to a switch
    /// costs a mispredicted return.
    #[inline(always)]
    pub(super) fn take(&self, spare: &mut SpareBlocks<T, N>) -> Take<'_, T, N> {
        let Some(mut back) = self.back().lock() else {
            return Take::Lost;
        };
        if back.capacity > 0 && self.len(&mut back) == 0 {
            back.queue.shrink(spare);
            return Take::Nothing(back);
        }
        let Some(front) = self.front().lock() else {
            return Take::Lost;
        };
        // The value of a waiting sender is pushed below, which must not fail then.
        if back.capacity > 0
            && front.senders.len() > 0
            && let Err(NoSpareBlock) = self.prepare(&mut back, spare)
        {
            return Take::NoSpareBlock;
        }
        match self.take_and_refill(&mut back, front) {
            Some((value, woken)) => Take::Value(value, woken),
            None => Take::Nothing(back),
        }
    }

    /// Takes the first value of the queue, and moves the first waiting sender's value to its end. With
    /// an empty queue, takes the first waiting sender's value.
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

    /// Notes that no more values come and none are taken. The caller wakes all waiters.
    pub(super) fn close(&self) {
        if let Some(mut back) = self.back().lock() {
            back.without_senders = true;
            back.without_receivers = true;
        }
    }

    /// Notes that no more values come. The caller wakes the waiting receivers.
    pub(super) fn close_sending(&self) {
        if let Some(mut back) = self.back().lock() {
            back.without_senders = true;
        }
    }

    /// Notes that no more values are taken. The caller wakes the waiting senders.
    pub(super) fn close_receiving(&self) {
        if let Some(mut back) = self.back().lock() {
            back.without_receivers = true;
        }
    }

    /// Drops all queued values, once nothing sends or receives any more.
    ///
    /// Each value is dropped while no lock is held, since its destructor may use this channel. If a lock
    /// is lost, the values are leaked.
    pub(super) fn clear(&self) {
        let rest = ClearOnUnwind(self);
        while self.has_values()
            && let Some(mut front) = self.front().lock()
        {
            let first = self.pop(&mut front);
            drop(front);
            drop(first);
        }
        mem::forget(rest);
        let mut spare = SpareBlocks::new();
        if let Some(mut back) = self.back().lock() {
            back.queue.shrink_to_nothing(&self.front.popped, &mut spare);
        }
    }

    /// Whether values are queued. Exact only once nothing sends or receives any more.
    fn has_values(&self) -> bool {
        !self.front.popped.is_empty(&self.back.pushed)
    }

    /// See [`chain::Tail::prepare`].
    #[inline]
    fn prepare(
        &self,
        back: &mut Sending<T, N>,
        spare: &mut SpareBlocks<T, N>,
    ) -> Result<(), NoSpareBlock> {
        back.queue
            .prepare(&self.back.pushed, &self.front.popped, spare)
    }

    /// See [`chain::Tail::push`].
    #[inline]
    fn push(&self, back: &mut Sending<T, N>, value: T) {
        back.queue.push(value, &self.back.pushed);
    }

    /// Whether fewer values are queued than may be.
    #[inline]
    fn has_room(&self, back: &mut Sending<T, N>) -> bool {
        back.queue
            .has_room(back.capacity, &self.back.pushed, &self.front.popped)
    }

    /// How many values are queued. Too many if a receiver is popping at this moment, which it cannot if
    /// the front is locked as well.
    pub(super) fn len(&self, back: &mut Sending<T, N>) -> usize {
        back.queue.len(&self.back.pushed, &self.front.popped)
    }

    /// See [`chain::Head::pop`].
    #[inline]
    fn pop(&self, front: &mut Receiving<T, N>) -> Option<T> {
        front.queue.pop(&self.back.pushed, &self.front.popped)
    }
}

/// Drops the remaining values when the destructor of one has panicked.
struct ClearOnUnwind<'a, T, const N: usize>(&'a State<T, N>);

impl<T, const N: usize> Drop for ClearOnUnwind<'_, T, N> {
    fn drop(&mut self) {
        if self.0.has_values() {
            self.0.clear();
        }
    }
}

impl<T, const N: usize> Drop for State<T, N> {
    fn drop(&mut self) {
        if self.has_values() {
            self.clear();
        }
        // Where a lock is lost the values are still there, and the blocks are leaked with them.
        if self.has_values() {
            return;
        }
        if let Some(back) = self.back.lock.get_mut() {
            // SAFETY: the state is borrowed exclusively and goes away, so neither end is used any more,
            // and the queue is empty.
            unsafe { back.queue.free() };
        }
    }
}
