//! What the waker of a future raises, for the task that polls the future.
//!
//! ```text
//! poller: poll the future; it is ready -> return
//!         loop: RAISED -> IDLE by a swap: it was RAISED -> poll again
//!               queue at the waiters, unless it is RAISED by now; suspend
//! waker:  any -> RAISED by a swap: it was IDLE -> wake the poller, if it is queued
//! ```
//!
//! *No wake-up is lost.* The waker raises before it looks for the poller, and the poller looks and queues in
//! one step, under the lock of the waiters. So the poller sees RAISED, or the waker sees the poller. A waker
//! that finds RAISED leaves the rest to the one that has raised: the poller has not taken that yet, so it will
//! poll after this call.
//!
//! *A poll sees what the waker did before.* Both swaps acquire and release, so the swap of the poller
//! acquires all that was raised before it.
//!
//! A waker that is late, since the poller took RAISED before the waker has looked for it, wakes the poller
//! for nothing. The poller then finds IDLE, and waits again without a poll.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU32, Ordering};
use crate::park::Waiters;
use crate::task::Reason;
use crate::task::word::Kind;

/// The waker was not called since the last poll began.
const IDLE: u32 = 0;
/// The future is to be polled again.
const RAISED: u32 = 1;

/// Lives as long as there are wakers of the future, which may be longer than the future.
#[derive(Debug)]
pub(crate) struct Signal {
    state: AtomicU32,
    /// The poller, while it waits.
    waiters: Waiters,
}

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal {
            state: AtomicU32::new(IDLE),
            waiters: Waiters::new(Reason::Future),
        }
    }

    /// Has the future polled again. Works on any thread.
    pub(crate) fn raise(&self) {
        if self.state.swap(RAISED, Ordering::AcqRel) == IDLE {
            self.waiters.wake_one(|| ());
        }
    }

    /// Whether the signal was raised since the last call that returned true. To be called by the poller.
    pub(crate) fn take(&self) -> bool {
        self.state.swap(IDLE, Ordering::AcqRel) == RAISED
    }

    /// Suspends the caller, which is the poller, until the signal is raised, and takes that.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted.
    pub(crate) fn wait(&self) {
        let is_raised = || self.state.load(Ordering::Acquire) == RAISED;
        while !self.take() {
            // What raises it may be an event of another executor, which comes by itself.
            self.waiters.wait(Kind::Event, None, is_raised);
        }
    }
}
