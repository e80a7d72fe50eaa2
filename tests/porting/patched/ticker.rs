//! A coroutine that notices when its worker is blocked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use greenroom::LocalJoinHandle;

use crate::util::idle_during;

/// How often the ticker wants to run.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// A coroutine of the calling worker that runs every millisecond.
pub(crate) struct Ticker {
    over: Arc<AtomicBool>,
    coroutine: LocalJoinHandle<Duration>,
}

impl Ticker {
    pub(crate) fn start() -> Ticker {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let coroutine = greenroom::spawn_local(move || {
            let mut largest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                largest = largest.max(idle_during(|| sleep(TICK)));
            }
            largest
        });
        Ticker { over, coroutine }
    }

    /// Ends it, and returns the longest time between two of its turns in which the worker did nothing.
    pub(crate) fn largest_gap(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.coroutine.join().unwrap()
    }
}
