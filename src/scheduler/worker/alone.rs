//! Waits of a coroutine that unwinds, amid which no other may run on its worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Live, Worker};
use crate::fatal;
use crate::scheduler::Scheduler;
use crate::task::word::{Outcome, Seq};
use crate::task::{self, Deadline, Description, Task};

impl Worker {
    /// Whether the running coroutine unwinds, so that no other must run before it has come to the
    /// end of that. When the runtime stops and all are interrupted, they may have to wait for each
    /// other, and do; but see a panic count that includes those which are suspended.
    pub(in crate::scheduler) fn waits_alone(&self) -> bool {
        task::is_unwinding()
            && !(self.scheduler.is_stopping() && task::is_unwinding_from_interrupt())
    }

    /// The calling coroutine is about to wait for others of its runtime. Where it unwinds, none of
    /// them can run on its worker meanwhile; and if all workers are kept like this, the process is
    /// aborted, for they would be for ever.
    pub(crate) fn about_to_wait_for(others: &str) -> Option<AloneForOthers> {
        Worker::with_current(|worker| {
            let worker = worker.filter(|worker| task::on_coroutine() && worker.waits_alone())?;
            let alone = AloneForOthers::new(&worker.scheduler);
            if alone.are_all() {
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
    #[cold]
    pub(super) fn wait_with(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) {
        // The waker puts the slot into the queue, or into the inbox, after it has ended the wait.
        while !self.take_ready(task.slot()) {
            let stopping = self.scheduler.is_stopping();
            if stopping && deadline.is_none() && task.word.interrupt_plain() {
                task.schedule();
                continue;
            }
            if deadline.is_some_and(|deadline| deadline.at <= Instant::now()) {
                task.wake(seq, Outcome::TimedOut);
                continue;
            }
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() && self.scheduler.is_stopping() == stopping {
                self.poll(|reactor| reactor.wait(deadline));
            }
            self.remote.attention().wake_up();
            self.take_mail();
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

    fn are_all(&self) -> bool {
        self.0.alone_for_others.load(Ordering::SeqCst) == self.0.workers.len()
    }
}

impl Drop for AloneForOthers {
    fn drop(&mut self) {
        self.0.alone_for_others.fetch_sub(1, Ordering::SeqCst);
    }
}
