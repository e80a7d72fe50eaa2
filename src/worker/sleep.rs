//! When to wake a worker for a fresh coroutine, and when a worker may sleep.
//!
//! Waking a worker costs tens of microseconds of processor time. So pushing a fresh coroutine wakes
//! a worker only if none is searching, and at most one such wake is in flight until the woken worker
//! has found work or sleeps again. Coroutines that have started need none of this, since they go to
//! their owner's inbox (see `remote`).
//!
//! ```text
//! pusher:   push; FENCE
//!           if searchers == 0 and a worker is asleep: searchers = 1 (swap); kick a sleeper, which
//!             inherits the count; if there is none any more: searchers -= 1; if a fresh
//!             coroutine can still be found: again from FENCE
//! searcher: searchers += 1; steal from all
//!             found:   searchers -= 1; if it was the last, and there is more: as a pusher
//!             nothing: state = ASLEEP; searchers -= 1; FENCE; look once more at everything
//!                        fresh coroutines: awake, search again
//!                        something else:   awake
//!                        nothing:          block
//! kicked:   is counted already; steal from all
//!             found:   as above
//!             nothing: searchers -= 1; if it was the last: FENCE; if there is something: as a pusher
//! ```
//!
//! # No fresh coroutine is left while all workers sleep
//!
//! Take the last push P, and a worker W that blocks. If P's fence comes before the fence at which W
//! fell asleep, W's last look finds the coroutine.
//!
//! Otherwise every worker's fence comes before P's. Then P sees all workers asleep, and does not see
//! the searchers that were counted off before their fences. It kicks a worker, unless the count is
//! not zero. The count then belongs to one of two:
//!
//! - a searcher, whose fence is still to come, and whose last look or steal finds the coroutine;
//! - another pusher, which has found no sleeper to kick. That pusher looks again after it has given
//!   the count back and passed a fence, and so finds the coroutine.
//!
//! A kicked worker counts as a searcher from the kick on, and the same rules hold for it. But it need not
//! fall asleep after its search: other work may have come.
//!
//! # None is left while a worker sleeps and the others run something long
//!
//! The same proof holds if some workers run coroutines. A worker that was counted as a searcher takes a fresh
//! coroutine, or has looked at all of them after its count was given back, before it runs anything else. A worker that
//! moves several to its own deque, where others may have looked before, is a pusher of those that it does not start.
//!
//! A searcher that holds back (see `placement`) leaves what it finds. It kicks the worker that should
//! take it, and blocks for a bounded time only.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicUsize, Ordering, fence};

/// What a pusher needs to know of the workers.
pub(super) trait Sleepers {
    /// Whether a worker is asleep.
    fn any_asleep(&self) -> bool;

    /// Wakes a worker that is asleep, to search; returns whether there was one.
    fn kick_one_to_search(&self) -> bool;

    /// Whether a searcher would find a fresh coroutine.
    fn any_fresh(&self) -> bool;
}

/// The search protocol's shared state.
#[derive(Debug)]
pub(super) struct Sleep {
    /// Workers that search, wakes to search that are in flight, and pushers that are about to wake.
    searchers: AtomicUsize,
}

impl Sleep {
    pub(super) fn new() -> Sleep {
        Sleep {
            searchers: AtomicUsize::new(0),
        }
    }

    /// Wakes a worker to search, unless one searches already. Called after a push.
    pub(super) fn notify(&self, workers: &impl Sleepers) {
        loop {
            fence(Ordering::SeqCst);
            if self.searchers.load(Ordering::SeqCst) > 0 || !workers.any_asleep() {
                return;
            }
            let claim = self
                .searchers
                .compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed);
            if claim.is_err() || workers.kick_one_to_search() {
                return;
            }
            self.searchers.fetch_sub(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if !workers.any_fresh() {
                return;
            }
        }
    }

    /// The caller, a worker, begins to search.
    pub(super) fn start_searching(&self) {
        self.searchers.fetch_add(1, Ordering::SeqCst);
    }

    /// The caller no longer searches; returns whether no other worker searches.
    pub(super) fn stop_searching(&self) -> bool {
        self.searchers.fetch_sub(1, Ordering::SeqCst) == 1
    }
}
