//! Waiting for the first of several things.
//!
//! Each of them is an [`Arm`]: a message to receive, room for one to send, a coroutine to join. All arms wait
//! by one [`Wait`]: the waiter queues a node for each arm, all with the same sequence number.
//!
//! ```text
//! waiter: try each arm; one could be completed -> return
//!         begin a wait
//!         queue each arm, unless it could be completed by now: then end the wait
//!         suspend
//!         take each arm out of its queue; a waker has completed one -> return
//!         again
//! waker:  as for a wait for one thing: end the wait; complete the operation; schedule the task
//! ```
//!
//! *At most one arm is completed.* The task that ends the wait completes its arm, and the wait ends once (see
//! `task/word.rs`). A waker that finds the wait ended has no effect, and passes over the node. Before the
//! wait has begun and after it has ended, only the waiter completes arms. While it lasts, the waiter completes
//! none: if it finds that an arm could be completed, it ends the wait, and if it was the one that has ended it,
//! no waker has completed anything. Then it tries again from the beginning.
//!
//! *No wake-up is lost.* An arm looks and queues in one step, under the lock that its wakers take. So the
//! waiter sees the change, or the waker sees the node.
//!
//! *Nothing is left behind.* All arms are taken out of their queues when the wait has ended, also by an
//! unwind.
//!
//! *Two waiters that find each other queued end their waits, and try again.* Each goes through its arms in an
//! order that it has chosen at random, so it is most unlikely that they go on so for long.

use std::cell::Cell;

use crate::park::{self, Wait};
use crate::task::word::{Kind, Outcome};
use crate::task::{Awaited, Awaiting, Awaits, Deadline, Reason, Waiting};

/// One of several things to wait for.
///
/// # Safety
///
/// `enqueue` is called after `prepare`, for a wait that has begun. If it returns true, `leave` is called
/// after that wait has ended, and once. In between, the arm and the waiting task live and do not move, and
/// nothing else is called. The implementation may rely on that.
pub(crate) trait Arm {
    /// Completes the operation, if that is possible without waiting. Returns whether it has.
    fn try_complete(&self) -> bool;

    /// Makes ready for `enqueue`. May allocate and run code of the user's.
    fn prepare(&self) {}

    /// Queues the caller, whose wait is `waiting`, unless the operation could be completed by now. Returns
    /// whether it is queued. Allocates nothing.
    ///
    /// # Safety
    ///
    /// See [`Arm`].
    unsafe fn enqueue(&self, waiting: Waiting) -> bool;

    /// Takes the caller out of the queue. Returns whether a waker has completed the operation.
    fn leave(&self) -> bool;

    /// Describes what the arm waits for: see [`Awaited::describe`].
    fn describe(&self) -> Awaits;
}

/// The things to wait for.
pub(crate) trait Arms {
    fn len(&self) -> usize;

    /// The arm of that index; `None` if it is to be ignored. Stays the same while arms are queued.
    fn arm(&self, index: usize) -> Option<&dyn Arm>;

    /// How to wait, if no arm can be completed at once.
    fn patience(&self) -> Patience;
}

/// How to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// By a wait of that kind, and until the deadline; `None` is without limit.
    Until(Kind, Option<Deadline>),
}

/// Tries the arms, and waits until one is completed, if there is patience for that. Returns the index of that
/// arm; `None` if the deadline has passed before.
///
/// `order` has the index of each arm once, and is shuffled. `below` returns a random number below its argument. So
/// of several arms that can be completed without waiting, each is as likely as the others.
///
/// # Unwinding
///
/// If the caller is interrupted, and the kind of the wait allows it. Then no arm is completed.
pub(crate) fn wait_for_one(
    arms: &(impl Arms + ?Sized),
    order: &mut [usize],
    mut below: impl FnMut(usize) -> usize,
) -> Option<usize> {
    for step in 0..order.len() {
        // The shuffle of Fisher and Yates, as far as it is needed.
        order.swap(step, step + below(order.len() - step));
        if arms.arm(order[step]).is_some_and(Arm::try_complete) {
            return Some(order[step]);
        }
    }
    wait(arms, order)
}

#[inline(never)]
fn wait(arms: &(impl Arms + ?Sized), order: &[usize]) -> Option<usize> {
    let Patience::Until(kind, deadline) = arms.patience() else {
        return None;
    };
    loop {
        let all = (0..arms.len()).filter_map(|index| arms.arm(index));
        all.for_each(Arm::prepare);
        // May allocate, for an OS thread's first wait.
        park::prepare_to_wait();
        let wait = Wait::begin(kind);
        // From here to the suspension nothing is allocated, since the allocator may wait.
        let queued = Queued {
            arms,
            order,
            count: Cell::new(0),
        };
        // SAFETY: `leave`, below, is called before the arms are used otherwise, also if the suspension
        // unwinds. The arms are borrowed until then, and the caller is the waiting task.
        if !unsafe { queued.enqueue(wait.waiting()) } {
            // If a waker was faster, this has no effect.
            wait.end();
        }
        let waited = wait.try_suspend(Awaiting::Described(&queued), deadline);
        if let Some(completed) = queued.leave() {
            return Some(completed);
        }
        let outcome = waited.or_unwind();
        // After the deadline, it may have become possible at the last moment.
        let completed = try_all(arms, order);
        if completed.is_some() || outcome == Outcome::TimedOut {
            return completed;
        }
    }
}

fn try_all(arms: &(impl Arms + ?Sized), order: &[usize]) -> Option<usize> {
    let mut order = order.iter().copied();
    order.find(|&index| arms.arm(index).is_some_and(Arm::try_complete))
}

/// The arms that are queued: so many of them, in their order. Takes them out when dropped.
struct Queued<'a, A: Arms + ?Sized> {
    arms: &'a A,
    order: &'a [usize],
    count: Cell<usize>,
}

impl<A: Arms + ?Sized> Queued<'_, A> {
    /// Queues all arms. Returns false if the operation of one could be completed; then some are not queued.
    ///
    /// # Safety
    ///
    /// See [`Arm`].
    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        self.order.iter().all(|&index| {
            let arm = self.arms.arm(index);
            // SAFETY: the caller promises what `enqueue` demands.
            let queued = arm.is_none_or(|arm| unsafe { arm.enqueue(waiting) });
            if queued {
                self.count.update(|count| count + 1);
            }
            queued
        })
    }

    /// Takes all arms out of their queues. Returns the one that a waker has completed, if any.
    fn leave(&self) -> Option<usize> {
        let mut completed = None;
        for &index in &self.order[..self.count.replace(0)] {
            if self.arms.arm(index).is_some_and(Arm::leave) {
                completed = Some(index);
            }
        }
        completed
    }
}

impl<A: Arms + ?Sized> Awaited for Queued<'_, A> {
    fn describe(&self) -> Awaits {
        let arms = (0..self.arms.len()).filter_map(|index| self.arms.arm(index));
        Awaits {
            arms: arms.map(Arm::describe).collect(),
            ..Awaits::new(Reason::Select)
        }
    }
}

impl<A: Arms + ?Sized> Drop for Queued<'_, A> {
    fn drop(&mut self) {
        self.leave();
    }
}
