//! Whether a worker must be kicked to take notice of something.
//!
//! ```text
//!              about to block            kicked
//!   AWAKE ──────────────────▶ ASLEEP ──────────────▶ KICKED | KICKED_TO_SEARCH
//!     ▲                          │                      │
//!     └──────────────────────────┴──────────────────────┘  back from the poll
//! ```
//!
//! ALONE is ASLEEP for mail only: the worker waits with a coroutine that unwinds, and cannot run
//! anything else. AWAY: no thread drives the worker at present.
//!
//! ```text
//! sender: put the mail; FENCE; if ASLEEP (swap to KICKED): kick the eventfd
//! worker: state = ASLEEP; FENCE; look for mail; if there is none, block
//! ```
//!
//! Either the fence of the sender or that of the worker is first: if the sender's, the worker sees
//! the mail and does not block; if the worker's, the sender sees it asleep and kicks. The kick is
//! an eventfd's, which is remembered if the worker has not blocked yet.

use crate::atomic::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const ALONE: u8 = 2;
const KICKED: u8 = 3;
const KICKED_TO_SEARCH: u8 = 4;
const AWAY: u8 = 5;

pub(super) struct Attention(AtomicU8);

impl Attention {
    pub(super) fn new() -> Attention {
        Attention(AtomicU8::new(AWAY))
    }

    /// Asks for attention to what was just put where the worker looks; returns whether it must be
    /// kicked.
    #[must_use]
    pub(super) fn demand(&self) -> bool {
        fence(Ordering::SeqCst);
        self.change(ASLEEP, KICKED) || self.change(ALONE, KICKED)
    }

    /// Asks a sleeping worker to search; returns whether it sleeps, and so must be kicked.
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

    /// Whether the worker may be woken to search.
    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// Whether the worker runs coroutines, or would if there were any.
    pub(super) fn is_at_work(&self) -> bool {
        !matches!(self.0.load(Ordering::Relaxed), ALONE | AWAY)
    }

    /// Whether the worker sleeps, or was woken and has not come yet.
    pub(super) fn is_idle(&self) -> bool {
        matches!(
            self.0.load(Ordering::Relaxed),
            ASLEEP | KICKED | KICKED_TO_SEARCH
        )
    }

    /// The worker will be driven soon, and look for everything then.
    pub(super) fn announce(&self) {
        self.0.store(KICKED, Ordering::SeqCst);
    }

    // What follows is for the worker itself.

    pub(super) fn set_driven(&self, driven: bool) {
        let state = if driven { AWAKE } else { AWAY };
        self.0.store(state, Ordering::SeqCst);
    }

    /// From now on, whoever wants attention kicks. What was put before is to be looked for after
    /// this.
    pub(super) fn fall_asleep(&self) {
        self.0.store(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// As `fall_asleep`, for mail only.
    pub(super) fn fall_asleep_alone(&self) {
        self.0.store(ALONE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Back from the poll; returns whether the worker was woken to search.
    pub(super) fn wake_up(&self) -> bool {
        self.0.swap(AWAKE, Ordering::SeqCst) == KICKED_TO_SEARCH
    }
}
