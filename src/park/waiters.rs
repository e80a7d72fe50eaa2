//! A queue of waiting tasks.

use std::cell::Cell;
use std::fmt;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Wait;
use crate::task::word::{Kind, Outcome, Seq};
use crate::task::{Deadline, Task};

/// Tasks that wait for the same thing, first come, first woken.
///
/// The nodes lie on the waiters' stacks and unlink themselves, so that a wait costs no allocation
/// and one that unwinds leaves nothing behind.
pub(crate) struct Waiters {
    list: Mutex<List>,
}

/// The two ends of a doubly linked list.
struct List {
    head: *const Node,
    tail: *const Node,
    len: usize,
}

// SAFETY: the nodes that a list points to are used under its lock alone, by whichever thread
// holds that, and live until they are unlinked.
unsafe impl Send for List {}

/// All fields belong to the lock of the list, from the linking to the unlinking.
struct Node {
    /// Whom to wake, and from which wait.
    waiter: Cell<Option<(*const Task, Seq)>>,
    prev: Cell<*const Node>,
    next: Cell<*const Node>,
    linked: Cell<bool>,
}

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters {
            list: Mutex::new(List {
                head: ptr::null(),
                tail: ptr::null(),
                len: 0,
            }),
        }
    }

    /// Queues the caller and suspends it until it is woken from here, or `deadline` has passed;
    /// unless `ready` says, under the lock of this queue, that there is nothing to wait for.
    ///
    /// # Unwinding
    ///
    /// See [`Wait`].
    pub(crate) fn wait(
        &self,
        kind: Kind,
        deadline: Option<Deadline>,
        ready: impl FnOnce() -> bool,
    ) -> Outcome {
        let node = Node {
            waiter: Cell::new(None),
            prev: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            linked: Cell::new(false),
        };
        let begun = {
            let mut list = self.lock();
            if ready() {
                return Outcome::Woken;
            }
            Wait::try_begin(kind).inspect(|wait| {
                node.waiter.set(Some((wait.task(), wait.seq)));
                // SAFETY: the node stays where it is until `unlink`, below, has run.
                unsafe { list.push(&node) };
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

    fn lock(&self) -> MutexGuard<'_, List> {
        crate::sys::switches::own_lock(&self.list).unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters")
            .field("waiting", &self.lock().len)
            .finish()
    }
}

/// A task whose wait was ended, and which nobody but the holder of this can make run again.
struct Woken(*const Task);

impl Woken {
    fn schedule(self) {
        // SAFETY: the task waits until it is scheduled, so it is alive; this happens once.
        unsafe { (*self.0).schedule() };
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
            if self.node.linked.get() {
                // SAFETY: linked, and only ever into this list.
                unsafe { list.remove(self.node) };
            }
        }
    }
}

impl List {
    /// # Safety
    ///
    /// `node` is in no list, and lives until it is unlinked from this one.
    unsafe fn push(&mut self, node: &Node) {
        node.prev.set(self.tail);
        node.linked.set(true);
        match self.tail.is_null() {
            true => self.head = node,
            // SAFETY: linked nodes live, and `&mut self` is the lock.
            false => unsafe { (*self.tail).next.set(node) },
        }
        self.tail = node;
        self.len += 1;
    }

    /// Ends the first wait that has not ended otherwise, and takes it and those before it out.
    fn end_first_wait(&mut self) -> Option<Woken> {
        loop {
            // SAFETY: a linked node lives, and with it the frame that the task is borrowed by. Both
            // stay until their owner has taken this lock, or been woken from here; so the task can
            // be asked whether its wait lasts.
            let (task, ended) = unsafe {
                let first = self.head.as_ref()?;
                self.remove(first);
                let (task, seq) = first.waiter.get()?;
                (task, (*task).word.wake(seq, Outcome::Woken))
            };
            if ended {
                return Some(Woken(task));
            }
        }
    }

    /// # Safety
    ///
    /// `node` is linked into this list.
    unsafe fn remove(&mut self, node: &Node) {
        let (prev, next) = (node.prev.get(), node.next.get());
        match prev.is_null() {
            true => self.head = next,
            // SAFETY: a linked node's neighbours are linked, and `&mut self` is the lock.
            false => unsafe { (*prev).next.set(next) },
        }
        match next.is_null() {
            true => self.tail = prev,
            // SAFETY: as above.
            false => unsafe { (*next).prev.set(prev) },
        }
        node.linked.set(false);
        self.len -= 1;
    }
}
