//! How many coroutines a runtime has, and the callers of `wait_idle`.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use crate::park::Waiters;
use crate::task::Reason;
use crate::task::word::Kind;

/// How many coroutines were made and how many have finished. The main coroutine does not count.
///
/// Both counts only grow. Each worker has a tally that it alone changes, so that counting takes no
/// atomic read-modify-write. All other threads share one.
pub(super) struct Tally {
    entered: AtomicUsize,
    left: AtomicUsize,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            entered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        }
    }

    /// Counts a coroutine that was made. Called only by the worker that owns this tally.
    #[inline]
    pub(super) fn count_in(&self) {
        Tally::add_one(&self.entered);
    }

    /// Counts a coroutine that has finished. Called only by the worker that owns this tally.
    #[inline]
    pub(super) fn count_out(&self) {
        Tally::add_one(&self.left);
    }

    #[inline]
    fn add_one(count: &AtomicUsize) {
        let before = count.load(Ordering::Relaxed);
        count.store(before.wrapping_add(1), Ordering::Release);
    }

    /// How many coroutines were made.
    pub(super) fn made(&self) -> usize {
        self.entered.load(Ordering::Acquire)
    }

    /// How many coroutines have finished.
    pub(super) fn ended(&self) -> usize {
        self.left.load(Ordering::Acquire)
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

/// One idling coroutine, in `Census::idling`.
const ONE: u64 = 1;
/// One change of `Census::idling`, in the half of the word above the number of idling coroutines.
const CHANGE: u64 = 1 << 32;

/// The coroutines that idle, and the callers of `wait_idle` to wake when all coroutines do.
///
/// A coroutine is *live* from its spawn to its end. A live coroutine *idles* while it is in
/// `wait_idle`, or while it serves timers and none is pending. The runtime is idle when all live
/// coroutines idle.
///
/// # Idleness is reported for one moment
///
/// The numbers lie in several words, which [`is_idle`](Census::is_idle) reads one after the other. It
/// reads `idling` first and last. That word counts its own changes, too, so if both values are equal it
/// did not change in between. The number of live coroutines that is read between the two is never too
/// small. So there was a moment at which no more coroutines were live than idled. Without the second
/// look, a coroutine that sets a timer (so that its keeper idles no more) and ends, in between, would
/// seem to leave an idle runtime.
///
/// # No end of idleness is missed
///
/// ```text
/// worker: count a coroutine as finished, or as idling ; fence ; read `awaited`
/// caller: awaited += 1                                ; fence ; compare the counts, and wait
/// ```
///
/// Of the two fences one comes first. If it is the worker's, the caller sees the count. If it is the
/// caller's, the worker sees `awaited` and wakes it.
pub(super) struct Census {
    /// The coroutines that were made or ended by threads that are no worker of the runtime.
    pub(super) elsewhere: Tally,
    /// The same for the coroutines that `wait_idle` does not wait for, for `metrics`.
    pub(super) uncounted: Tally,
    /// How many coroutines have ended without having run.
    abandoned: AtomicUsize,
    /// How many coroutines idle, and how often that has changed (modulo 2^32).
    idling: AtomicU64,
    /// How many callers are in `wait_idle`, coroutines and OS threads.
    awaited: AtomicUsize,
    waiters: Waiters,
}

impl Census {
    pub(super) fn new() -> Census {
        Census {
            elsewhere: Tally::new(),
            uncounted: Tally::new(),
            abandoned: AtomicUsize::new(0),
            idling: AtomicU64::new(0),
            awaited: AtomicUsize::new(0),
            waiters: Waiters::new(Reason::Idle),
        }
    }

    /// Notes that a coroutine has ended without having run. It is counted as finished by a tally.
    pub(super) fn note_abandoned(&self) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }

    /// How many coroutines have ended without having run.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::Relaxed) as u64
    }

    /// Counts a live coroutine as idling. [`look`](Census::look) must follow.
    pub(super) fn begin_idling(&self) {
        self.idling.fetch_add(CHANGE + ONE, Ordering::SeqCst);
    }

    /// Counts a coroutine that has idled as one that has something to do.
    pub(super) fn end_idling(&self) {
        self.idling.fetch_add(CHANGE - ONE, Ordering::SeqCst);
    }

    /// Whether all live coroutines idle. `workers` are the workers' tallies.
    pub(super) fn is_idle<'a>(&'a self, workers: impl Iterator<Item = &'a Tally> + Clone) -> bool {
        let mut before = self.idling.load(Ordering::SeqCst);
        loop {
            let live = self.live(workers.clone());
            // The loads of the tallies acquire, so this one comes after them.
            let after = self.idling.load(Ordering::SeqCst);
            if before == after {
                return live as u64 <= before % CHANGE;
            }
            before = after;
        }
    }

    /// How many coroutines have not finished. Some that have just finished may count.
    ///
    /// Ends are summed first. All counts only grow, so at any moment between the two sums no more
    /// coroutines were live than the difference. The thread that counted an end had seen the count of
    /// the same coroutine's beginning. This thread acquires that with the end, so it does not see more
    /// ends than beginnings.
    fn live<'a>(&'a self, workers: impl Iterator<Item = &'a Tally> + Clone) -> usize {
        let sum = |count: fn(&Tally) -> usize| {
            let tallies = workers.clone().chain([&self.elsewhere]);
            tallies.fold(0_usize, |sum, tally| sum.wrapping_add(count(tally)))
        };
        let left = sum(Tally::ended);
        sum(Tally::made).wrapping_sub(left)
    }

    /// Wakes the callers of `wait_idle`, if `is_idle`. To be called after a coroutine was counted as
    /// finished or as idling.
    #[inline]
    pub(super) fn look(&self, is_idle: impl Fn() -> bool) {
        fence(Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) > 0 {
            self.waiters.wake_all_if(is_idle);
        }
    }

    /// Whether it seems that somebody waits. Orders nothing: [`look`](Census::look) finds out.
    #[inline]
    pub(super) fn may_be_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Parks the caller until `is_idle`. The caller must [`look`](Census::look) first, since its own
    /// wait may be what others wait for.
    pub(super) fn wait(&self, is_idle: impl Fn() -> bool) {
        self.waiters.wait(Kind::Peer, None, is_idle);
    }

    /// Notes a call of `wait_idle`. If `is_counted`, the caller is a coroutine that a tally counts. It
    /// then counts as idling during the call.
    pub(super) fn begin_wait(&self, is_counted: bool) -> IdleWait<'_> {
        self.awaited.fetch_add(1, Ordering::SeqCst);
        if is_counted {
            self.begin_idling();
        }
        IdleWait {
            census: self,
            is_counted,
        }
    }
}

/// A call of `wait_idle`, until it returns or unwinds.
pub(super) struct IdleWait<'a> {
    census: &'a Census,
    is_counted: bool,
}

impl Drop for IdleWait<'_> {
    fn drop(&mut self) {
        if self.is_counted {
            self.census.end_idling();
        }
        self.census.awaited.fetch_sub(1, Ordering::SeqCst);
    }
}
