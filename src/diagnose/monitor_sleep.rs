//! How the monitor sleeps as long as all workers do.
//!
//! ```text
//! monitor: set the flag ; fence ; look whether all workers are asleep ; if so, park until the flag is cleared
//! worker:  note that it is awake ; fence ; if the flag is set, swap it to clear and unpark the monitor
//! ```
//!
//! One of the two fences comes first in the order of all fences. If it is the worker's, the monitor sees that the
//! worker is awake. If it is the monitor's, the worker sees the flag. A worker that is new when the monitor looks is
//! seen for the same reason, because the monitor takes the list of workers after it has set the flag.

use crate::atomic::{AtomicBool, Ordering, fence};

/// Whether the monitor sleeps.
pub(super) struct MonitorSleep(pub(super) AtomicBool);

impl MonitorSleep {
    /// Begins to sleep if `all_asleep` says that no worker is awake. Returns whether it did: the monitor then parks
    /// until it is not asleep any more.
    pub(super) fn begin(&self, all_asleep: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let begins = all_asleep();
        if !begins {
            self.0.store(false, Ordering::Relaxed);
        }
        begins
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Called by a worker after it has noted that it is awake. Returns whether the caller must unpark the monitor.
    #[inline]
    pub(super) fn end(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}
