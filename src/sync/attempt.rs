//! One contended attempt to take a lock: what `mutex.rs` and `rwlock.rs` have in common.
//!
//! A waiter is *called* when an unlocker wakes it: it may then try to take the lock. If it comes too
//! late it waits again, at the front of the queue, and the next unlock *reserves* the lock for it. A
//! reserved lock belongs to nobody, and everybody else waits for it as if it were held, but only for
//! a moment: the waiter with the reservation may be unable to run, because its worker computes.

use super::futex::{self, Holder, Parked, Request};
use super::spin;

/// In the note of a waiter: it has been called before. The rest of the note is the lock's.
pub(super) const CALLED: u32 = 1;

// What an unlocker tells the waiters that it calls:
/// Others are queued behind them.
pub(super) const MORE: u32 = 1;
/// The lock is reserved for them.
pub(super) const CLAIM: u32 = 2;

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Until the caller is called.
    Unlimited,
    /// For a moment: then the reservation is void.
    Short,
    /// Not at all: the lock is reserved, and the caller takes it.
    Over,
}

/// What the caller has learnt since it first found the lock taken.
pub(super) struct Attempt {
    called: bool,
    /// What it was told when it was called last.
    told: u32,
    /// Its last wait, for a reserved lock, has timed out.
    timed_out: bool,
    /// How often it has looked at the lock without waiting.
    looks: u32,
}

impl Attempt {
    pub(super) fn new() -> Attempt {
        Attempt {
            called: false,
            told: 0,
            timed_out: false,
            looks: 0,
        }
    }

    /// Whether the caller has been called. Then it may go before those that are queued.
    pub(super) fn was_called(&self) -> bool {
        self.called
    }

    /// Whether others are queued behind the caller, of which the word of the lock may not tell.
    pub(super) fn knows_of_more(&self) -> bool {
        self.told & MORE != 0
    }

    /// How long to wait for a lock that is not free: if it `is_reserved`, for `holder`.
    pub(super) fn patience(&self, is_reserved: bool, holder: Option<Holder>) -> Patience {
        if !is_reserved {
            Patience::Unlimited
        } else if self.told & CLAIM != 0 || self.timed_out {
            Patience::Over
        } else {
            futex::patience(holder, self.called)
        }
    }

    /// Lets a moment pass and returns true, if `holder` may be about to unlock. For a lock that nobody
    /// waits for and that is not reserved.
    pub(super) fn spin(&mut self, holder: Option<Holder>) -> bool {
        !self.called && spin::once(&mut self.looks, holder)
    }

    /// How to wait for the lock that `holder` has, or that is reserved for `holder`. `note` is the
    /// lock's part of the note.
    pub(super) fn request(&self, note: u32, holder: Option<Holder>, patience: Patience) -> Request {
        Request {
            note: note | if self.called { CALLED } else { 0 },
            in_front: self.called,
            holder,
            deadline: match patience {
                Patience::Short => futex::shortly(),
                Patience::Unlimited | Patience::Over => None,
            },
        }
    }

    /// Notes how such a wait came out.
    pub(super) fn note(&mut self, parked: Parked) {
        self.timed_out = parked == Parked::TimedOut;
        if let Parked::Woken(token) = parked {
            self.called = true;
            self.told = token;
        }
    }
}
