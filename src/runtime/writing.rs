//! WRITING, the flag of a send queue. `send_queue` has the protocol.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicBool, Ordering};

/// Whether a turn is under way that empties the queue, or is about to.
pub(super) struct Writing(AtomicBool);

impl Writing {
    /// No turn is under way. Not `const`: the models' atomics cannot be made in a constant.
    pub(super) fn new() -> Writing {
        Writing(AtomicBool::new(false))
    }

    /// Begins a turn. To be called after an item was put. Returns false if a turn is under way, which sees the
    /// item.
    pub(super) fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }

    /// Runs the turn that the caller has begun: calls `empty`, which empties the queue, until it is empty when the
    /// turn ends.
    pub(super) fn run(&self, is_empty: impl Fn() -> bool, mut empty: impl FnMut()) {
        loop {
            empty();
            // Not a store: this synchronizes with each sender that has found the flag set and relies on the look
            // below.
            self.0.swap(false, Ordering::SeqCst);
            if is_empty() || !self.begin() {
                return;
            }
        }
    }
}
