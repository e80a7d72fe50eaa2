//! Waits of a coroutine that keeps its worker to itself: it unwinds, or runs the panic hook.
//!
//! std counts panics by thread. Another coroutine that ran on the thread meanwhile would take that count
//! for its own: it would poison what it unlocks, and a panic of it in the middle of the hook would abort
//! the process. So its worker waits with it: for time, for threads, and for locks that are held
//! elsewhere. It cannot wait for another coroutine of its runtime, which may need the same worker: that
//! aborts the process, whichever worker it is, so that nothing depends on chance.
//!
//! While a runtime stops, a coroutine that unwinds lets others run, for they have to end, too. The hook
//! does not.

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

    /// Aborts, if the calling coroutine, which has to wait for `others` of its runtime, keeps its worker
    /// to itself.
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

    /// Waits on the stack of a coroutine that keeps this worker to itself. I/O goes on, other coroutines
    /// and their timers do not.
    ///
    /// Returns false if that is over first: the runtime stops, and others may run.
    #[cold]
    pub(super) fn wait_with(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) -> bool {
        loop {
            // The waker puts the slot into the queue, or into the inbox, after it has ended the wait.
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
            // Woken, if it is too late: the waker is about to say so.
            let deadline = deadline.filter(|_| !too_late);
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() && self.waits_alone() {
                self.poll(|reactor| reactor.wait(deadline));
            }
            self.remote.attention().wake_up();
        }
    }

    /// Aborts, because `task`, which keeps this worker to itself, waits for what the one in `slot` holds.
    #[cold]
    pub(super) fn refuse_deadlock(&self, task: &Task, slot: u32) -> ! {
        // SAFETY: the loop has this mutably borrowed, and has lent the entry of the running
        // coroutine, which is another one. It does not go on, for this does not return.
        let holder = unsafe { (*self.live.as_ptr()).get(slot as usize) };
        let waits = format_args!("{}, unwinding from a panic, waits", Description(task));
        match holder {
            Some(Live { task: holder, .. }) => fatal::abort(format_args!(
                "{waits} for what {} holds, which needs the same worker to let go of it",
                Description(holder),
            )),
            None => fatal::abort(format_args!(
                "{waits} for what a coroutine has left locked that has ended"
            )),
        }
    }

    /// Takes `slot` out of the queue; returns whether it was there.
    fn take_ready(&self, slot: u32) -> bool {
        let mut ready = self.ready.borrow_mut();
        let position = ready.iter().position(|&other| other == slot);
        position.is_some_and(|position| ready.remove(position).is_some())
    }
}
