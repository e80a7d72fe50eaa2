//! Who is woken when fresh coroutines appear, and who may sleep.
//!
//! Waking a worker costs tens of microseconds of its time, so a push of a fresh coroutine wakes
//! one only if nobody is searching, and at most one such wake is in flight until the woken worker
//! has found work or slept again. Coroutines that have started need none of this: they go to the
//! inbox of their owner (see `remote`).
//!
//! ```text
//! pusher:   push; FENCE; if searchers == 0 (swap to 1): kick a sleeper, which inherits the count
//! searcher: searchers += 1; steal from all
//!             found:   searchers -= 1; was it the last, and is there more? as a pusher
//!             nothing: state = ASLEEP; searchers -= 1; FENCE; look once more at everything
//!                        something: awake, search again
//!                        nothing:   block
//! ```
//!
//! *No fresh coroutine is left while all sleep.* Take the last push P, and a worker W that blocks.
//! If P's fence comes before the one at which W fell asleep, W's last look sees the push. If every
//! worker's fence comes first, P sees the searchers that were counted off before those fences gone,
//! so it finds nobody searching and a sleeper to kick. If P saw a searcher, that searcher's fence is
//! yet to come, and its last look (or its steal) sees the push. A kicked worker counts as a searcher
//! from the moment of the kick, and holds to the same rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use super::remote::Remote;

#[derive(Debug)]
pub(super) struct Sleep {
    searchers: AtomicUsize,
}

impl Sleep {
    pub(super) const fn new() -> Sleep {
        Sleep {
            searchers: AtomicUsize::new(0),
        }
    }

    /// A fresh coroutine was made visible: wakes a sleeper, unless somebody searches already.
    pub(super) fn notify(&self, workers: &[Arc<Remote>]) {
        fence(Ordering::SeqCst);
        if self.searchers.load(Ordering::SeqCst) > 0 {
            return;
        }
        let claim = self
            .searchers
            .compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed);
        if claim.is_ok() && !workers.iter().any(|worker| worker.kick_to_search()) {
            // Nobody sleeps: all will look before they do.
            self.searchers.fetch_sub(1, Ordering::SeqCst);
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
