//! The fresh coroutines of a worker: queues and stealing.
//!
//! A fresh coroutine has not run yet. It waits in one of three queues:
//!
//! - the deque `fresh` of the worker that spawned it, from which other workers steal;
//! - the queue `local` of that worker, if it must run there (`spawn_local`), or if the runtime has
//!   no other worker;
//! - the runtime's injector, if the thread that spawned it is no worker of the runtime.
#![forbid(unsafe_code)]

use std::time::Instant;

use crossbeam_deque::Steal;

use super::Worker;
use crate::task::{self, TaskRef};

impl Worker {
    /// Queues a fresh coroutine that any worker may start.
    #[inline]
    pub(super) fn push_fresh(&self, task: TaskRef) {
        if self.scheduler.workers.len() == 1 {
            // Nobody can steal it, and the plain queue is cheaper than the deque.
            self.push_local(task);
        } else {
            task::aside(|| self.fresh.push(task));
            self.scheduler.notify();
        }
    }

    /// Queues a fresh coroutine that must run on this thread.
    pub(crate) fn spawn_local(&self, task: TaskRef) {
        self.count_in(&task);
        self.push_local(task);
    }

    #[inline]
    fn push_local(&self, task: TaskRef) {
        task::aside(|| self.local.borrow_mut().push_back(task));
    }

    /// Whether there is a fresh coroutine that this worker need not steal.
    #[inline]
    pub(super) fn sees_fresh(&self) -> bool {
        !self.local.borrow().is_empty()
            || !self.fresh.is_empty()
            || !self.scheduler.injector.is_empty()
    }

    /// Starts a fresh coroutine and returns its slot. Takes local ones and those of any worker in
    /// turn, so that neither kind starves the other.
    // Not inlined into the loop of `run_batch`, where most turns have nothing fresh to start.
    #[inline(never)]
    pub(super) fn start_fresh(&self) -> Option<u32> {
        loop {
            // This number grows by one with each start.
            let local_first = self.starts().is_multiple_of(2);
            let task = match local_first {
                true => self.next_local().or_else(|| self.next_fresh()),
                false => self.next_fresh().or_else(|| self.next_local()),
            };
            if let Some(slot) = self.start(task?) {
                return Some(slot);
            }
        }
    }

    #[inline]
    pub(super) fn next_local(&self) -> Option<TaskRef> {
        self.local.borrow_mut().pop_front()
    }

    #[inline]
    pub(super) fn next_fresh(&self) -> Option<TaskRef> {
        if self.holds_back() {
            return None;
        }
        let own = || self.fresh.pop();
        // Now and then the injector comes first. Otherwise coroutines here that spawn without end
        // would keep those of other threads from starting. Two starts of 64, because `start_fresh` may
        // take a local coroutine at one of them.
        match self.starts() % 64 < 2 {
            true => self.scheduler.take_injected().or_else(own),
            false => own().or_else(|| self.scheduler.take_injected()),
        }
    }

    /// Whether to leave fresh coroutines to workers that have fewer coroutines; see `placement`.
    #[inline]
    fn holds_back(&self) -> bool {
        let live = self.live.borrow().len();
        self.placement.must_look(live) && (self.placement.is_holding() || self.hold_back(live))
    }

    /// Compares this worker, which has `live` coroutines, with the one that has the fewest. Returns whether
    /// to leave fresh coroutines to that worker, and then asks it to steal them.
    #[cold]
    fn hold_back(&self, live: usize) -> bool {
        // The other workers may have left already.
        if self.scheduler.is_stopping() {
            return false;
        }
        if !self.scheduler.has_fresh() {
            self.placement.found_none();
            return false;
        }
        let Some(least) = self.scheduler.least_loaded(&self.remote) else {
            return false;
        };
        let least_has = (least.load(), least.attention().is_idle());
        let hold = self.placement.hold_back(live, least_has, Instant::now);
        if hold {
            least.offer();
        }
        hold
    }

    /// If another worker holds back, steals a fresh coroutine and starts it, even though this worker has
    /// other work.
    pub(super) fn take_share(&self) {
        if !self.remote.is_offered() || !self.fresh.is_empty() {
            return;
        }
        let task = (!self.holds_back()).then(|| self.steal()).flatten();
        match task {
            Some(task) => {
                // While others were on their way here, a searcher may have looked for them, and sleeps now.
                if !self.fresh.is_empty() {
                    self.scheduler.notify();
                }
                self.start_stolen(task);
            }
            None => self.remote.decline(),
        }
    }

    /// Steals a fresh coroutine and starts it; returns whether it found one. The caller counts as a
    /// searcher before the call. After a call that returns true it no longer does.
    pub(super) fn search(&self) -> bool {
        if self.holds_back() {
            return false;
        }
        let Some(task) = self.steal() else {
            return false;
        };
        if self.scheduler.sleep.stop_searching() && self.scheduler.has_fresh() {
            self.scheduler.notify();
        }
        self.start_stolen(task);
        true
    }

    /// How many coroutines have started here.
    #[inline]
    fn starts(&self) -> u64 {
        self.counts.starts.get()
    }

    fn start_stolen(&self, task: TaskRef) {
        if let Some(slot) = self.start(task) {
            self.push_ready(slot);
        }
    }

    /// Steals fresh coroutines from the injector or else from another worker. Returns one of them, and puts
    /// the rest into this worker's deque. `None` only if all these queues were seen empty.
    fn steal(&self) -> Option<TaskRef> {
        loop {
            let mut contended = false;
            let mut take = |steal: Steal<TaskRef>| match steal {
                Steal::Success(task) => Some(task),
                Steal::Empty => None,
                Steal::Retry => {
                    contended = true;
                    None
                }
            };
            if let Some(task) = take(self.scheduler.injector.steal_batch_and_pop(&self.fresh)) {
                return Some(task);
            }
            for other in &self.scheduler.workers {
                if self.is(other) {
                    continue;
                }
                let before = self.fresh.len();
                if let Some(task) = take(other.stealer().steal_batch_and_pop(&self.fresh)) {
                    let more = self.fresh.len().saturating_sub(before);
                    self.counts.steals.add(1 + more as u64);
                    return Some(task);
                }
            }
            if !contended {
                return None;
            }
        }
    }
}
