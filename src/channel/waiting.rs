//! Those who wait at one end of a channel, each with a value or with room for one.

use std::cell::Cell;

use super::lock::{Guard, Lock};
use crate::atomic::process;
use crate::park::Wait;
use crate::park::list::{List, Node};
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Waiting, Woken};

/// First come, first served. It lies under the lock of its end, and so does what it points to.
pub(super) struct Queue<T> {
    list: List<Place<T>>,
    /// Where those in it wait. In a fork of that process they do not, and their stacks may be others'.
    process: u32,
}

// SAFETY: the list is used under the lock of its end, wherever that is; of what a place holds,
// the value crosses threads, and the task may be used from any.
unsafe impl<T: Send> Send for Queue<T> {}

/// A waiter's place in a queue. It belongs to the lock while it is linked, then to whoever has ended
/// the wait, until that has scheduled the task, and then to the waiter.
struct Place<T> {
    waiter: Cell<Option<Waiting>>,
    value: Cell<Option<T>>,
}

/// A waiter's frame.
pub(super) struct Entry<T>(Node<Place<T>>);

impl<T> Entry<T> {
    pub(super) fn new(value: Option<T>) -> Entry<T> {
        Entry(Node::new(Place {
            waiter: Cell::new(None),
            value: Cell::new(value),
        }))
    }

    /// What the waiter is left with.
    pub(super) fn into_value(self) -> Option<T> {
        self.0.value.value.into_inner()
    }

    /// Queues the caller, who holds the lock of its `end`, and suspends it until its wait is over.
    ///
    /// # Unwinding
    ///
    /// See [`Wait`].
    #[inline(always)]
    pub(super) fn wait<E>(
        &self,
        end: &Lock<E>,
        mut held: Guard<'_, E>,
        queue: fn(&mut E) -> &mut Queue<T>,
        deadline: Option<Deadline>,
    ) -> Outcome {
        let wait = match Wait::try_begin(Kind::Peer) {
            Ok(wait) => wait,
            Err(pending) => {
                drop(held);
                pending.unwind()
            }
        };
        self.0.value.waiter.set(Some(wait.waiting()));
        // SAFETY: the node is new, and stays where it is until it is unlinked, at the latest by the
        // guard below.
        unsafe { queue(&mut held).own_list().push_back(&self.0) };
        drop(held);
        let mut unlink = Unlink {
            entry: self,
            end,
            queue,
            needed: true,
        };
        let outcome = wait.suspend(deadline);
        // Who woke us took the node out first.
        unlink.needed = outcome != Outcome::Woken;
        outcome
    }
}

/// Takes a waiter out of its queue when its wait ends, in whatever way.
struct Unlink<'a, T, E> {
    entry: &'a Entry<T>,
    end: &'a Lock<E>,
    queue: fn(&mut E) -> &mut Queue<T>,
    needed: bool,
}

impl<T, E> Drop for Unlink<'_, T, E> {
    fn drop(&mut self) {
        if self.needed
            && let Some(mut held) = self.end.lock()
            && self.entry.0.is_linked()
        {
            // SAFETY: linked, and only ever into this queue.
            unsafe { (self.queue)(&mut held).list.remove(&self.entry.0) };
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        Queue {
            list: List::new(),
            process: process::number(),
        }
    }

    /// As many are queued, or were in a process that this one was forked from.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Those who wait in this process.
    #[inline]
    fn own_list(&mut self) -> &mut List<Place<T>> {
        if self.process != process::number() {
            *self = Queue::new();
        }
        &mut self.list
    }

    /// Ends the first wait that has not ended otherwise, and takes it and those before it out.
    /// Returns what it waits with, which the caller may use before it schedules the waiter.
    #[inline]
    pub(super) fn end_first_wait(&mut self) -> Option<(&Cell<Option<T>>, Woken)> {
        let list = self.own_list();
        loop {
            let first = list.pop_front()?;
            // SAFETY: a node that was linked lives, and with it the frame in which its task waits,
            // until the owner has taken the lock, which the caller holds, or is scheduled.
            let place = unsafe { &(*first).value };
            // SAFETY: as above.
            if let Some(woken) = unsafe { place.waiter.get()?.end() } {
                return Some((&place.value, woken));
            }
        }
    }
}
