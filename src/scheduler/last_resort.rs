//! When to interrupt waits that are no interruption points, while a runtime stops: when nothing is left
//! on any worker that could happen by itself.
//!
//! ```text
//! worker:  BUSY ──▶ QUIET in a turn, n resorts taken ──▶ BUSY      for mail, a timer, a resort
//!            └────▶ GONE
//!
//! worker:  be BUSY ; take mail ; run ; be QUIET ; FENCE ; look whether it is due ; sleep
//! look:    is each QUIET after as many resorts, or GONE? ; has none mail? ; are all in the same turns?
//! ```
//!
//! *It is due only if nothing is under way.* Between the first and the last of the three questions all
//! were quiet. Mail that was sent before was sent by one of those, before it was quiet, so the second
//! question sees it; unless it has been taken since, by one that was busy before it was, in another turn.
//! (What threads of others send may come at any time.)
//!
//! *If nothing is under way, somebody sees that it is due.* Of two who become quiet the one whose fence is
//! later sees the other quiet; so the last of all sees all of them. One that has mail looks again.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

const BUSY: u64 = 0;
const GONE: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct LastResort {
    /// How often it was taken.
    taken: AtomicUsize,
    /// How each worker is: quiet is the number of its turn above that of the resorts taken, plus one.
    workers: Box<[AtomicU64]>,
}

impl LastResort {
    pub(super) fn new(workers: usize) -> LastResort {
        LastResort {
            taken: AtomicUsize::new(0),
            workers: (0..workers).map(|_| AtomicU64::new(BUSY)).collect(),
        }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// `worker` is about to take its mail and to run what it has.
    pub(super) fn begin_turn(&self, worker: usize) {
        self.workers[worker].store(BUSY, Ordering::Relaxed);
    }

    /// `worker` has run all that was ready, in the turn of that number; since then it has taken
    /// the resorts that were `taken`.
    pub(super) fn end_turn(&self, worker: usize, turn: u32, taken: usize) {
        let quiet = u64::from(turn) << 32 | quiet_after(taken);
        self.workers[worker].store(quiet, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Nothing will ever happen on `worker` again. The others are to look.
    pub(super) fn leave(&self, worker: usize) {
        self.workers[worker].store(GONE, Ordering::Release);
    }

    /// Whether it is due for the next time after those that were `taken`.
    pub(super) fn is_due(&self, taken: usize, any_mail: impl FnOnce() -> bool) -> bool {
        let Some(before) = self.quiet_turns(taken) else {
            return false;
        };
        !any_mail() && self.quiet_turns(taken) == Some(before)
    }

    /// The sum of the turns in which all are quiet, if they are. Turns only grow, so while it is the
    /// same they are.
    fn quiet_turns(&self, taken: usize) -> Option<u64> {
        let mut turns = 0_u64;
        for worker in &self.workers {
            let state = worker.load(Ordering::Acquire);
            if state != GONE && state & u64::from(u32::MAX) != quiet_after(taken) {
                return None;
            }
            turns = turns.wrapping_add(state);
        }
        Some(turns)
    }

    /// Takes it, unless somebody else has taken it more often than `taken` times; returns whether it
    /// was taken here. All workers are to see to it then.
    pub(super) fn take(&self, taken: usize) -> bool {
        let next = taken + 1;
        self.taken
            .compare_exchange(taken, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// The low half of the state of one that is quiet.
fn quiet_after(taken: usize) -> u64 {
    u64::from(taken as u32) + 1
}
