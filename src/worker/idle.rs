//! What a worker does that has nothing to run: it steals, gives memory back, or sleeps in the poll.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::task::Deadline;

use super::{Scheduler, Worker};

/// How long an idle worker waits, after coroutines have ended, before it trims their stacks.
const COLD: Duration = Duration::from_secs(1);

/// How long a worker that has nothing to run may block.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub(super) until: Option<Deadline>,
    /// Whether it ends when the runtime is asked to stop.
    pub(super) ends_by_stop: bool,
}

impl Patience {
    /// Until something happens.
    pub(super) const ENDLESS: Patience = Patience {
        until: None,
        ends_by_stop: false,
    };

    /// Whether the worker may not block at all. To be asked after the worker has fallen asleep, so that a later
    /// request to stop wakes it.
    pub(super) fn is_over(&self, scheduler: &Scheduler) -> bool {
        self.ends_by_stop && scheduler.is_asked_to_stop()
    }
}

impl Worker {
    /// Blocks in the poll until an event or until `first`, with nothing to run meanwhile.
    ///
    /// Only polls if there is a coroutine to run. Since the caller has looked, this worker may have allocated or
    /// freed memory. The user's allocator may have woken or spawned a coroutine of this worker by that, which kicks
    /// nobody.
    pub(super) fn wait(&self, first: Option<Deadline>) {
        if !self.ready.borrow().is_empty() || !self.local.borrow().is_empty() {
            return self.poll(|reactor| reactor.turn());
        }
        self.remote.set_blocking(true);
        self.poll(|reactor| reactor.wait(first));
        self.remote.set_blocking(false);
    }

    /// Calls `wait`, which waits with nothing to run.
    pub(super) fn asleep(&self, wait: impl FnOnce()) {
        self.counts.sleeps.add(1);
        self.publish();
        self.remote.pulse().fall_asleep();
        wait();
        self.remote.pulse().wake_up();
    }

    /// Steals a fresh coroutine, or else blocks in the poll until something happens. Returns true if it has
    /// not polled, because there was something to do at once. See `sleep` for the protocol.
    pub(super) fn finds_work_instead_of_sleep(&self, patience: Patience) -> bool {
        let scheduler = &*self.scheduler;
        let fresh = match scheduler.workers.len() {
            1 => {
                self.remote.attention().fall_asleep();
                scheduler.has_fresh() && !self.placement.is_holding()
            }
            _ if self.search_or_fall_asleep() => return true,
            _ => false,
        };
        let found = self.remote.has_mail()
            || fresh
            || scheduler.is_stopping()
            || self.remote.rolls().is_asked()
            || patience.is_over(scheduler)
            || self.idlers.any();
        if !found {
            let first = self.next_deadline().into_iter().chain(patience.until);
            let first = first.min_by_key(|deadline| deadline.at);
            // The loop of other code may wake coroutines between its turns.
            let is_alone = !patience.ends_by_stop;
            self.asleep(|| match scheduler.stillness.is_on() && is_alone {
                true => {
                    let has_timer = !self.timers.borrow().is_empty();
                    self.wait_watching(first, has_timer);
                }
                false => self.wait(first),
            });
        }
        self.placement.look_again();
        self.wake_up();
        found
    }

    /// Steals a fresh coroutine and returns true, or falls asleep, with no fresh coroutine left that a pusher may have
    /// relied on this search for.
    fn search_or_fall_asleep(&self) -> bool {
        let scheduler = &*self.scheduler;
        scheduler.sleep.start_searching();
        loop {
            if self.search() {
                return true;
            }
            if !self.fresh.is_empty() && !self.placement.is_holding() {
                // A hold has just ended. The next batch starts them.
                self.give_up_search();
                return true;
            }
            self.remote.attention().fall_asleep();
            scheduler.sleep.stop_searching();
            fence(Ordering::SeqCst);
            if !scheduler.has_fresh() {
                return false;
            }
            if self.placement.is_holding() {
                scheduler.offer_to_least_loaded(&self.remote);
                return false;
            }
            // Again as a searcher, which a pusher may have counted meanwhile. This worker could also return, and
            // find the coroutine in its next turn; but its mail comes first there, and may take long.
            if !self.remote.attention().wake_up() {
                scheduler.sleep.start_searching();
            }
        }
    }

    /// When this worker has something to do, if no event comes before.
    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        let timer = self.next_timer();
        let others = [self.trim_if_cold(), self.placement.until()];
        let others = others.into_iter().flatten().map(Deadline::at);
        others.chain(timer).min_by_key(|deadline| deadline.at)
    }

    /// When this worker is to wake up for its timers.
    pub(super) fn next_timer(&self) -> Option<Deadline> {
        let set = self.reactor.borrow().alarm_at();
        self.timers.borrow_mut().alarm(set)
    }

    /// Notes that this worker looks for work by itself again.
    pub(super) fn wake_up(&self) {
        // A worker that was kicked to search counts as a searcher already: the pusher has counted it.
        if self.remote.attention().wake_up() && !self.search() {
            self.give_up_search();
        }
    }

    /// Counts this worker, which has searched in vain, as a searcher no more. Wakes another if a pusher has relied on
    /// this one since it looked.
    fn give_up_search(&self) {
        if self.scheduler.sleep.stop_searching() {
            fence(Ordering::SeqCst);
            if self.scheduler.has_fresh() {
                self.scheduler.notify();
            }
        }
    }

    /// Trims the stacks of coroutines that have ended a while ago, and the worker's tables, so that the
    /// memory of a burst is given back. Returns when to look again, or `None` if there is nothing to trim.
    /// So an idle worker wakes up only once for this.
    fn trim_if_cold(&self) -> Option<Instant> {
        let mut idle = self.idle.borrow_mut();
        if !idle.needs_trim() {
            self.trim_at.set(None);
            return None;
        }
        let now = Instant::now();
        let at = self.trim_at.get().unwrap_or(now + COLD);
        if at <= now {
            idle.trim();
            let live = self.live.borrow().len();
            self.set_room(live);
            self.live.borrow_mut().shrink_to_fit();
            self.local.borrow_mut().shrink_to_fit();
            self.timers.borrow_mut().shrink();
        }
        self.trim_at.set((at > now).then_some(at));
        self.trim_at.get()
    }
}
