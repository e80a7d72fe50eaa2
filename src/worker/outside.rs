//! A worker that the loop of other code drives, one turn at a time.
//!
//! Between two turns no thread drives the worker. What it misses meanwhile is kept: mail in its inbox, fresh
//! coroutines in the injector, events in the kernel, deadlines in its timers. The next turn looks at all of
//! these. The other loop may come to its turns by itself, or wait for the descriptor of the poll.
//!
//! # The descriptor becomes readable when there is something to do
//!
//! For the other loop, to wait for the descriptor is what blocking in the poll is for the worker. So the worker
//! leaves a turn as it goes to sleep (see `attention`): it says ASLEEP, passes a fence, and looks whether there is
//! something to do. If there is, it kicks itself. If not, it sets the alarm, which is in the poll, for its next
//! deadline; and a thread that has mail for it sees ASLEEP, and kicks. An epoll descriptor is readable while an event in
//! it has not been taken. Events of I/O, the alarm, and kicks are all such events.
//!
//! If the runtime has other workers, the worker says ALONE instead: it is kicked for mail, but not to search for
//! fresh coroutines. The others search for these, and do not count on a loop that they know nothing of.
//!
//! The beginning of a turn is the return from the poll.

use std::os::fd::BorrowedFd;

use super::Worker;
use super::driving::Driving;
use super::idle::Patience;
use crate::task::Deadline;

/// What is expected of a worker while no thread drives it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outside {
    /// That it is not driven for long, or never again.
    Away,
    /// That other code gives it turns.
    Turned,
    /// That other code gives it a turn when the descriptor of its poll is readable.
    Watched,
}

impl Worker {
    /// Looks at I/O and timers once, for which it waits until `limit` if there is nothing to run. Then runs a
    /// batch of coroutines.
    pub(crate) fn drive_turn(&self, limit: Option<Deadline>) {
        if self.outside.get() == Outside::Away {
            self.outside.set(Outside::Turned);
        }
        let _driving = Driving::new(self);
        self.leave.set(false);
        if self.scheduler.is_stopping() {
            // A signal ends the process.
            self.end();
            return;
        }
        self.look(Patience {
            until: limit,
            ends_by_stop: true,
        });
        self.run_next_batch();
    }

    /// Whether a turn would have something to do at once.
    pub(crate) fn has_more(&self) -> bool {
        self.has_work() || self.idlers.any()
    }

    /// Notes that a coroutine was spawned here between two turns.
    pub(crate) fn note_fresh(&self) {
        if !self.is_driven() {
            self.remote.kick();
        }
    }

    /// The descriptor of the poll. From now on, it is readable between turns if there is something to do.
    pub(crate) fn watch(&self) -> BorrowedFd<'_> {
        if self.outside.replace(Outside::Watched) != Outside::Watched && !self.is_driven() {
            // A pusher may have kicked this worker to search since its last turn. `leave_alone` finds what it pushed.
            if self.remote.attention().wake_up() {
                self.scheduler.sleep.stop_searching();
            }
            self.leave_alone();
        }
        let fd = self.reactor.borrow().poll_fd();
        // SAFETY: the poll belongs to the reactor, which is never replaced, and is dropped with this worker. The
        // returned value borrows this worker.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Called when no thread drives this worker any more.
    pub(super) fn leave_alone(&self) {
        let attention = self.remote.attention();
        let scheduler = &*self.scheduler;
        if self.outside.get() == Outside::Away || scheduler.is_stopping() {
            // No thread will poll this reactor until the worker is driven again.
            self.reactor.borrow().handle().release();
            return attention.go_away();
        }
        match scheduler.workers() {
            1 => attention.fall_asleep(),
            _ => attention.fall_asleep_alone(),
        }
        if self.outside.get() == Outside::Watched {
            let at_once = self.has_more()
                || scheduler.is_asked_to_stop()
                || scheduler.is_stopping()
                || self.remote.rolls().is_asked();
            let deadline = self.next_deadline();
            self.poll(|reactor| reactor.leave_to_others(at_once, deadline));
        }
    }
}
