//! A queue of waiting tasks.

use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use super::{Wait, list};
use crate::sys::switches::own_lock;
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Waiting, Woken};

/// Tasks that wait for the same thing, first come, first woken.
///
/// The nodes lie on the waiters' stacks and unlink themselves, so that a wait costs no allocation
/// and one that unwinds leaves nothing behind.
pub(crate) struct Waiters {
    list: Mutex<List>,
}

/// A waiter's place in the queue: whom to wake, and from which wait. Belongs to the lock of the list.
type Node = list::Node<Cell<Option<Waiting>>>;

struct List(list::List<Cell<Option<Waiting>>>);

// SAFETY: the nodes are used under the lock of the list, wherever that is.
unsafe impl Send for List {}

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters {
            list: Mutex::new(List(list::List::new())),
        }
    }

    /// Queues the caller and suspends it until it is woken from here, or `deadline` has passed;
    /// unless `ready` says, under the lock of this queue, that there is nothing to wait for.
    ///
    /// # Unwinding
    ///
    /// See [`Wait`].
    #[inline(always)]
    pub(crate) fn wait(
        &self,
        kind: Kind,
        deadline: Option<Deadline>,
        ready: impl FnOnce() -> bool,
    ) -> Outcome {
        let node = Node::new(Cell::new(None));
        let begun = {
            let mut list = self.lock();
            if ready() {
                return Outcome::Woken;
            }
            Wait::try_begin(kind).inspect(|wait| {
                node.value.set(Some(wait.waiting()));
                // SAFETY: the node stays where it is until `unlink`, below, has run.
                unsafe { list.0.push_back(&node) };
            })
        };
        let wait = begun.unwrap_or_else(|pending| pending.unwind());
        let mut unlink = Unlink {
            waiters: self,
            node: &node,
            needed: true,
        };
        let outcome = wait.suspend(deadline);
        // Who woke us from here took the node out of the list first.
        unlink.needed = outcome != Outcome::Woken;
        outcome
    }

    /// Wakes the first waiter that can still be woken; returns whether there was one. If not, calls
    /// `none` under the lock.
    pub(crate) fn wake_one(&self, none: impl FnOnce()) -> bool {
        let woken = {
            let mut list = self.lock();
            let woken = list.end_first_wait();
            if woken.is_none() {
                none();
            }
            woken
        };
        // Not under the lock: the woken task may come straight back to it.
        woken.map(Woken::schedule).is_some()
    }

    /// Wakes all that wait now.
    pub(crate) fn wake_all(&self) {
        self.wake_all_if(|| true);
    }

    /// Wakes all that wait now, if `condition` holds, which is asked under the lock of this queue:
    /// so it holds while those wait who are woken for it.
    pub(crate) fn wake_all_if(&self, condition: impl FnOnce() -> bool) {
        let mut list = self.lock();
        if !condition() {
            return;
        }
        let first = list.end_first_wait();
        // Most often there is one, and nothing to allocate for.
        let rest: Vec<Woken> = std::iter::from_fn(|| list.end_first_wait()).collect();
        drop(list);
        // Not under the lock: a woken task may come straight back to it.
        for woken in first.into_iter().chain(rest) {
            woken.schedule();
        }
    }

    /// Whether nobody is queued now.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().0.first().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        own_lock(&self.list)
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters")
            .field("waiting", &self.lock().0.len())
            .finish()
    }
}

/// Takes a node out of its list when its wait ends, in whatever way.
struct Unlink<'a> {
    waiters: &'a Waiters,
    node: &'a Node,
    needed: bool,
}

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        if self.needed {
            let mut list = self.waiters.lock();
            if self.node.is_linked() {
                // SAFETY: linked, and only ever into this list.
                unsafe { list.0.remove(self.node) };
            }
        }
    }
}

impl List {
    /// Ends the first wait that has not ended otherwise, and takes it and those before it out.
    fn end_first_wait(&mut self) -> Option<Woken> {
        loop {
            let first = self.0.pop_front()?;
            // SAFETY: the node lives, and with it the frame in which its task waits: until the owner
            // has taken this lock, or been woken from here.
            let woken = unsafe { (*first).value.get()?.end() };
            if woken.is_some() {
                return woken;
            }
        }
    }
}
