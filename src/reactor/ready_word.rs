//! The readiness of one direction of an open file description, in one word.
//!
//! Events are edge-triggered: each is told once, so none may be lost, and readiness must be
//! remembered until an operation finds it gone. The word holds the bits READY, WAITERS, CLOSED (a
//! hang-up was seen: sticky), URGENT (out-of-band data was seen, or may be taken
//! by others: sticky), and a tick that counts
//! events.
//!
//! ```text
//! operation: s = word; READY (or a write, which is tried once in any case):
//!            try; would block -> clear READY if the tick is still s's, else try again
//! waiter:    lock queue; if READY: go; set WAITERS (one swap with the look at READY); queue; unlock
//! event:     set READY, tick += 1 (one swap); if WAITERS was set: lock queue, wake the first
//! deadline:  unqueue; try once more, whatever the word says: would block -> timed out
//! leaver:    after an operation: if READY and WAITERS: lock queue, wake the first
//! ```
//!
//! WAITERS stays when the queue gets empty, because mostly the same reader comes back to it; who
//! then looks for the first in vain clears it, under the queue's lock.
//!
//! *No event is lost between a failed attempt and its clearing*: the tick has moved, so the
//! clearing fails and the operation is tried again. *None between the clearing and the queueing*:
//! the waiter's swap (or its look, if WAITERS is set already) and the event's swap are on the same
//! word; if the event's is first the waiter sees READY, otherwise the event sees WAITERS and waits
//! for the queue's lock, under which the waiter completes. *None for the second waiter*: an event wakes one, and whoever ends an
//! operation with READY still set wakes the next.

use crate::atomic::{AtomicU32, Ordering};

const READY: u32 = 1;
const WAITERS: u32 = 2;
pub(super) const CLOSED: u32 = 4;
pub(super) const URGENT: u32 = 8;
const TICK: u32 = 16;

#[derive(Debug)]
pub(super) struct ReadyWord(AtomicU32);

/// The readiness before an operation.
#[derive(Clone, Copy)]
pub(super) struct Seen(u32);

impl Seen {
    pub(super) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }
}

impl ReadyWord {
    /// Ready until an operation finds otherwise.
    pub(super) fn new() -> ReadyWord {
        ReadyWord(AtomicU32::new(READY))
    }

    pub(super) fn observe(&self) -> Seen {
        Seen(self.0.load(Ordering::Acquire))
    }

    /// An event: ready, with the sticky `bits`. Returns whether there are waiters to wake one of.
    #[must_use]
    pub(super) fn set(&self, bits: u32) -> bool {
        let set = |word: u32| Some(word.wrapping_add(TICK) | READY | bits);
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
        before.unwrap_or_else(|word| word) & WAITERS != 0
    }

    /// Others may take urgent data before an event has told of them.
    pub(super) fn expect_urgent(&self) {
        if self.0.load(Ordering::Relaxed) & URGENT == 0 {
            self.0.fetch_or(URGENT, Ordering::Relaxed);
        }
    }

    /// Whether an event has told of a hang-up.
    #[must_use]
    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// An operation would have blocked: not ready, unless an event came since `seen`.
    pub(super) fn clear(&self, seen: Seen) {
        self.clear_unless(seen, 0);
    }

    /// A read took less than it could have: there is no more, unless an event came since
    /// `seen`; or the stream has ended, which no further event would tell; or urgent data splits
    /// it, behind which there may be more.
    pub(super) fn clear_drained(&self, seen: Seen) {
        self.clear_unless(seen, CLOSED | URGENT);
    }

    fn clear_unless(&self, seen: Seen, sticky: u32) {
        let cleared = |word: u32| {
            let unchanged = word / TICK == seen.0 / TICK && word & sticky == 0;
            unchanged.then_some(word & !READY)
        };
        // A tick that moved is not a failure: the operation will be tried once more.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, cleared);
    }

    /// Announces a waiter, under the queue's lock, unless it is ready; returns whether it is.
    #[must_use]
    pub(super) fn is_ready_or_awaited(&self) -> bool {
        let word = self.0.load(Ordering::Acquire);
        if word & (READY | WAITERS) == WAITERS {
            return false;
        }
        let wait = |word: u32| (word & READY == 0).then_some(word | WAITERS);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, wait)
            .is_err()
    }

    /// The queue was found empty, says the holder of its lock.
    pub(super) fn no_waiters(&self) {
        self.0.fetch_and(!WAITERS, Ordering::AcqRel);
    }

    /// Whether readiness is left for a waiter that nobody has woken yet.
    #[must_use]
    pub(super) fn is_left_for_a_waiter(&self) -> bool {
        self.0.load(Ordering::Acquire) & (READY | WAITERS) == READY | WAITERS
    }
}
