//! The readiness of one direction of an open file description, in one word.
//!
//! Events are edge-triggered: the kernel reports each of them once. So readiness is remembered until an
//! operation finds that it is gone. The word holds these bits, and above them a *tick* that counts
//! events:
//!
//! - READY: the next operation may succeed.
//! - WAITERS: there may be waiters in the queue.
//! - CLOSED: a hang-up was reported. Never cleared.
//! - URGENT: out-of-band data was reported, or others may take it unseen. Never cleared.
//!
//! ```text
//! operation: s = word; if READY (a write tries in any case, once):
//!            try; would block -> clear READY if the tick is still that of s, otherwise try again
//! waiter:    lock queue; if READY: do not wait; set WAITERS (one swap with the check of READY);
//!            queue; unlock
//! event:     set READY, tick += 1 (one swap); if WAITERS was set: lock queue, wake the first
//! deadline:  unqueue; try once more, whatever the word says: would block -> timed out
//! leaver:    after an operation: if READY and WAITERS: lock queue, wake the first
//! ```
//!
//! WAITERS stays set when the queue becomes empty, since mostly the same reader soon comes back. A
//! waker that finds the queue empty clears the bit, under the lock of the queue.
//!
//! *No event is lost between a failed attempt and the clearing of READY.* The tick has changed, so
//! READY is not cleared, and the operation is tried again.
//!
//! *No event is lost between the clearing and the queueing.* The waiter's swap (or its load, if WAITERS
//! is set already) and the event's swap act on the same word. If the event's is first, the waiter sees
//! READY. Otherwise the event sees WAITERS, and takes the lock of the queue after the waiter has queued
//! under it.
//!
//! *No readiness is lost for the second waiter.* An event wakes one waiter only. Whoever ends an
//! operation and finds READY still set wakes the next.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU32, Ordering};

const READY: u32 = 1; // an operation may succeed
const WAITERS: u32 = 2; // there may be waiters in the queue
pub(super) const CLOSED: u32 = 4; // a hang-up was reported
pub(super) const URGENT: u32 = 8; // out-of-band data was reported, or may be taken unseen
const TICK: u32 = 16; // one event

#[derive(Debug)]
pub(super) struct ReadyWord(AtomicU32);

/// The word as it was before an operation.
#[derive(Clone, Copy)]
pub(super) struct Seen(u32);

impl Seen {
    pub(super) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }
}

impl ReadyWord {
    /// Starts as ready: the first operation is tried.
    pub(super) fn new() -> ReadyWord {
        ReadyWord(AtomicU32::new(READY))
    }

    pub(super) fn observe(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    /// Notes an event: sets READY and `bits`, CLOSED or URGENT. Returns whether there may be waiters.
    /// One of them must then be woken.
    #[must_use]
    pub(super) fn set(&self, bits: u32) -> bool {
        let set = |word: u32| Some(word.wrapping_add(TICK) | READY | bits);
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        before.unwrap_or_else(|word| word) & WAITERS != 0
    }

    /// Sets URGENT, because others may take urgent data before an event reports it.
    pub(super) fn expect_urgent(&self) {
        if self.0.load(Ordering::Relaxed) & URGENT == 0 {
            self.0.fetch_or(URGENT, Ordering::Relaxed);
        }
    }

    /// Whether a hang-up was reported.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Clears READY, unless an event came since `seen`. Called after an operation would have blocked.
    pub(super) fn clear(&self, seen: Seen) {
        self.clear_unless(seen, 0);
    }

    /// Clears READY after a read that returned less than was asked for: the stream is drained. There
    /// are three exceptions. An event came since `seen`. Or the stream has ended, which no further
    /// event reports. Or there was urgent data: it splits the stream, and more data may follow it.
    pub(super) fn clear_drained(&self, seen: Seen) {
        self.clear_unless(seen, CLOSED | URGENT);
    }

    fn clear_unless(&self, seen: Seen, sticky: u32) {
        let cleared = |word: u32| {
            let unchanged = word / TICK == seen.0 / TICK && word & sticky == 0;
            unchanged.then_some(word & !READY)
        };
        // If the tick has changed, READY stays, and the operation will be tried once more.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, cleared);
    }

    /// Sets WAITERS, unless READY is set. Returns whether READY is set. Called by a waiter under the
    /// lock of the queue, before it queues.
    #[must_use]
    pub(super) fn is_ready_or_awaited(&self) -> bool {
        // Mostly WAITERS is set already. A load is cheaper than a swap.
        let word = self.0.load(Ordering::Acquire);
        if word & (READY | WAITERS) == WAITERS {
            return false;
        }
        let wait = |word: u32| (word & READY == 0).then_some(word | WAITERS);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, wait)
            .is_err()
    }

    /// Clears WAITERS. Called under the lock of the queue, when the queue is empty.
    pub(super) fn no_waiters(&self) {
        self.0.fetch_and(!WAITERS, Ordering::AcqRel);
    }

    /// Whether a waiter is to be woken because there is readiness left for it.
    #[must_use]
    pub(super) fn is_left_for_a_waiter(&self) -> bool {
        self.0.load(Ordering::Acquire) & (READY | WAITERS) == READY | WAITERS
    }
}
