//! A queue of waiting tasks.
//!
//! *No wake-up is lost.* A waiter asks under the lock whether there is something to wait for, and
//! queues; a waker changes that first, and then takes the lock. A wait that ends otherwise has the waiter
//! take itself out; a waker that finds its node before that passes it over. So what `wake_one` says of
//! whether it has woken somebody is true, and a wake-up is spent on one that it wakes.
//!
//! Nothing is allocated under the lock: the woken are listed by their nodes, which stay until they are
//! scheduled.

use std::cell::Cell;
use std::fmt;
use std::mem;

use crate::atomic::{Mutex, MutexGuard, own_lock};
use crate::park::{self, Wait, list};
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

pub(crate) struct List(list::List<Cell<Option<Waiting>>>);

// SAFETY: the nodes are used under the lock of the list, wherever that is.
unsafe impl Send for List {}

impl Waiters {
    /// With no waiters. (Of which the models can make none in a constant.)
    pub(crate) const fn of(list: Mutex<List>) -> Waiters {
        Waiters { list }
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
        park::prepare_to_wait();
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
        let unlink = Unlink {
            waiters: self,
            node: &node,
        };
        let outcome = wait.suspend(deadline);
        if outcome == Outcome::Woken {
            // Who woke us from here took the node out of the list first.
            mem::forget(unlink);
        }
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
        let mut woken = list::List::new();
        while let Some(node) = list.take_first_whose_wait_ends() {
            // SAFETY: it is in no list, and lives until its task is scheduled.
            unsafe { woken.push_back(&*node) };
        }
        drop(list);
        // Not under the lock: a woken task may come straight back to it.
        while let Some(node) = woken.pop_front() {
            // SAFETY: as above; its wait was ended here, and it is scheduled once.
            if let Some(waiting) = unsafe { (*node).value.get() } {
                // SAFETY: as above.
                unsafe { waiting.ended() }.schedule();
            }
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
        let waiting = self.lock().0.len();
        f.debug_struct("Waiters")
            .field("waiting", &waiting)
            .finish()
    }
}

/// Takes a node out of its list, if it is still there, when its wait ends otherwise than by a waker
/// from the list.
struct Unlink<'a> {
    waiters: &'a Waiters,
    node: &'a Node,
}

impl Drop for Unlink<'_> {
    #[cold]
    fn drop(&mut self) {
        let mut list = self.waiters.lock();
        if self.node.is_linked() {
            // SAFETY: linked, and only ever into this list.
            unsafe { list.0.remove(self.node) };
        }
    }
}

impl List {
    pub(crate) const fn new() -> List {
        List(list::List::new())
    }

    /// Ends the first wait that has not ended otherwise, and takes it and those before it out.
    fn end_first_wait(&mut self) -> Option<Woken> {
        let node = self.take_first_whose_wait_ends()?;
        // SAFETY: the wait was ended, and the task is not scheduled yet.
        unsafe { Some((*node).value.get()?.ended()) }
    }

    fn take_first_whose_wait_ends(&mut self) -> Option<*const Node> {
        loop {
            let first = self.0.pop_front()?;
            // SAFETY: the node lives, and with it the frame in which its task waits: until the owner
            // has taken this lock, or been woken from here.
            if unsafe { (*first).value.get()?.end() }.is_some() {
                return Some(first);
            }
        }
    }
}
