//! The end of a runtime, on one of its workers.
//!
//! Three rules:
//!
//! 1. A wait for I/O, time, a join or a channel *unwinds at once* with [`Cancelled`].
//! 2. A wait that std never unwinds does not: a lock, a condition variable, `park`, a barrier, the end of
//!    a scope, and whatever a destructor waits for amid its unwind. Foreign `unsafe` relies on that. It
//!    goes on as ever, and its coroutine unwinds at its next wait of the first kind. When nothing has
//!    happened in the runtime for [`PAUSE`](super::PAUSE), and nothing is expected (I/O,
//!    a sleep, a job of the pool), the coroutines that are left are *left behind*.
//! 3. When the grace is over, whatever is left is left behind.
//!
//! Under `panic = "abort"` nothing can unwind, and all is left behind at once.
//!
//! # What is left behind
//!
//! Such a coroutine never runs again, as a thread of std's that is detached when its process ends. Its
//! stack, its task and what they own stay for good.
//!
//! *It does not end.* Nobody is told that it did: a join of it, the end of its scope, a lock that it
//! holds are waited for as long as the process lives. So whoever has lent it memory, by `scope`, by
//! `spawn_unchecked`, or by a lock and a condition variable, keeps that memory.
//!
//! *Nobody uses what is gone.* Lists of waiters may hold nodes of its stack, and wakers its task: both
//! stay. A waker does not take it for a waiter: its wait is ended for good (`retire`). If it had been
//! woken before, and did not get to run, all that wait in the same bucket of the futex look again, for it
//! may have been woken in the place of one of them. What points to its worker's `owner` may look there:
//! that stays, too.
//!
//! *Its thread* stays, if that is the runtime's own: the coroutine may have lent what lies in
//! thread-locals. The thread that called `run` is the caller's; see the hazards in the crate docs. If the
//! coroutine was suspended amid its unwind, std's panic count of the thread stays raised.

use std::mem;
use std::ptr;

use super::super::{LARGEST_BATCH, Live, Worker};
use super::Lookout;
use crate::park::Cancelled;
use crate::sync::futex;
use crate::sys::stderr::Stderr;
use crate::task::word::WaitWord;
use crate::task::{Deadline, Description};

/// Whether coroutines cannot unwind, so that all are left behind. A profile has one panic strategy for
/// the whole program, so this crate's is the program's.
pub(in crate::worker) const NOTHING_UNWINDS: bool = cfg!(panic = "abort");

/// How many coroutines a report names.
const NAMED: usize = 32;

impl Worker {
    /// Ends what is left on this worker, or leaves it behind; returns whether it has left any.
    pub(in crate::worker) fn end(&self) -> bool {
        if !NOTHING_UNWINDS {
            self.unwind_what_is_left();
        }
        self.leave_behind()
    }

    fn unwind_what_is_left(&self) {
        let shutdown = &self.scheduler.shutdown;
        let mut lookout = Lookout::new(shutdown);
        self.interrupt_all(WaitWord::interrupt);
        while self.has_any() && shutdown.grace_over().is_none() {
            if self.run_some() {
                lookout.note_turn();
            }
            if !self.has_any() || self.has_work() {
                continue;
            }
            // Between two turns the count is exact.
            if !std::thread::panicking() && self.interrupt_all(WaitWord::interrupt_later) {
                continue;
            }
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() {
                let Some(look_again) = lookout.look(self.expects_something()) else {
                    self.remote.attention().wake_up();
                    return;
                };
                let others = [Some(look_again), shutdown.grace_ends()];
                let others = others.into_iter().flatten().map(Deadline::at);
                let timer = self.timers.borrow_mut().alarm();
                let first = others.chain(timer).min_by_key(|deadline| deadline.at);
                self.poll(|reactor| reactor.wait(first));
            }
            self.remote.attention().wake_up();
        }
    }

    /// Whether the calling thread drives this worker now.
    pub(crate) fn is_driven(&self) -> bool {
        Worker::with_current(|worker| worker.is_some_and(|worker| ptr::eq(worker, self)))
    }

    /// Leaves all behind that has started here, because nothing of it can run where the caller is.
    pub(crate) fn give_up(&self) {
        // Of this worker the others need not expect anything.
        drop(Lookout::new(&self.scheduler.shutdown));
        self.leave_behind();
    }

    fn has_any(&self) -> bool {
        !self.live.borrow().is_empty() || self.has_work()
    }

    /// Runs what is ready, some turns at most, and looks at timers and I/O. Ends fresh coroutines.
    /// Returns whether any has run.
    fn run_some(&self) -> bool {
        let any = self.has_work();
        self.run_batch(LARGEST_BATCH);
        self.poll(|reactor| reactor.turn());
        self.expire_timers();
        any
    }

    /// Whether a coroutine here waits for an event that comes by itself, other than one that would have
    /// been unwound if it were known not to unwind already.
    fn expects_something(&self) -> bool {
        let live = self.live.borrow();
        live.iter().any(|(_, live)| {
            let awaits = live.task.word.awaits_event();
            awaits.is_some_and(|may_unwind| !may_unwind || live.task.is_cancelled())
        })
    }

    /// Interrupts the coroutines that have started here, the youngest first, since the younger may use
    /// what the older has. Returns whether any wait was ended.
    fn interrupt_all(&self, interrupt: fn(&WaitWord) -> bool) -> bool {
        let live = self.live.borrow();
        let mut interrupted: Vec<&Live> = live
            .iter()
            .map(|(_, live)| live)
            .filter(|live| interrupt(&live.task.word))
            .collect();
        interrupted.sort_unstable_by_key(|live| std::cmp::Reverse(live.age));
        interrupted.iter().for_each(|live| live.task.schedule());
        !interrupted.is_empty()
    }

    /// Leaves the coroutines behind that have started here and not ended, and ends those that have not
    /// started. Returns whether it has left any behind. Runs no coroutine, so it may be called on
    /// whatever stack.
    fn leave_behind(&self) -> bool {
        self.placement.look_again();
        let left = mem::take(&mut *self.live.borrow_mut());
        if let Some(grace) = self.scheduler.shutdown.grace_over() {
            report(left.iter().map(|(_, live)| live), grace);
        }
        // All of them, before one passes on a wake-up that it has had.
        for (_, live) in &left {
            if live.coroutine.is_in_body() {
                live.task.word.retire();
            }
        }
        for (
            _,
            Live {
                task, coroutine, ..
            },
        ) in left
        {
            if coroutine.is_in_body() {
                self.leaves_some.set(true);
                futex::pass_on_wake(&task);
                // Pointed to from its stack, and by those that may wake it.
                mem::forget(task);
            } else {
                // Its stack is leaked, and with it the right to that.
                mem::forget(task.take_reservation());
                self.local.borrow_mut().push_back(task);
            }
        }
        // Where nothing unwinds, those that wait for a fresh one must not see it given up: they would
        // take that for an error and, by an `unwrap`, end the process.
        if !NOTHING_UNWINDS {
            while let Some(fresh) = self.next_local().or_else(|| self.next_fresh()) {
                self.scheduler.abandon(&fresh, Box::new(Cancelled));
            }
        }
        self.leaves_some.get()
    }
}

/// Names the coroutines of which the patience has come to its end.
fn report<'a>(left: impl Iterator<Item = &'a Live>, grace: std::time::Duration) {
    let started: Vec<_> = left.filter(|live| live.coroutine.is_in_body()).collect();
    if started.is_empty() {
        return;
    }
    let mut report = format!(
        "\ngreenroom: {grace:?} after their runtime began to shut down, these have not ended, and are \
         left behind:\n"
    );
    for live in started.iter().take(NAMED) {
        report += &format!("  {}\n", Description(&live.task));
    }
    if let Some(more @ 1..) = started.len().checked_sub(NAMED) {
        report += &format!("  and {more} more\n");
    }
    // In one piece, and past std's lock. Where stderr is gone there is nothing to do.
    let _ = std::fmt::Write::write_str(&mut Stderr, &report);
}
