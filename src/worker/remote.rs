//! A worker as other threads see it.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crossbeam_deque::Stealer;

use super::Worker;
use super::attention::Attention;
use super::census::Tally;
use super::counters::Counters;
use super::roll::Rolls;
use super::shutdown::Shutdown;
use crate::diagnose::pulse::Pulse;
use crate::reactor;
use crate::task::word::Seq;
use crate::task::{Deadline, Inbox, Link, Mail, Owner, Suspension, Task, TaskRef};

/// The part of a worker that other threads use.
pub(super) struct Remote {
    attention: Attention,
    /// The worker blocks in its poll, with nothing to run. Not so between the turns of a loop of other code, nor while
    /// the worker is about to block: it may wait for a lock then, as its allocator does.
    blocking: AtomicBool,
    /// The started coroutines that other threads have woken.
    inbox: Inbox,
    /// The other end of the worker's deque of fresh coroutines.
    fresh: Stealer<TaskRef>,
    /// How many started coroutines the worker had after its last batch.
    load: AtomicUsize,
    tally: Tally,
    /// The coroutines that the tally does not count, for `metrics`.
    uncounted: Tally,
    pulse: Arc<Pulse>,
    counters: Counters,
    rolls: Rolls,
    /// Other workers hold back, so that this one steals their fresh coroutines.
    offered: AtomicBool,
    reactor: Arc<reactor::Handle>,
    shutdown: Arc<Shutdown>,
    /// Where the worker is, for a debugger: see `gdb.py`. Null before a thread has driven it, and after its end.
    place: AtomicPtr<Worker>,
}

impl Remote {
    pub(super) fn new(
        fresh: Stealer<TaskRef>,
        reactor: Arc<reactor::Handle>,
        shutdown: Arc<Shutdown>,
    ) -> Remote {
        Remote {
            attention: Attention::new(),
            blocking: AtomicBool::new(false),
            inbox: Inbox::new(),
            fresh,
            load: AtomicUsize::new(0),
            tally: Tally::new(),
            uncounted: Tally::new(),
            pulse: Pulse::new(),
            counters: Counters::new(),
            rolls: Rolls::new(),
            offered: AtomicBool::new(false),
            reactor,
            shutdown,
            place: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Wakes the worker, if it sleeps, to look at what the caller has just changed.
    pub(super) fn kick(&self) {
        if self.attention.demand() {
            self.reactor.kick();
        }
    }

    /// Wakes the worker to search for work, if it sleeps; returns whether it slept.
    pub(super) fn kick_to_search(&self) -> bool {
        let woken = self.attention.demand_search();
        if woken {
            self.reactor.kick();
        }
        woken
    }

    /// Notes where the worker is. Nothing in this program follows the pointer.
    pub(super) fn set_place(&self, worker: *const Worker) {
        self.place.store(worker.cast_mut(), Ordering::Relaxed);
    }

    pub(super) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// Notes whether the worker blocks in its poll. Called by the worker alone.
    pub(super) fn set_blocking(&self, blocking: bool) {
        self.blocking.store(blocking, Ordering::Relaxed);
    }

    pub(super) fn has_mail(&self) -> bool {
        self.inbox.has_mail()
    }

    /// Takes the coroutines that others have woken. Called by the worker alone.
    pub(super) fn take_mail(&self) -> Mail {
        self.inbox.take()
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn set_load(&self, load: usize) {
        self.load.store(load, Ordering::Relaxed);
    }

    /// The worker's counts of coroutines, which it alone changes.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The same for the coroutines that `wait_idle` does not wait for.
    pub(super) fn uncounted(&self) -> &Tally {
        &self.uncounted
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// What the worker has counted.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks the worker to steal fresh coroutines, even while it has other work.
    pub(super) fn offer(&self) {
        self.offered.store(true, Ordering::Relaxed);
        self.kick();
    }

    pub(super) fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed)
    }

    /// The worker has found nothing to steal, or has enough coroutines.
    pub(super) fn decline(&self) {
        self.offered.store(false, Ordering::Relaxed);
    }

    /// The dumps for which the worker is asked to describe its coroutines.
    pub(super) fn rolls(&self) -> &Rolls {
        &self.rolls
    }

    pub(super) fn stealer(&self) -> &Stealer<TaskRef> {
        &self.fresh
    }
}

impl Owner for Remote {
    fn schedule_here(&self, slot: u32) -> bool {
        Worker::with_current(|worker| match worker {
            Some(worker) if worker.is(self) => {
                worker.push_ready(slot);
                true
            }
            _ => false,
        })
    }

    unsafe fn schedule(&self, link: &Link) {
        if self.reactor.is_left_in_parent() {
            // This is a forked child, which has no workers.
            return;
        }
        // SAFETY: the caller has ended the task's wait and schedules it once, so the link is in no inbox.
        // The task lives until the worker has taken the link out, because it runs only after that.
        unsafe { self.inbox.put(link) };
        self.kick();
    }

    fn runs_at_once(&self) -> bool {
        // A worker that blocks in its poll has nothing else to run. Scheduling the task wakes the worker, once.
        //
        // If the worker has queued itself for the caller's lock since it blocked, the lock of that queue makes this
        // load see it.
        self.blocking.load(Ordering::Relaxed) && self.attention.is_asleep()
    }

    fn arm(&self, slot: u32, deadline: Deadline, seq: Seq) {
        with_own_worker(|worker| worker.arm(slot, deadline, seq));
    }

    fn disarm(&self, slot: u32) {
        with_own_worker(|worker| worker.disarm(slot));
    }

    fn suspend(&self, task: &Task, seq: Seq, suspension: &Suspension, deadline: Option<Deadline>) {
        with_own_worker(|worker| worker.suspend(task, seq, suspension, deadline));
    }

    fn waits_alone(&self) -> bool {
        Worker::with_current(|worker| worker.is_some_and(Worker::waits_alone))
    }

    fn is_stopping(&self) -> bool {
        self.shutdown.is_stopping()
    }

    fn refuse_deadlock(&self, task: &Task, slot: u32) -> ! {
        with_own_worker(|worker| worker.refuse_deadlock(task, slot))
    }
}

/// Calls `f` with the worker of the calling coroutine.
fn with_own_worker<R>(f: impl FnOnce(&Worker) -> R) -> R {
    Worker::with_current(|worker| f(worker.expect("a coroutine runs on its worker")))
}
