//! The end of a runtime where its coroutines cannot run to unwind: it is dropped on a coroutine of
//! another runtime.
//!
//! Coroutines that have started on its worker 0 never run again: they are leaked, as in `leak`.
//! They may be scoped, or have lent what is on their stacks, so these stay, and whoever waits for
//! the end of their scopes waits for ever. Those that have not started are dropped where the runtime
//! is. The other workers unwind what they have, as ever, and nobody waits for them.

use std::ptr;

use super::{Live, Worker};
use crate::task::Description;

impl Worker {
    /// Whether there are coroutines that have started here, and not ended. Not for these.
    pub(crate) fn has_started(&self) -> bool {
        let live = self.live.borrow();
        live.iter().any(|(_, live)| live.coroutine.is_in_body())
    }

    /// Who they are.
    pub(crate) fn describe_started(&self) -> Vec<String> {
        let live = self.live.borrow();
        let started = live.iter().filter(|(_, live)| live.coroutine.is_in_body());
        started
            .map(|(_, Live { task, .. })| Description(task).to_string())
            .collect()
    }

    /// Whether the calling thread drives this worker now.
    pub(crate) fn is_driven(&self) -> bool {
        Worker::with_current(|worker| worker.is_some_and(|worker| ptr::eq(worker, self)))
    }

    /// Leaks what has started on this worker, which must not be dropped then; drops what has not;
    /// and tells their joiners. Returns whether any had started. Runs no coroutine.
    pub(crate) fn give_up(&self) -> bool {
        // What is leaked need not be named.
        self.remote.set_reported();
        self.placement.look_again();
        // The first to be told, since destructors of the others may join them.
        let any = self.leak_started();
        // None of them will wake what waits on other workers.
        self.scheduler.leave(self);
        self.abandon_fresh();
        any
    }
}
