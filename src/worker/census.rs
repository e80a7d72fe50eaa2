//! How many coroutines a runtime has, and the callers of `wait_idle`.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::park::Waiters;
use crate::task::word::Kind;
use crate::task::{Role, TaskRef};

/// How many coroutines were made and how many have finished. The main coroutine does not count.
///
/// Both counts only grow. Each worker has a tally that it alone changes, so that counting takes no
/// atomic read-modify-write. All other threads share one.
#[derive(Default)]
pub(super) struct Tally {
    entered: AtomicUsize,
    left: AtomicUsize,
}

impl Tally {
    /// Whether a tally counts `task`.
    pub(super) fn counts(task: &TaskRef) -> bool {
        matches!(task.role(), Role::Spawned | Role::Local)
    }

    /// Counts a coroutine that was made. Called only by the worker that owns this tally.
    pub(super) fn count_in(&self) {
        Tally::add_one(&self.entered);
    }

    /// Counts a coroutine that has finished. Called only by the worker that owns this tally.
    pub(super) fn count_out(&self) {
        Tally::add_one(&self.left);
    }

    fn add_one(count: &AtomicUsize) {
        let before = count.load(Ordering::Relaxed);
        count.store(before.wrapping_add(1), Ordering::Release);
    }

    /// Counts a coroutine that was made. From any thread, if no worker owns this tally.
    pub(super) fn count_in_shared(&self) {
        self.entered.fetch_add(1, Ordering::Release);
    }

    /// Counts a coroutine that has finished. From any thread, if no worker owns this tally.
    pub(super) fn count_out_shared(&self) {
        self.left.fetch_add(1, Ordering::Release);
    }
}

/// The coroutines that wait for idleness, and the callers to wake when it has come.
///
/// # No end of idleness is missed
///
/// ```text
/// worker: count the coroutine out ; fence ; read `awaited`
/// caller: awaited += 1            ; fence ; count the coroutines, and wait
/// ```
///
/// Of the two fences one comes first. If it is the worker's, the caller counts the coroutine as
/// finished. If it is the caller's, the worker sees `awaited` and wakes it.
pub(super) struct Census {
    /// The coroutines that were made or ended by threads that are no worker of the runtime.
    pub(super) elsewhere: Tally,
    /// How many counted coroutines are in `wait_idle`.
    idling: AtomicUsize,
    /// How many callers are in `wait_idle`, coroutines and OS threads.
    awaited: AtomicUsize,
    waiters: Waiters,
}

impl Census {
    pub(super) fn new() -> Census {
        Census {
            elsewhere: Tally::default(),
            idling: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            waiters: Waiters::new(),
        }
    }

    /// Whether all coroutines but those in `wait_idle` have finished. `workers` are the workers'
    /// tallies.
    pub(super) fn is_idle<'a>(&'a self, workers: impl Iterator<Item = &'a Tally> + Clone) -> bool {
        self.live(workers) <= self.idling.load(Ordering::SeqCst)
    }

    /// How many coroutines have not finished. Some that have just finished may count.
    fn live<'a>(&'a self, workers: impl Iterator<Item = &'a Tally> + Clone) -> usize {
        let sum = |count: fn(&Tally) -> &AtomicUsize| {
            let tallies = workers.clone().chain([&self.elsewhere]);
            tallies.fold(0_usize, |sum, tally| {
                sum.wrapping_add(count(tally).load(Ordering::Acquire))
            })
        };
        // Ends are summed first. Whoever counts an end has seen the count of its beginning, and so
        // does this thread. So the difference is never too small, and it is exact if nothing was
        // counted in between.
        let left = sum(|tally| &tally.left);
        sum(|tally| &tally.entered).wrapping_sub(left)
    }

    /// Wakes the callers of `wait_idle`, if `is_idle`. To be called after a coroutine was counted
    /// out.
    pub(super) fn look(&self, is_idle: impl Fn() -> bool) {
        fence(Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) > 0 {
            self.waiters.wake_all_if(is_idle);
        }
    }

    /// Parks the caller until `is_idle`. The caller must [`look`](Census::look) first, since its own
    /// wait may be what others wait for.
    pub(super) fn wait(&self, is_idle: impl Fn() -> bool) {
        self.waiters.wait(Kind::Peer, None, is_idle);
    }

    /// Notes a call of `wait_idle`, by a coroutine that tallies count if `is_counted`.
    pub(super) fn begin_wait(&self, is_counted: bool) -> IdleWait<'_> {
        let counted = usize::from(is_counted);
        self.idling.fetch_add(counted, Ordering::SeqCst);
        self.awaited.fetch_add(1, Ordering::SeqCst);
        IdleWait {
            census: self,
            counted,
        }
    }
}

/// A call of `wait_idle`, until it returns or unwinds.
pub(super) struct IdleWait<'a> {
    census: &'a Census,
    counted: usize,
}

impl Drop for IdleWait<'_> {
    fn drop(&mut self) {
        self.census.awaited.fetch_sub(1, Ordering::SeqCst);
        self.census.idling.fetch_sub(self.counted, Ordering::SeqCst);
    }
}
