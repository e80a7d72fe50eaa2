//! Waiting until a group of tasks is done.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::park::{self, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Reason};

/// Waits until all members of a group are done. Each clone is a member; dropping it says that it is done.
///
/// ```
/// use greenroom::sync::WaitGroup;
///
/// greenroom::run(|| {
///     let group = WaitGroup::new();
///     for _ in 0..3 {
///         let member = group.clone();
///         greenroom::spawn(move || {
///             greenroom::yield_now(); // some work
///             drop(member);
///         });
///     }
///     group.wait();
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points.
pub struct WaitGroup {
    group: Arc<Group>,
}

struct Group {
    /// The members that are not done.
    members: AtomicUsize,
    waiters: Waiters,
}

impl WaitGroup {
    /// Makes a group with one member, which is the returned handle.
    #[must_use]
    pub fn new() -> WaitGroup {
        let group = Group {
            members: AtomicUsize::new(1),
            waiters: Waiters::new(Reason::WaitGroup),
        };
        WaitGroup {
            group: Arc::new(group),
        }
    }

    /// How many members are not done, this handle among them.
    pub fn members(&self) -> usize {
        self.group.members.load(Ordering::Acquire)
    }

    /// Says that this member is done, and waits until all others are.
    ///
    /// What a member did before it was done happens before this returns.
    pub fn wait(self) {
        self.wait_until(|| None);
    }

    /// Like [`wait`](WaitGroup::wait), for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If some member was not done in time. The error is a handle with which to go on.
    pub fn wait_timeout(self, timeout: Duration) -> Result<(), WaitGroup> {
        self.wait_until(|| Deadline::after(timeout))
            .map_or(Ok(()), Err)
    }

    /// Like [`wait`](WaitGroup::wait), until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// If some member was not done in time. The error is a handle with which to go on.
    pub fn wait_deadline(self, deadline: Instant) -> Result<(), WaitGroup> {
        self.wait_until(|| Some(Deadline::at(deadline)))
            .map_or(Ok(()), Err)
    }

    /// Returns a new handle if the deadline has passed first.
    fn wait_until(self, deadline: impl FnOnce() -> Option<Deadline>) -> Option<WaitGroup> {
        let group = Arc::clone(&self.group);
        drop(self);
        park::spend_operation();
        let are_done = || group.members.load(Ordering::Acquire) == 0;
        if are_done() {
            return None;
        }
        match group.waiters.wait(Kind::Peer, deadline(), are_done) {
            Outcome::TimedOut => WaitGroup::join(group),
            Outcome::Woken | Outcome::Interrupted => None,
        }
    }

    /// A new member, unless all members are done. Then nobody can join any more.
    fn join(group: Arc<Group>) -> Option<WaitGroup> {
        let one_more = |members: usize| (members > 0).then_some(members + 1);
        let joined = group
            .members
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        // Made only if it was counted, since its drop counts, too.
        joined.is_ok().then(|| WaitGroup { group })
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl Clone for WaitGroup {
    fn clone(&self) -> WaitGroup {
        // This member is not done, so the count cannot reach zero meanwhile.
        self.group.members.fetch_add(1, Ordering::Relaxed);
        WaitGroup {
            group: Arc::clone(&self.group),
        }
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        if self.group.members.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.waiters.wake_all();
        }
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup")
            .field("members", &self.members())
            .finish()
    }
}
