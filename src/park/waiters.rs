//! A queue of waiting tasks.
//!
//! # No wake-up is lost
//!
//! A waiter asks, under the lock of the queue, whether there is something to wait for, and queues under
//! the same lock. A waker first changes the answer and then takes the lock. So either the waiter sees
//! the change, or the waker sees the waiter.
//!
//! A wait can also end by a deadline or an interrupt. Then the waiter unlinks its own node. A waker that
//! finds the node before that skips it. So a wake-up is spent only on a waiter that it really wakes,
//! and `wake_one` tells the truth about that.
//!
//! # Nothing is allocated under the lock
//!
//! The allocator may be the user's and wait for locks itself. So the waiters that a waker has woken are
//! listed by their own nodes, which live until their tasks are scheduled.

use std::cell::Cell;
use std::fmt;
use std::mem;

use crate::atomic::{Mutex, MutexGuard, own_lock};
use crate::park::{self, Caller, Wait, Waited, list};
use crate::task::word::{Kind, Outcome};
use crate::task::{Awaiting, Deadline, Reason, Waiting, Woken};

/// Tasks that wait for the same thing, woken in the order in which they came.
///
/// The nodes lie on the waiters' stacks, so a wait allocates nothing. A wait that unwinds unlinks its
/// node.
pub(crate) struct Waiters {
    list: Mutex<WaitList>,
    /// Why they wait, if the caller of the wait does not know better.
    reason: Reason,
}

/// The node of one waiter: the wait to end. Only used under the lock of the list, and by the waker that
/// took it out of the list.
type WaitNode = list::Node<Cell<Option<Waiting>>>;

/// What the lock of a [`Waiters`] guards.
pub(crate) struct WaitList(list::List<Cell<Option<Waiting>>>);

impl Waiters {
    /// Makes an empty queue of an empty list. Not `new`: the models' locks cannot be made in a
    /// constant.
    pub(crate) const fn of(reason: Reason, list: Mutex<WaitList>) -> Waiters {
        Waiters { list, reason }
    }

    /// Queues the caller, and suspends it until it is woken from here or `deadline` has passed. Does
    /// not wait if `ready`, called under the lock of this queue, returns true; then the outcome is
    /// `Woken`.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted, and `kind` allows it.
    #[inline(always)]
    pub(crate) fn wait(
        &self,
        kind: Kind,
        deadline: Option<Deadline>,
        ready: impl FnOnce() -> bool,
    ) -> Outcome {
        self.queue_and_suspend(Caller::Unwinds, kind, self.awaiting(), deadline, ready)
            .or_unwind()
    }

    /// Like `wait`, for an operation that can fail, and that awaits an event which comes by itself: for
    /// `awaiting`. If the caller is interrupted, it must [`deliver`](park::Interrupt::deliver) the interrupt.
    #[inline(always)]
    pub(crate) fn try_wait(
        &self,
        awaiting: Awaiting<'_>,
        deadline: Option<Deadline>,
        ready: impl FnOnce() -> bool,
    ) -> Waited {
        self.queue_and_suspend(Caller::Fails, Kind::Event, awaiting, deadline, ready)
    }

    /// Like `wait` for other tasks, but returns instead of unwinding if the caller is interrupted. Then the
    /// caller must make sure that what it waits for ends soon.
    pub(crate) fn try_wait_for_peers(&self, ready: impl FnOnce() -> bool) -> Waited {
        self.queue_and_suspend(Caller::Unwinds, Kind::Peer, self.awaiting(), None, ready)
    }

    /// What the waiters wait for, if nothing more is known.
    #[inline(always)]
    pub(crate) fn awaiting(&self) -> Awaiting<'_> {
        Awaiting::object(self.reason, self)
    }

    #[inline(always)]
    fn queue_and_suspend(
        &self,
        caller: Caller,
        kind: Kind,
        awaiting: Awaiting<'_>,
        deadline: Option<Deadline>,
        ready: impl FnOnce() -> bool,
    ) -> Waited {
        let node = WaitNode::new(Cell::new(None));
        // Not under the lock: for an OS thread's first wait this allocates.
        park::prepare_to_wait();
        let mut list = self.lock();
        if ready() {
            return Waited::Woken;
        }
        let wait = match Wait::begin_for(caller, kind) {
            Ok(wait) => wait,
            Err(interrupt) => return Waited::Interrupted(interrupt),
        };
        node.value.set(Some(wait.waiting()));
        // SAFETY: the node is new. It lives in this frame, which is left only after a waker has unlinked
        // the node (it was woken) or `unlink`, below, has.
        unsafe { list.0.push_back(&node) };
        drop(list);
        let unlink = UnlinkOnDrop {
            waiters: self,
            node: &node,
        };
        let waited = wait.try_suspend(awaiting, deadline);
        if let Waited::Woken = waited {
            // The waker has taken the node out of the list.
            mem::forget(unlink);
        }
        waited
    }

    /// Wakes the first waiter that can still be woken, and returns whether there was one. If there was
    /// none, calls `none` under the lock.
    pub(crate) fn wake_one(&self, none: impl FnOnce()) -> bool {
        let woken = {
            let mut list = self.lock();
            let woken = list.end_first_wait();
            if woken.is_none() {
                none();
            }
            woken
        };
        // Not under the lock, for which the woken task may come back at once.
        woken.map(Woken::schedule).is_some()
    }

    /// Wakes all current waiters.
    pub(crate) fn wake_all(&self) {
        self.wake_all_if(|| true);
    }

    /// Wakes all current waiters, if `condition` holds. It is called under the lock of this queue, so
    /// no waiter comes or goes between the answer and the wake-ups.
    pub(crate) fn wake_all_if(&self, condition: impl FnOnce() -> bool) {
        let mut list = self.lock();
        if !condition() {
            return;
        }
        let mut woken = list::List::new();
        while let Some(node) = list.pop_and_end_wait() {
            // SAFETY: the node has just been unlinked. Its wait was ended here, so it lives until its
            // task is scheduled, below.
            unsafe { woken.push_back(&*node) };
        }
        drop(list);
        // Not under the lock, for which a woken task may come back at once.
        while let Some(node) = woken.pop_front() {
            // SAFETY: the task was not scheduled yet, so the node lives.
            if let Some(waiting) = unsafe { (*node).value.get() } {
                // SAFETY: the wait was ended above, and the node is taken from the list once.
                unsafe { waiting.ended() }.schedule();
            }
        }
    }

    /// Whether no waiter is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().0.first().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, WaitList> {
        own_lock(&self.list)
    }
}

/// A place in the queue of a [`Waiters`], for a wait that can also end in other queues.
pub(crate) struct WaitPlace(WaitNode);

impl WaitPlace {
    pub(crate) fn new() -> WaitPlace {
        WaitPlace(WaitNode::new(Cell::new(None)))
    }
}

impl Waiters {
    /// Queues `place` for the caller's wait, which has begun. Does not queue it if `ready`, called under the
    /// lock of this queue, returns true. Returns whether it was queued.
    ///
    /// # Safety
    ///
    /// `place` is in no queue. It lives and does not move until [`leave`](Waiters::leave) has returned, which
    /// is called for this queue after the wait has ended. So does the waiting task.
    pub(crate) unsafe fn enqueue(
        &self,
        place: &WaitPlace,
        waiting: Waiting,
        ready: impl FnOnce() -> bool,
    ) -> bool {
        let mut list = self.lock();
        if ready() {
            return false;
        }
        place.0.value.set(Some(waiting));
        // SAFETY: the caller promises that the node is in no list, and that it lives until it has left.
        unsafe { list.0.push_back(&place.0) };
        true
    }

    /// Takes `place` out of the queue, unless a waker has. To be called after the wait has ended.
    pub(crate) fn leave(&self, place: &WaitPlace) {
        let mut list = self.lock();
        if place.0.is_linked() {
            // SAFETY: the node is linked, and the caller of `enqueue` has put it into this list only. The
            // lock is held.
            unsafe { list.0.remove(&place.0) };
        }
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

/// Unlinks a node when it is dropped, unless a waker has. For a wait that timed out or unwinds.
struct UnlinkOnDrop<'a> {
    waiters: &'a Waiters,
    node: &'a WaitNode,
}

impl Drop for UnlinkOnDrop<'_> {
    #[cold]
    fn drop(&mut self) {
        let mut list = self.waiters.lock();
        if self.node.is_linked() {
            // SAFETY: the node is linked, and is only ever put into this list. The lock is held.
            unsafe { list.0.remove(self.node) };
        }
    }
}

impl WaitList {
    pub(crate) const fn new() -> WaitList {
        WaitList(list::List::new())
    }

    /// Ends the wait of the first waiter that can still be woken; see `pop_and_end_wait`.
    fn end_first_wait(&mut self) -> Option<Woken> {
        let node = self.pop_and_end_wait()?;
        // SAFETY: the wait was ended just now, so the node lives until its task is scheduled, for which
        // the returned value is the only right.
        unsafe { Some((*node).value.get()?.ended()) }
    }

    /// Unlinks nodes from the front until the wait of one was ended here; returns that one, which lives
    /// until its task is scheduled. The others had ended otherwise.
    fn pop_and_end_wait(&mut self) -> Option<*const WaitNode> {
        loop {
            let first = self.0.pop_front()?;
            // SAFETY: the node and the frame in which its task waits live: the task needs the lock, which
            // the caller has, to leave the frame, unless its wait is ended here.
            if unsafe { (*first).value.get()?.end() }.is_some() {
                return Some(first);
            }
        }
    }
}
