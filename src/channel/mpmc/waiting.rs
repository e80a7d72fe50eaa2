//! The queue of tasks that wait at one end of a channel: senders with a value, or receivers with room
//! for one.

use std::cell::Cell;

use super::lock::{Guard, Lock};
use crate::atomic::process;
use crate::park::list::{List, Node};
use crate::park::{Wait, Waited};
use crate::task::word::Kind;
use crate::task::{Awaiting, Deadline, Reason, Waiting, Woken};

/// The waiters of one end, first come, first served.
///
/// The lock of the end protects the queue and the waiters that it points to.
pub(super) struct WaitQueue<T> {
    list: List<Waiter<T>>,
    /// The process in which the listed tasks wait. In a forked child they do not exist, and their stacks
    /// may be in use for something else, so the child must not touch the nodes.
    process: u32,
}

// SAFETY: the queue and its nodes are only used under the lock of its end, by whichever thread holds
// that lock. Of a node's content, the value may cross threads (`T: Send`), and a `Waiting` may be used
// from any thread.
unsafe impl<T: Send> Send for WaitQueue<T> {}

/// A waiting task and its value.
///
/// While the node is linked, the holder of the lock owns this. A thread that ends the wait owns it until
/// it schedules the task. After that, the waiting task owns it again.
struct Waiter<T> {
    /// The wait to end. Set before the node is linked.
    waiting: Cell<Option<Waiting>>,
    /// The value to send, or the received value.
    value: Cell<Option<T>>,
}

/// A [`Waiter`] as a node of a queue. Lies in the frame of the waiting task.
pub(super) struct WaiterNode<T>(Node<Waiter<T>>);

impl<T> WaiterNode<T> {
    pub(super) fn new(value: Option<T>) -> WaiterNode<T> {
        WaiterNode(Node::new(Waiter {
            waiting: Cell::new(None),
            value: Cell::new(value),
        }))
    }

    /// The value to send, before the wait.
    #[inline]
    pub(super) fn value(&self) -> &Cell<Option<T>> {
        &self.0.value.value
    }

    /// Whether there is a value. Not while the node waits.
    pub(super) fn has_value(&self) -> bool {
        let value = self.0.value.value.as_ptr();
        // SAFETY: while the node does not wait, only the waiting task uses the cell (see `Waiter`), and the
        // reference ends here.
        unsafe { &*value }.is_some()
    }

    /// The value that is there after the wait: the received one, or the one that was not sent.
    pub(super) fn into_value(self) -> Option<T> {
        self.0.value.value.into_inner()
    }

    /// Queues the node for a wait that has begun, and that can also end otherwise.
    ///
    /// # Safety
    ///
    /// The caller has locked the end of `queue`. The node is in no queue. It lives and does not move until
    /// [`unlink`](WaiterNode::unlink) has returned, or a waker has ended the wait by this node. The waiting
    /// task does not leave the frame in which it waits before that.
    pub(super) unsafe fn enqueue(&self, queue: &mut WaitQueue<T>, waiting: Waiting) {
        self.0.value.waiting.set(Some(waiting));
        // SAFETY: the caller promises that the node is in no list, and that it lives until it is unlinked.
        unsafe { queue.list_of_this_process().push_back(&self.0) };
    }

    /// Takes the node out of the queue, unless a waker has done so.
    pub(super) fn unlink<E>(&self, end: &Lock<E>, queue: fn(&mut E) -> &mut WaitQueue<T>) {
        if let Some(mut held) = end.lock()
            && self.0.is_linked()
        {
            // SAFETY: the node is linked, and was linked into this list only. The lock is held.
            unsafe { queue(&mut held).list.remove(&self.0) };
        }
    }

    /// Queues the caller and suspends it until its wait has ended.
    ///
    /// The caller has locked `end`, and passes the guard as `held`. The lock is given back once the
    /// caller is queued.
    ///
    /// Always inlined, because a processor mispredicts the return from each function that was called
    /// before a switch and returns after it.
    #[inline(always)]
    pub(super) fn wait<E>(
        &self,
        end: &Lock<E>,
        mut held: Guard<'_, E>,
        queue: fn(&mut E) -> &mut WaitQueue<T>,
        reason: Reason,
        deadline: Option<Deadline>,
    ) -> Waited {
        let wait = match Wait::try_begin(Kind::Peer) {
            Ok(wait) => wait,
            Err(interrupt) => return Waited::Interrupted(interrupt),
        };
        self.0.value.waiting.set(Some(wait.waiting()));
        // SAFETY: the node is in no list, for this function is called once for each node. The node does
        // not move while it is borrowed, and `unlink` below takes it out before the borrow ends.
        unsafe { queue(&mut held).list_of_this_process().push_back(&self.0) };
        drop(held);
        let mut unlink = Unlink {
            node: self,
            end,
            queue,
            needed: true,
        };
        let waited = wait.try_suspend(Awaiting::object(reason, end), deadline);
        // A thread that wakes the task unlinks its node first.
        unlink.needed = !waited.is_woken();
        waited
    }
}

/// Unlinks a node when its wait ends, be it by an unwind.
struct Unlink<'a, T, E> {
    node: &'a WaiterNode<T>,
    end: &'a Lock<E>,
    queue: fn(&mut E) -> &mut WaitQueue<T>,
    needed: bool,
}

impl<T, E> Drop for Unlink<'_, T, E> {
    fn drop(&mut self) {
        // The node may have been taken out meanwhile, by a thread that found its wait ended.
        if self.needed {
            self.node.unlink(self.end, self.queue);
        }
    }
}

impl<T> WaitQueue<T> {
    pub(super) fn new() -> WaitQueue<T> {
        WaitQueue {
            list: List::new(),
            process: process::number(),
        }
    }

    /// The number of waiters. In a forked child this may still be the number in the parent.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether other waits than `own` are listed. They may have ended.
    pub(super) fn has_other_than(&mut self, own: Waiting) -> bool {
        let list = self.list_of_this_process();
        list.any(|waiter| waiter.waiting.get() != Some(own))
    }

    /// The waiters of this process. Forgets those of a process that this one was forked from.
    #[inline]
    fn list_of_this_process(&mut self) -> &mut List<Waiter<T>> {
        if self.process != process::number() {
            *self = WaitQueue::new();
        }
        &mut self.list
    }

    /// Ends the first wait of the queue that has not ended otherwise. Unlinks that waiter and those before
    /// it.
    ///
    /// Returns the cell of the waiter's value, which the caller may use until it schedules the waiter.
    #[inline]
    pub(super) fn end_first_wait(&mut self) -> Option<(&Cell<Option<T>>, Woken)> {
        let list = self.list_of_this_process();
        loop {
            let first = list.pop_front()?;
            // SAFETY: the node was linked until now, and the caller holds the lock. If its wait has ended
            // otherwise, the task takes that lock before it leaves the node's frame (see `Unlink`). If this
            // function ends the wait, the task stays until it is scheduled.
            let waiter = unsafe { &(*first).value };
            let waiting = waiter.waiting.get()?;
            // SAFETY: the node was linked until now, under the lock that the caller holds. So the task is
            // still in the frame in which it waits, and leaves it only with that lock or after `end`.
            if let Some(woken) = unsafe { waiting.end() } {
                return Some((&waiter.value, woken));
            }
        }
    }
}
