//! Waits of a coroutine that keeps its worker to itself, because it unwinds or runs the panic hook.
//!
//! std counts panics per OS thread. If another coroutine ran on the thread meanwhile, it would take that
//! count for its own. It would poison the locks that it releases, and if it panicked during the hook, the
//! process would abort. So the worker waits together with the coroutine: for time, for threads, and for
//! locks that are held elsewhere.
//!
//! Such a coroutine cannot wait for another coroutine of its runtime, which may need the same worker. That
//! aborts the process, whichever worker the other coroutine is on, so that the outcome does not depend on
//! chance.
//!
//! While its runtime stops, a coroutine that unwinds does let others run, because they have to end, too. A
//! coroutine in the panic hook does not.

use std::time::Instant;

use super::{Live, Worker};
use crate::fatal;
use crate::task::word::{Outcome, Seq};
use crate::task::{self, Deadline, Description, Task};

impl Worker {
    /// Whether the running coroutine keeps this worker to itself while it waits.
    pub(super) fn waits_alone(&self) -> bool {
        task::keeps_thread(|| self.scheduler.is_stopping())
    }

    /// Aborts if the calling coroutine keeps its worker to itself. To be called before it waits for
    /// `others`, which belong to its runtime.
    pub(crate) fn refuse_to_wait_alone_for(others: &str) {
        let alone = Worker::with_current(|worker| worker.is_some_and(Worker::waits_alone));
        task::with_running(|task| {
            if let Some(task) = task.filter(|_| alone) {
                fatal::abort(format_args!(
                    "{}, unwinding from a panic, waits for {others}, which may need the same worker to \
                     finish",
                    Description(task),
                ));
            }
        });
    }

    /// Waits on the stack of a coroutine that keeps this worker to itself. I/O goes on meanwhile. Other
    /// coroutines and their timers do not.
    ///
    /// Returns false, before the wait is over, if the runtime stops and other coroutines may run.
    #[cold]
    pub(super) fn wait_with(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) -> bool {
        loop {
            // After a waker has ended the wait, it puts the slot into the ready queue or into the inbox.
            self.take_mail();
            if self.take_ready(task.slot()) {
                return true;
            }
            if !self.waits_alone() {
                return false;
            }
            let too_late = deadline.is_some_and(|deadline| deadline.at <= Instant::now());
            if too_late && task.wake(seq, Outcome::TimedOut) {
                continue;
            }
            // If the deadline has passed and the wait could not be timed out, a waker has ended the wait.
            // The waker is about to put the slot into a queue, so no deadline is needed.
            let deadline = deadline.filter(|_| !too_late);
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() && self.waits_alone() {
                self.poll(|reactor| reactor.wait(deadline));
            }
            self.remote.attention().wake_up();
        }
    }

    /// Aborts, because `task` keeps this worker to itself and waits for what the coroutine in `slot` holds.
    #[cold]
    pub(super) fn refuse_deadlock(&self, task: &Task, slot: u32) -> ! {
        // SAFETY: the worker's loop has `live` mutably borrowed, but uses only the entry of the running
        // coroutine, which is not the one in `slot`. The loop does not go on, because this function does
        // not return.
        let holder = unsafe { (*self.live.as_ptr()).get(slot as usize) };
        let task = Description(task);
        match holder {
            Some(Live { task: holder, .. }) => fatal::abort(format_args!(
                "{task}, unwinding from a panic, waits for what {} holds, which needs the same worker to let go of it",
                Description(holder),
            )),
            None => fatal::abort(format_args!(
                "{task}, unwinding from a panic, waits for what a coroutine has left locked that has ended"
            )),
        }
    }

    /// Takes `slot` out of the ready queue; returns whether it was there.
    fn take_ready(&self, slot: u32) -> bool {
        let mut ready = self.ready.borrow_mut();
        let position = ready.iter().position(|&other| other == slot);
        position.is_some_and(|position| ready.remove(position).is_some())
    }
}
