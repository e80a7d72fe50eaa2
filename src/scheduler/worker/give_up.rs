//! The end of a runtime where its coroutines cannot run to unwind: it is dropped on a coroutine of
//! another runtime, or while its thread panics, or among the thread-locals of its thread.
//!
//! Coroutines that have started on its worker 0 never run again: they are leaked, as in `leak`.
//! They may be scoped, or have lent what is on their stacks, so these stay, and whoever waits for
//! the end of their scopes waits for ever. Those that have not started are dropped where the runtime
//! is. The other workers unwind what they have, as ever, and nobody waits for them.

use super::Worker;
use crate::fatal;

impl Worker {
    /// Whether there are coroutines that have started here, and not ended.
    pub(crate) fn has_started(&self) -> bool {
        !self.live.borrow().is_empty()
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

    /// Ends the process, because the thread ends before the coroutines that have started here.
    pub(crate) fn refuse_thread_end(&self) -> ! {
        fatal::report(format_args!(
            "a runtime is dropped among the thread-locals of its thread, which its coroutines may \
             use; these have not ended:"
        ));
        self.report_left();
        std::process::abort();
    }
}
