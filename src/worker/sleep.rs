//! Who is woken when fresh coroutines appear, and who may sleep.
//!
//! Waking a worker costs tens of microseconds of its time, so a push of a fresh coroutine wakes
//! one only if nobody is searching, and at most one such wake is in flight until the woken worker
//! has found work or slept again. Coroutines that have started need none of this: they go to the
//! inbox of their owner (see `remote`).
//!
//! ```text
//! pusher:   push; FENCE
//!           if searchers == 0, and somebody is asleep: searchers = 1 (swap); kick a sleeper, which
//!             inherits the count; if by now there is none: searchers -= 1; is there still
//!             something to find? then again from FENCE
//! searcher: searchers += 1; steal from all
//!             found:   searchers -= 1; was it the last, and is there more? as a pusher
//!             nothing: state = ASLEEP; searchers -= 1; FENCE; look once more at everything
//!                        something: awake, search again
//!                        nothing:   block
//! ```
//!
//! *No fresh coroutine is left while all sleep.* Take the last push P, and a worker W that blocks.
//! If P's fence comes before the one at which W fell asleep, W's last look sees the push. If every
//! worker's fence comes first, P sees all asleep, and the searchers that were counted off before
//! those fences gone: so it kicks one, unless some count is left. That is either a searcher's, whose
//! fence is yet to come, and whose last look (or steal) sees the push; or a pusher's that has found
//! no sleeper to kick. The latter looks again after it has given the count back and passed a fence,
//! and so sees the push. A kicked worker counts as a searcher from the moment of the kick, and holds
//! to the same rules.
//!
//! A searcher that holds back (see `placement`) leaves what it sees: it kicks the worker that is to
//! take it, and blocks for a bounded time only.

use crate::atomic::{AtomicUsize, Ordering, fence};

/// The workers, as a pusher sees them.
pub(super) trait Sleepers {
    fn any_asleep(&self) -> bool;

    /// Wakes one that sleeps; returns whether there was one.
    fn kick_one_to_search(&self) -> bool;

    /// Whether there is a fresh coroutine to be found.
    fn any_fresh(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Sleep {
    searchers: AtomicUsize,
}

impl Sleep {
    pub(super) fn new() -> Sleep {
        Sleep {
            searchers: AtomicUsize::new(0),
        }
    }

    /// A fresh coroutine was made visible: wakes a sleeper, unless somebody searches already.
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

    pub(super) fn start_searching(&self) {
        self.searchers.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a search; returns whether it was the only one.
    pub(super) fn stop_searching(&self) -> bool {
        self.searchers.fetch_sub(1, Ordering::SeqCst) == 1
    }
}
