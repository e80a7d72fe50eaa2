//! Whether a worker must be kicked to notice what others have put where it looks.
//!
//! ```text
//!              about to block            kicked
//!   AWAKE ──────────────────▶ ASLEEP ──────────────▶ KICKED | KICKED_TO_SEARCH
//!     ▲                          │                      │
//!     └──────────────────────────┴──────────────────────┘  back from the poll
//! ```
//!
//! ALONE is ASLEEP for mail only: the worker waits on the stack of a coroutine that unwinds, and
//! cannot run any other. AWAY means that no thread drives the worker.
//!
//! # No mail is slept through
//!
//! ```text
//! sender: put the mail ; FENCE ; if ASLEEP, swap to KICKED and kick the eventfd
//! worker: state = ASLEEP ; FENCE ; look for mail ; if there is none, block
//! ```
//!
//! Of the two fences one comes first. If it is the sender's, the worker finds the mail and does not
//! block. If it is the worker's, the sender sees ASLEEP and kicks. A kick before the worker blocks is
//! not lost, because the eventfd stays readable.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0; // driven, and looks for work by itself
const ASLEEP: u8 = 1; // blocks in the poll, or is about to
const ALONE: u8 = 2; // as ASLEEP, and can only take mail
const KICKED: u8 = 3; // was asleep, and is about to come back from the poll
const KICKED_TO_SEARCH: u8 = 4; // as KICKED, and counts as a searcher
const AWAY: u8 = 5; // no thread drives the worker

/// One of the states above.
pub(super) struct Attention(AtomicU8);

impl Attention {
    pub(super) fn new() -> Attention {
        Attention(AtomicU8::new(AWAY))
    }

    /// Asks the worker to look at what the caller has just put there; returns whether the caller must
    /// kick it.
    #[must_use]
    pub(super) fn demand(&self) -> bool {
        fence(Ordering::SeqCst);
        self.change(ASLEEP, KICKED) || self.change(ALONE, KICKED)
    }

    /// Asks the worker to search, if it is asleep; returns whether it was, so that the caller must kick
    /// it.
    #[must_use]
    pub(super) fn demand_search(&self) -> bool {
        self.change(ASLEEP, KICKED_TO_SEARCH)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.load(Ordering::Relaxed) == from
            && self
                .0
                .compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether the worker is asleep and can be woken to search.
    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the worker runs coroutines, or would run them if it had any.
    pub(super) fn is_at_work(&self) -> bool {
        !matches!(self.0.load(Ordering::Relaxed), ALONE | AWAY)
    }

    /// Whether no thread drives the worker.
    #[allow(dead_code, reason = "not in the models")]
    pub(super) fn is_away(&self) -> bool {
        self.0.load(Ordering::SeqCst) == AWAY
    }

    /// Whether the worker is asleep, or was kicked and has not come back yet.
    pub(super) fn is_idle(&self) -> bool {
        matches!(
            self.0.load(Ordering::Relaxed),
            ASLEEP | KICKED | KICKED_TO_SEARCH
        )
    }

    /// A thread will drive the worker soon, and the worker will look at everything then. So nobody needs to
    /// kick it until then.
    pub(super) fn announce(&self) {
        self.0.store(KICKED, Ordering::SeqCst);
    }

    // The methods below are for the worker itself.

    /// No thread drives the worker any more. One that does so again begins by `wake_up`.
    pub(super) fn go_away(&self) {
        self.0.store(AWAY, Ordering::SeqCst);
    }

    /// From now on `demand` tells senders to kick. The worker must look for earlier mail after this.
    pub(super) fn fall_asleep(&self) {
        self.0.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// As `fall_asleep`, but the worker can only take mail, and is not woken to search.
    pub(super) fn fall_asleep_alone(&self) {
        self.0.store(ALONE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is back from the poll; returns whether it was kicked to search.
    pub(super) fn wake_up(&self) -> bool {
        self.0.swap(AWAKE, Ordering::SeqCst) == KICKED_TO_SEARCH
    }
}
