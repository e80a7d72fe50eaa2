//! A line of waiting tasks, under the lock of what they wait for. Each has a *note*, which its waker reads
//! and may write.
//!
//! Unlike [`Waiters`](crate::park::Waiters), a waker hands over what the waiter waits for: it changes the
//! state for the waiter, under the lock, and then ends the wait. So a woken task never finds that another
//! was faster, and nothing overtakes the line.
//!
//! # Nothing is lost, and nothing is spent in vain
//!
//! One compare-and-swap decides how a wait ends (see `task/word.rs`). If a waker has ended it, the waiter has
//! what it waited for, and has left the line. If it was a deadline or an interrupt, the waiter has nothing,
//! and takes its own node out of the line. A waker that finds the node before that passes over it.
//!
//! # How long a node is used
//!
//! It lies on the stack of the waiting task. While it is linked, the holder of the lock may use it, because
//! the task needs the lock to leave. A waker that has ended the wait may use it until it schedules the task.

use std::cell::Cell;
use std::mem;

use crate::atomic::{Mutex, MutexGuard, own_lock, process};
use crate::park::list::{List, Node};
use crate::park::{self, Wait, Waited};
use crate::task::word::{Kind, Outcome};
use crate::task::{Awaiting, Deadline, Waiting};

/// The waiters, in the order in which they came.
pub(super) struct Line<N> {
    list: List<Place<N>>,
    /// The process of the waiters, if there are any. A forked child forgets those of its parent.
    process: u32,
}

/// One waiter's place in the line.
struct Place<N> {
    /// The wait to end. Set before the place is in the line.
    waiting: Cell<Option<Waiting>>,
    note: N,
}

/// Tasks that have left the line because their waits were ended. They must be scheduled, after the unlock.
#[must_use]
pub(super) struct Ended<N>(List<Place<N>>);

impl<N> Ended<N> {
    pub(super) fn none() -> Ended<N> {
        Ended(List::new())
    }

    /// Schedules the tasks. The lock must not be held, since they may want it at once.
    pub(super) fn schedule(mut self) {
        while let Some(first) = self.0.pop_front() {
            // SAFETY: `end_first_if` has ended the wait of this node, and its task was not scheduled yet,
            // so the node lives.
            if let Some(waiting) = unsafe { (*first).value.waiting.get() } {
                // SAFETY: the wait was ended, and the node is taken from the list once.
                unsafe { waiting.ended() }.schedule();
            }
        }
    }
}

impl<N> Line<N> {
    pub(super) const fn new() -> Line<N> {
        Line {
            list: List::new(),
            process: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.first().is_none() || self.process != process::number()
    }

    /// The waiters of this process.
    #[inline]
    fn list_of_this_process(&mut self) -> &mut List<Place<N>> {
        if self.process != process::number() {
            self.list = List::new();
            self.process = process::number();
        }
        &mut self.list
    }

    /// Takes out the first waiter, if `admit` returns true for its note, and ends its wait. Passes over
    /// waiters that are about to leave by themselves, but only if they are admitted, too. Adds the waiter to
    /// `ended`, and returns its note.
    pub(super) fn end_first_if<'a>(
        &mut self,
        ended: &'a mut Ended<N>,
        admit: impl Fn(&N) -> bool,
    ) -> Option<&'a N> {
        let list = self.list_of_this_process();
        loop {
            let first: *const Node<Place<N>> = list.first()?;
            // SAFETY: the node is linked, and the caller has the lock. If its wait ends otherwise, its task
            // needs that lock to leave the frame of the node.
            let place = unsafe { &(*first).value };
            if !admit(&place.note) {
                return None;
            }
            list.pop_front();
            // SAFETY: the node was linked until now, under the lock that the caller has.
            if unsafe { place.waiting.get()?.end() }.is_some() {
                // SAFETY: the node was unlinked. Its wait was ended here, so it lives until its task is
                // scheduled, which `Ended` does after it has taken the node out.
                unsafe { ended.0.push_back(&*first) };
                return Some(&place.note);
            }
        }
    }
}

/// Does what is to be done before a wait in a line, and not under its lock, since it allocates.
pub(super) fn prepare_to_wait() {
    process::count_forks();
    park::prepare_to_wait();
}

/// Waits in the line that `line` finds in the state under `lock`. The caller has locked it, as `held`, and
/// has called [`prepare_to_wait`] before that. `awaiting` describes what the caller
/// waits for.
///
/// If the wait ends without a waker, or cannot begin, calls `left` under the lock, after the caller has left the
/// line. Returns the note, and how the wait has ended.
///
/// # Unwinding
///
/// An interruption point.
#[inline(always)]
pub(super) fn wait_in_line<S, N>(
    lock: &Mutex<S>,
    mut held: MutexGuard<'_, S>,
    line: fn(&mut S) -> &mut Line<N>,
    note: N,
    awaiting: Awaiting<'_>,
    deadline: Option<Deadline>,
    left: fn(&mut S, &N) -> Ended<N>,
) -> (N, Outcome) {
    let node = Node::new(Place {
        waiting: Cell::new(None),
        note,
    });
    let wait = match Wait::try_begin(Kind::Peer) {
        Ok(wait) => wait,
        Err(interrupt) => {
            let ended = left(&mut held, &node.value.note);
            // Unwinding runs user code, which must not run under the lock.
            drop(held);
            ended.schedule();
            interrupt.unwind()
        }
    };
    node.value.waiting.set(Some(wait.waiting()));
    // SAFETY: the node is new. It does not move before this function returns or unwinds, and by then a
    // waker has taken it out of the line (the outcome is `Woken`) or `Leave` has.
    unsafe { line(&mut held).list_of_this_process().push_back(&node) };
    drop(held);
    let leave = Leave {
        lock,
        line,
        node: &node,
        left,
    };
    let waited = wait.try_suspend(awaiting, deadline);
    match waited {
        Waited::Woken => mem::forget(leave),
        Waited::TimedOut | Waited::Interrupted(_) => drop(leave),
    }
    drop(wait);
    (node.value.note, waited.or_unwind())
}

/// Takes a node out of its line when it is dropped, since its wait has ended without a waker.
struct Leave<'a, S, N> {
    lock: &'a Mutex<S>,
    line: fn(&mut S) -> &mut Line<N>,
    node: &'a Node<Place<N>>,
    left: fn(&mut S, &N) -> Ended<N>,
}

impl<S, N> Drop for Leave<'_, S, N> {
    #[cold]
    fn drop(&mut self) {
        let ended = {
            let mut held = own_lock(self.lock);
            // A waker may have passed over it.
            if self.node.is_linked() {
                // SAFETY: the node is linked, and only ever put into this line. The lock is held.
                unsafe { (self.line)(&mut held).list.remove(self.node) };
            }
            (self.left)(&mut held, &self.node.value.note)
        };
        ended.schedule();
    }
}
