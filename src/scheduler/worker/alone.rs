//! Waits of a coroutine that unwinds, amid which no other may run on its worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Live, Worker};
use crate::fatal;
use crate::scheduler::Scheduler;
use crate::task::word::{Outcome, Seq};
use crate::task::{self, Deadline, Description, Task};

/// How long all workers must have been kept by coroutines that wait for others before that is taken
/// for a deadlock.
const PATIENCE: Duration = Duration::from_secs(1);

impl Worker {
    /// Whether the running coroutine unwinds, so that no other must run before it has come to the
    /// end of that. When the runtime stops, and so all unwind, they may have to wait for each
    /// other, and do; but see a panic count that includes those which are suspended.
    pub(in crate::scheduler) fn waits_alone(&self) -> bool {
        task::is_unwinding() && !self.scheduler.is_stopping()
    }

    /// The calling coroutine is about to wait for others of its runtime. Where it unwinds, none of
    /// them can run on its worker meanwhile; and if all workers are kept like this, the process is
    /// aborted, for they would be for ever.
    pub(crate) fn about_to_wait_for(others: &str) -> Option<AloneForOthers> {
        Worker::with_current(|worker| {
            let worker = worker.filter(|worker| task::on_coroutine() && worker.waits_alone())?;
            let alone = AloneForOthers::new(&worker.scheduler);
            if alone.are_all_for_good() {
                task::with_running(|task| {
                    let who = task.map(Description);
                    fatal::abort(format_args!(
                        "{}, unwinding from a panic, waits for {others}, which need the same \
                         worker to finish",
                        who.expect("a coroutine is running"),
                    ))
                });
            }
            Some(alone)
        })
    }

    /// Waits on the stack of a coroutine that unwinds: another coroutine on this thread would
    /// take std's panic count for its own. I/O goes on, other coroutines and their timers do not.
    ///
    /// Returns false if the runtime stops first: from then on others may run.
    #[cold]
    pub(super) fn wait_with(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) -> bool {
        loop {
            // The waker puts the slot into the queue, or into the inbox, after it has ended the wait.
            self.take_mail();
            if self.take_ready(task.slot()) {
                return true;
            }
            if self.scheduler.is_stopping() {
                return false;
            }
            let too_late = deadline.is_some_and(|deadline| deadline.at <= Instant::now());
            if too_late && task.wake(seq, Outcome::TimedOut) {
                continue;
            }
            // Woken, if it is too late: the waker is about to say so.
            let deadline = deadline.filter(|_| !too_late);
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() && !self.scheduler.is_stopping() {
                self.poll(|reactor| reactor.wait(deadline));
            }
            self.remote.attention().wake_up();
        }
    }

    /// Aborts, because `task`, which unwinds, waits for what the one in `slot` holds.
    #[cold]
    pub(in crate::scheduler) fn refuse_deadlock(&self, task: &Task, slot: u32) -> ! {
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

/// A coroutine that keeps its worker to itself, because it unwinds, and waits for others.
pub(crate) struct AloneForOthers(Arc<Scheduler>);

impl AloneForOthers {
    fn new(scheduler: &Arc<Scheduler>) -> AloneForOthers {
        scheduler.alone_for_others.fetch_add(1, Ordering::SeqCst);
        AloneForOthers(Arc::clone(scheduler))
    }

    /// Whether all workers are kept. One whose wait has just ended may not have come round to saying
    /// so, for as long as it is not given a processor: this takes a while to be sure.
    fn are_all_for_good(&self) -> bool {
        let are_all = || self.0.alone_for_others.load(Ordering::SeqCst) == self.0.workers.len();
        let enough = Instant::now() + PATIENCE;
        while are_all() && self.0.workers.len() > 1 && Instant::now() < enough {
            thread::sleep(Duration::from_millis(1));
        }
        are_all()
    }
}

impl Drop for AloneForOthers {
    fn drop(&mut self) {
        self.0.alone_for_others.fetch_sub(1, Ordering::SeqCst);
    }
}
