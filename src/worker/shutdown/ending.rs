//! The end of a runtime, on one of its workers.
//!
//! Three rules:
//!
//! 1. A wait for I/O, for time, for a join or for a channel *unwinds at once*, with [`Cancelled`].
//! 2. A wait that std never unwinds does not unwind: a lock, a condition variable, `park`, a barrier,
//!    the end of a scope, and all waits inside a destructor. Foreign `unsafe` code relies on that. Such
//!    a wait goes on as usual, and its coroutine unwinds at its next wait of the first kind. The
//!    remaining coroutines are *left behind* when nothing has happened in the runtime for
//!    [`PAUSE`](super::PAUSE), and no event is expected (I/O, a sleep, a job of the pool).
//! 3. When the grace is over, all remaining coroutines are left behind.
//!
//! Under `panic = "abort"` nothing can unwind, so all coroutines are left behind at once.
//!
//! # Coroutines that are left behind
//!
//! Such a coroutine never runs again, as a detached std thread when its process ends. Its stack, its
//! task and all that they own stay allocated for good.
//!
//! *It does not end*, and so nobody is told that it did. A join of it, the end of its scope, and a lock
//! that it holds are waited for as long as the process lives. So the memory that others have lent to it
//! stays lent, whether by `scope`, by `spawn_unchecked`, or by a lock and a condition variable.
//!
//! *Nobody uses freed memory.* Waiter lists may hold nodes on its stack, and wakers may hold its task;
//! both stay allocated. A waker does not take it for a waiter, because its wait is ended for good
//! (`retire`). If the coroutine was woken before, and has not run since, all waiters in the same bucket of
//! the futex look again, because the wake-up may have been meant for any of them. Other threads may
//! look at the `owner` of its worker. So the `owner` stays allocated, too.
//!
//! *Its OS thread stays*, if that is the runtime's own, because the coroutine may have lent the values of
//! thread-locals. The thread that called `run` is the caller's; see the hazards in the guide. If the
//! coroutine was suspended during its unwind, std's panic count of that thread stays raised.

use std::mem;
use std::ptr;

use super::super::batch::LARGEST_BATCH;
use super::super::{Live, Worker};
use super::Lookout;
use crate::park::Cancelled;
use crate::sync::futex;
use crate::sys::stderr::Stderr;
use crate::task::word::WaitWord;
use crate::task::{Deadline, Description};

/// Whether coroutines cannot unwind, so that all of them are left behind. A program is compiled with one
/// panic strategy, so this crate's is the program's.
pub(in crate::worker) const NOTHING_UNWINDS: bool = cfg!(panic = "abort");

/// The most coroutines that a report names.
const NAMED: usize = 32;

impl Worker {
    /// Ends the remaining coroutines of this worker, or leaves them behind. Returns whether it has left
    /// any behind.
    pub(in crate::worker) fn end(&self) -> bool {
        if !NOTHING_UNWINDS && !self.has_ended.replace(true) {
            self.unwind_what_is_left();
        }
        self.leave_behind()
    }

    /// Interrupts the remaining coroutines, and runs them. Returns when all have ended, when nothing happens
    /// in the runtime any more, or when the grace is over.
    fn unwind_what_is_left(&self) {
        let shutdown = &self.scheduler.shutdown;
        let mut lookout = Lookout::new(shutdown, self.index());
        let is_away = |index: usize| self.scheduler.workers[index].attention().is_away();
        self.interrupt_all(WaitWord::interrupt);
        while self.has_any() && shutdown.grace_over().is_none() {
            self.run_some(&lookout);
            if !self.has_any() || self.has_work() {
                continue;
            }
            // No coroutine runs, so a panic count of zero proves that none of them unwinds. Waits that
            // began while the count was raised can now be interrupted, too.
            if !std::thread::panicking() && self.interrupt_all(WaitWord::interrupt_later) {
                continue;
            }
            self.remote.attention().fall_asleep_alone();
            if !self.remote.has_mail() && !self.remote.rolls().is_asked() {
                let Some(look_again) = lookout.look(self.expects_something(), is_away) else {
                    self.remote.attention().wake_up();
                    return;
                };
                let others = [Some(look_again), shutdown.grace_ends()];
                let others = others.into_iter().flatten().map(Deadline::at);
                let timer = self.next_timer();
                let first = others.chain(timer).min_by_key(|deadline| deadline.at);
                self.asleep(|| self.wait(first));
            }
            self.remote.attention().wake_up();
        }
    }

    /// Whether the calling thread drives this worker now.
    pub(crate) fn is_driven(&self) -> bool {
        Worker::with_current(|worker| worker.is_some_and(|worker| ptr::eq(worker, self)))
    }

    /// Says that the calling thread is about to drive this worker to its end, so that the other workers do not
    /// take it for one that is away.
    pub(crate) fn announce_end(&self) {
        let attention = self.remote.attention();
        // Otherwise the worker waits for the turns of another loop, and is not away.
        if attention.is_away() {
            attention.announce();
        }
    }

    /// Leaves all coroutines of this worker behind, because the caller's thread cannot run them.
    pub(crate) fn give_up(&self) {
        // Counts this worker as quiet, so that the others do not wait for it.
        drop(Lookout::new(&self.scheduler.shutdown, self.index()));
        self.leave_behind();
    }

    /// Whether a coroutine is left, started or fresh.
    fn has_any(&self) -> bool {
        !self.live.borrow().is_empty() || self.has_work()
    }

    /// Runs a batch of ready coroutines, and ends fresh ones. Then looks at I/O and timers.
    fn run_some(&self, lookout: &Lookout<'_>) {
        if self.remote.rolls().is_asked() {
            self.answer_rolls();
        }
        self.placement.look_again();
        // Mail that comes after this look is left to the next call, so that each batch is watched.
        if self.has_work() {
            lookout.watch_batch(|| _ = self.run_batch(LARGEST_BATCH));
        }
        self.poll(|reactor| reactor.turn());
        self.expire_timers();
        self.wake_idler();
    }

    /// Whether a coroutine of this worker waits for an event that comes by itself: I/O, time, a job of the
    /// pool. Does not count a coroutine that may unwind, but has not been interrupted because another
    /// coroutine of the thread unwinds.
    fn expects_something(&self) -> bool {
        let live = self.live.borrow();
        live.iter().any(|(_, live)| {
            let awaits = live.task.word.awaits_event();
            awaits.is_some_and(|may_unwind| !may_unwind || live.task.is_unwound())
        })
    }

    /// Interrupts the started coroutines of this worker. The youngest comes first, because it may use what
    /// an older one owns. Returns whether a wait was ended.
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

    /// Leaves the started coroutines of this worker behind, and ends the fresh ones. Returns whether it
    /// has left any behind. Runs no coroutine, so any stack will do.
    fn leave_behind(&self) -> bool {
        self.placement.look_again();
        let left = mem::take(&mut *self.live.borrow_mut());
        if let Some(grace) = self.scheduler.shutdown.grace_over() {
            report(left.iter().map(|(_, live)| live), grace);
        }
        // All of them are retired before the first passes a wake-up on. Otherwise the wake-up could go to
        // another coroutine that is left behind.
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
                // The coroutine's stack and its wakers still point to the task.
                mem::forget(task);
            } else {
                // The coroutine has a stack, but has not run its task yet. That stack is leaked, and the
                // reservation with it. The task is ended below, as fresh.
                mem::forget(task.take_reservation());
                self.local.borrow_mut().push_back(task);
            }
        }
        // Under `panic = "abort"` a joiner must not see that a fresh coroutine was given up: an `unwrap` of
        // that error would end the process.
        if !NOTHING_UNWINDS {
            while let Some(fresh) = self.next_local().or_else(|| self.next_fresh()) {
                self.scheduler.abandon(&fresh, Box::new(Cancelled));
            }
        }
        self.leaves_some.get()
    }
}

/// Names the started coroutines that have not ended within `grace`.
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
        report += &format!("  {}", Description(&live.task));
        match live.task.swallowed() {
            0 => {}
            1 => report += ", which has caught its cancellation and gone on",
            times => report += &format!(", which has caught its cancellation {times} times"),
        }
        report.push('\n');
    }
    if let Some(more @ 1..) = started.len().checked_sub(NAMED) {
        report += &format!("  and {more} more\n");
    }
    // One write, past std's lock, which a coroutine that is left behind may hold. Without a stderr there
    // is nowhere to report to.
    let _ = std::fmt::Write::write_str(&mut Stderr, &report);
}
