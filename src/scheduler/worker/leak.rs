//! The end of a runtime where nothing can unwind, under `panic = "abort"`.
//!
//! Coroutines that have started and are left when their runtime ends cannot be ended: they are
//! leaked. They never run again, and nothing of theirs is dropped. Their stacks are neither unmapped
//! nor reused, and their tasks not freed, for others may hold pointers there: scoped coroutines
//! elsewhere that borrow, lists of waiters that their nodes stand in. Coroutines that have never
//! started are dropped.
//!
//! ```text
//! worker: run no more; last_turns += 1; anything left?
//!           no:  leave
//!           yes: wait until last_turns == workers
//!                each started coroutine: end its wait for good; tell its joiner; forget it
//!                drop the fresh ones, tell their joiners
//! ```
//!
//! *No coroutine of the runtime sees that another was given up*: it would take `Cancelled` for an
//! error and, by an `unwrap`, end the process. So nobody is told before every worker has run its
//! last turn. A turn that does not end is for the watchdog, see `grace`.
//!
//! *No wake-up goes to a coroutine that is leaked*, instead of to a coroutine of another runtime that
//! waits for the same thing: the wait is ended, so wakers pass the node over. If one that waits for a
//! lock was woken before, to try for it, others who wait are woken in its place; if it was handed the
//! lock, it holds that for good. (What was registered with this worker's reactor is told to look again
//! when that goes; what is shared with another runtime, and registered there, waits for its next
//! event.)
//!
//! *Scopes.* A scope of a leaked coroutine never returns, so what it lends stays. A leaked coroutine
//! remains a member of its scope, which, should it belong to another runtime, does not return
//! either: what the coroutine borrows it may have lent to others, who still run.
//!
//! *Threads.* What a leaked coroutine may have lent to others also lies in the thread-locals of its
//! thread: `LOCAL.with(|value| std::thread::scope(|s| { s.spawn(|| use_it(value)); sleep() }))` is
//! safe code, and the scoped thread does not end with the runtime. It would not help to wait for the
//! other workers. So a worker's thread that leaves coroutines behind stays, parked for good; it ends
//! with the process. The thread that called `run` is the caller's, and may end: that it must not
//! lend its thread-locals like this is said in the crate docs.

use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Live, Worker};
use crate::park::Cancelled;
use crate::sync::futex;

/// Whether coroutines that are left are leaked, because they cannot unwind. A profile has one panic
/// strategy for the whole program, so this crate's is the program's.
pub(super) const INSTEAD_OF_UNWINDING: bool = cfg!(panic = "abort");

/// The workers that will not run any coroutine again.
pub(in crate::scheduler) struct LastTurns {
    workers: usize,
    over: Mutex<usize>,
    changed: Condvar,
}

impl LastTurns {
    pub(in crate::scheduler) fn new(workers: usize) -> LastTurns {
        LastTurns {
            workers,
            over: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    fn count(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    fn wait_for_all(&self) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(over, |over| *over < self.workers);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Worker {
    /// Leaks the started coroutines that are left on this worker, and drops the fresh ones; returns
    /// whether any had started. Runs no coroutine, so it may be called on whatever stack.
    pub(crate) fn leave_behind(&self) -> bool {
        // What is leaked need not be named.
        self.remote.set_reported();
        let turns = &self.scheduler.last_turns;
        turns.count();
        self.placement.look_again();
        if self.live.borrow().is_empty() && !self.has_work() {
            // Not even a runtime that could not be built, some of whose workers are not there.
            return false;
        }
        turns.wait_for_all();
        let any = self.leak_started();
        self.abandon_fresh();
        any
    }

    /// Leaks what has started on this worker, and tells the joiners; returns whether there was any.
    pub(super) fn leak_started(&self) -> bool {
        let left = mem::take(&mut *self.live.borrow_mut());
        // All of them, before one passes on a wake-up that it has had.
        for (_, live) in &left {
            if live.coroutine.is_in_body() {
                live.task.word.retire();
            }
        }
        let mut any = false;
        for (_, left) in left {
            let Live {
                task, coroutine, ..
            } = left;
            if !coroutine.is_in_body() {
                // Dropped with the others that have not, when the joiners of those that have were told.
                // Its stack is leaked, and with it the right to that.
                mem::forget(task.take_reservation());
                self.local.borrow_mut().push_back(task);
                continue;
            }
            any = true;
            futex::pass_on_wake(&task);
            // The rest of it has no destructor: the stack is leaked.
            // SAFETY: it was started here, so it is suspended in `run`, and is not resumed.
            unsafe { task.body().leak(&task, Box::new(Cancelled)) };
            // Pointed to from its stack, and by whom it waits for.
            mem::forget(task);
        }
        self.leaves_some.set(any);
        any
    }
}
