//! One attempt to take a lock that is not free: what `mutex.rs` and `rwlock.rs` have in common.
//!
//! An unlocker *wakes* the first waiter, which then tries to take the lock. If that waiter comes too
//! late it waits again, at the front of the queue, and says so in the note of its wait. The next
//! unlocker that wakes it also *reserves* the lock for it. A reserved lock is held by nobody. The
//! others wait for it as if it were held, but not for long: the waiter with the reservation may be
//! unable to run, because another coroutine of its worker computes.
#![forbid(unsafe_code)]

use super::futex::{self, Deadline, Holder, Parked, WaitRequest};
use super::spin;

/// In the note of a waiter: the waiter was woken before, and came too late. The other bits of the note
/// are the lock's.
pub(super) const NOTE_RETRY: u32 = 1;

// What an unlocker tells a waiter that it wakes. Both may be set, or none.

/// Other waiters are queued.
pub(super) const TOLD_MORE: u32 = 1;
/// The lock is reserved for the waiter.
pub(super) const TOLD_RESERVED: u32 = 2;

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until the caller is woken, or its own deadline has passed.
    Unlimited,
    /// For a moment. The lock is reserved for another waiter; after that moment the reservation is
    /// void.
    Short,
    /// Not at all. The lock is reserved, and the caller may take it.
    Over,
}

/// What the caller has learnt since it first found the lock taken.
pub(super) struct LockAttempt {
    /// An unlocker has woken the caller at least once.
    was_woken: bool,
    /// What that unlocker told the caller, the last time.
    told: u32,
    /// The last wait was for a reserved lock, and has timed out.
    timed_out: bool,
    /// How often the caller has looked at the lock again without waiting.
    spins: u32,
}

impl LockAttempt {
    pub(super) fn new() -> LockAttempt {
        LockAttempt {
            was_woken: false,
            told: 0,
            timed_out: false,
            spins: 0,
        }
    }

    /// Whether an unlocker has woken the caller. Then the caller may go before the queued waiters.
    pub(super) fn was_woken(&self) -> bool {
        self.was_woken
    }

    /// Whether there are queued waiters that the word of the lock may not show. The unlocker cleared
    /// WAITERS when it woke the caller; the caller must set it again when it takes the lock.
    pub(super) fn must_mark_waiters(&self) -> bool {
        self.told & TOLD_MORE != 0
    }

    /// How long to wait for a lock that `holder` has, or, if it `is_reserved`, that is reserved for
    /// `holder`.
    pub(super) fn patience(&self, is_reserved: bool, holder: Option<Holder>) -> Patience {
        if !is_reserved {
            Patience::Unlimited
        } else if self.told & TOLD_RESERVED != 0 || self.timed_out {
            Patience::Over
        } else {
            futex::patience(holder, self.was_woken)
        }
    }

    /// Lets a moment pass and returns true, if `holder` may be about to unlock. Only for a lock that is
    /// held and that nobody waits for.
    pub(super) fn spin(&mut self, holder: Option<Holder>) -> bool {
        // A caller that was woken has come too late once: it queues rather than compete again.
        !self.was_woken && spin::once(&mut self.spins, holder)
    }

    /// How to wait for the lock, with the `patience` that this attempt has, until `deadline` at the latest
    /// or, for a reserved lock, a moment later. `note` is the lock's part of the note.
    pub(super) fn wait_request<'a>(
        &self,
        note: u32,
        holder: Option<Holder>,
        patience: Patience,
        deadline: Option<&'a Deadline>,
        short: &'a mut Option<Deadline>,
    ) -> WaitRequest<'a> {
        WaitRequest {
            note: if self.was_woken {
                note | NOTE_RETRY
            } else {
                note
            },
            in_front: self.was_woken,
            holder,
            deadline: match patience {
                Patience::Short => {
                    *short = futex::short_deadline();
                    short.as_ref()
                }
                Patience::Unlimited | Patience::Over => deadline,
            },
        }
    }

    /// Remembers how a wait for the lock came out.
    pub(super) fn record(&mut self, parked: Parked) {
        self.timed_out = parked == Parked::TimedOut;
        if let Parked::Woken(token) = parked {
            self.was_woken = true;
            self.told = token;
        }
    }
}
