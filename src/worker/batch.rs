//! A worker's batch: turns of coroutines, without a look at I/O and timers in between.

use std::thread;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::coroutine::Suspend;
use crate::diagnose::deny_blocking;
use crate::sys::{clock, memory};
use crate::task::{self, Role, Task, TaskRef, budget};

use super::counters::MARK;
use super::shutdown::NOTHING_UNWINDS;
use super::{Live, Worker};

/// The most that a worker runs between two looks at I/O and timers: turns of coroutines, plus their
/// operations.
pub(super) const LARGEST_BATCH: u32 = 256;

/// The size of a worker's first batches, while it does not know how long its coroutines' turns are.
pub(super) const FIRST_BATCH: u32 = 16;

/// A coroutine that yields while no other is ready gives up the processor from its third yield in a row
/// on. (After one or two yields it may be about to do what the others wait for.)
const LONE_YIELDS: u32 = 3;

/// If coroutines do nothing but yield to each other, the processor is given up once in this many
/// batches.
const IDLE_BATCHES: u32 = 16;

/// How long a batch should take at most. Bounds how late I/O and timers are looked at.
const BATCH_TIME: Duration = Duration::from_micros(500);

impl Worker {
    pub(super) fn run_next_batch(&self) {
        self.take_share();
        if self.remote.rolls().is_asked() {
            self.answer_rolls();
        }
        let full = self.run_batch(self.batch.get());
        self.adapt_batch(full);
    }

    /// Sizes the next batch by how long the last one took, if batches are full.
    fn adapt_batch(&self, full: bool) {
        if !full {
            self.batch_ended.set(None);
            return;
        }
        let now = Instant::now();
        if let Some(before) = self.batch_ended.replace(Some(now)) {
            let batch = match now - before {
                took if took < BATCH_TIME => self.batch.get() * 2,
                // The next batch is smaller by the factor by which this one was too slow.
                took => {
                    let times = u32::try_from(took.as_nanos() / BATCH_TIME.as_nanos());
                    self.batch.get() / times.unwrap_or(u32::MAX)
                }
            };
            self.batch.set(batch.clamp(1, LARGEST_BATCH));
        }
    }

    /// Runs coroutines until their turns and operations add up to `left`. Stops before if none is ready or
    /// fresh, if the only one does nothing but yield, or if the main coroutine has finished. Takes ready
    /// and fresh coroutines alternately, so that neither kind starves the other. Returns whether the batch
    /// was full.
    ///
    /// This is the only function that switches into coroutines to run them. It is never inlined, so that the code
    /// around it carries no address of a thread-local across the switch. The switch itself is inlined into
    /// the loop, because the processor mispredicts a return from a function that has switched.
    #[inline(never)]
    pub(super) fn run_batch(&self, mut left: u32) -> bool {
        self.take_mail();
        self.placement.look_again();
        // No fresh coroutine is left, so a hold is over. Otherwise the hold for coroutines that are spawned
        // later would seem to have begun already.
        if self.placement.has_held() && !self.scheduler.has_fresh() {
            self.placement.found_none();
        }
        let mut fresh_first = self.fresh_first.get();
        let mut any_finished = false;
        let turns_before = self.counts.turns.get();
        // The turns in which a coroutine has done nothing but yield.
        let mut idle_turns = 0;
        let mut lone_yields = self.lone_yields.get();
        let now = clock::coarse();
        while left > 0 && !self.leave.get() {
            // Under `panic = "abort"` all coroutines are left behind as soon as the runtime stops.
            if NOTHING_UNWINDS && self.scheduler.is_stopping() {
                break;
            }
            // Each gives its slot, and whether a fresh coroutine goes first after it. After a ready one, one does. After
            // a fresh one, one does only if no ready one has waited.
            let fresh = || {
                let slot = self.sees_fresh().then(|| self.start_fresh()).flatten()?;
                Some((slot, self.ready.borrow().is_empty()))
            };
            let ready = || self.next_ready().map(|slot| (slot, true));
            let next = match fresh_first {
                true => fresh().or_else(ready),
                false => ready().or_else(fresh),
            };
            let Some((slot, fresh_next)) = next else {
                break;
            };
            fresh_first = fresh_next;

            let mut live = self.live.borrow_mut();
            self.prefetch_next(&live);
            let Some(running) = live.get_mut(slot as usize) else {
                drop(live);
                self.end_probe();
                continue;
            };
            self.counts.turns.add(1);
            budget::refill();
            let turn = || task::enter(&running.task, || running.coroutine.resume());
            match deny_blocking::watched(&running.task, turn) {
                Suspend::Parked => {
                    running.since = now;
                    lone_yields = 0;
                }
                Suspend::Yielded => {
                    self.counts.yields.add(1);
                    let was_alone = self.push_ready(slot);
                    let is_idle = budget::spent() == 0;
                    idle_turns += u64::from(is_idle);
                    if is_idle && was_alone {
                        lone_yields += 1;
                        // Leaves the loop to give way to other threads: this coroutine would only yield
                        // again.
                        if lone_yields >= LONE_YIELDS && !self.sees_fresh() {
                            break;
                        }
                    } else {
                        lone_yields = 0;
                    }
                }
                Suspend::Finished => {
                    lone_yields = 0;
                    let finished = live.remove(slot as usize);
                    drop(live);
                    self.finish(finished);
                    any_finished = true;
                    // The coroutines that are next in the batch may take long.
                    if self.scheduler.may_be_awaited() {
                        self.scheduler.look();
                    }
                }
            }
            left = left.saturating_sub(1 + budget::spent());
        }
        self.fresh_first.set(fresh_first);
        self.remote.set_load(self.live.borrow().len());
        self.publish();
        if any_finished {
            self.scheduler.look();
        }
        let only_yields = idle_turns == self.counts.turns.get() - turns_before;
        self.give_way(lone_yields, only_yields && left == 0);
        left == 0
    }

    /// Gives up the processor if this worker's ready coroutines do nothing but yield, because a thread that
    /// they wait for may need the processor. A coroutine that is alone may yield a few times first; several
    /// coroutines may yield to each other for some batches.
    #[inline]
    fn give_way(&self, lone_yields: u32, only_yields: bool) {
        let idle_batches = if only_yields {
            self.idle_batches.get() + 1
        } else {
            0
        };
        self.idle_batches.set(idle_batches);
        let alone = lone_yields >= LONE_YIELDS;
        // If the coroutine yields alone once more, it gives way again.
        self.lone_yields
            .set(if alone { LONE_YIELDS - 1 } else { lone_yields });
        if (alone || idle_batches == IDLE_BATCHES) && !self.remote.has_mail() {
            self.idle_batches.set(0);
            thread::yield_now();
        }
    }

    /// Puts the mark into the ready queue, if its delay is to be measured now. See `counters`.
    #[inline]
    pub(super) fn begin_probe(&self) {
        let mut ready = self.ready.borrow_mut();
        if !ready.is_empty() && self.probe.begin(self.counts.polls.get()) {
            debug_assert!(ready.len() < ready.capacity(), "there is room for the mark");
            ready.push_back(MARK);
        }
    }

    /// The mark was taken out of the ready queue.
    #[cold]
    fn end_probe(&self) {
        let delay = self.probe.end().expect("only the mark has no slot");
        self.remote.counters().delays.note(delay);
    }

    fn next_ready(&self) -> Option<u32> {
        self.ready.borrow_mut().pop_front()
    }

    /// Prefetches two coroutines that will run soon: of the one that runs later, the entry in `live`, which
    /// points to its stack; of the one that runs sooner, the part of the stack that a resume touches first.
    #[inline(always)]
    fn prefetch_next(&self, live: &Slab<Live>) {
        /// All that the turns of fewer coroutines touch stays in the second-level cache.
        const MANY: usize = 256;
        const AHEAD: usize = 4;
        if live.len() < MANY {
            return;
        }
        let ready = self.ready.borrow();
        let at = |position| {
            ready
                .get(position)
                .and_then(|&slot| live.get(slot as usize))
        };
        if let Some(live) = at(3 * AHEAD) {
            memory::prefetch_all(live);
        }
        if let Some(live) = at(AHEAD) {
            live.coroutine.prefetch();
        }
    }

    /// Makes the coroutines ready that other threads have woken. Does not allocate; see `ready`.
    pub(super) fn take_mail(&self) {
        if !self.remote.has_mail() {
            return;
        }
        self.ready.borrow_mut().extend(self.remote.take_mail());
    }

    /// Pins a fresh coroutine to this worker, in a slot with a stack. Returns the slot. If there is no stack,
    /// ends the coroutine with the error, and returns `None`.
    // Inlined into `start_fresh`, its hot caller, which is none of the loop.
    #[inline(always)]
    pub(super) fn start(&self, task: TaskRef) -> Option<u32> {
        let coroutine = self.idle.borrow_mut().take(task.stack_class());
        let coroutine = match coroutine {
            Ok(coroutine) => coroutine,
            Err(error) => {
                self.scheduler.abandon(&task, Box::new(error));
                self.leave_after(&task);
                return None;
            }
        };
        self.placement.start();
        let age = self.counts.starts.get();
        self.counts.starts.add(1);
        let mut live = self.live.borrow_mut();
        let vacant = live.vacant_entry();
        let slot = u32::try_from(vacant.key()).expect("fewer than 2^32 coroutines");
        // SAFETY: the task comes from a queue of fresh coroutines, so it is pinned once, before it runs.
        // `owner` lies in a box that is dropped after all coroutines which started here have ended,
        // and is leaked if one of them never ends.
        unsafe { task.pin(&self.owner, slot) };
        vacant.insert(Live {
            task,
            coroutine,
            age,
            since: 0,
        });
        if live.len() >= self.ready.borrow().capacity() {
            self.set_room(2 * live.len());
        }
        Some(slot)
    }

    /// Ends a coroutine that has run its task. Its stack is kept for the next task.
    pub(super) fn finish(&self, finished: Live) {
        let Live {
            task, coroutine, ..
        } = finished;
        let right = task.take_reservation();
        let right = right.expect("a task has its right to a stack until it has finished");
        self.idle.borrow_mut().put(coroutine, right);
        self.count_out(&task);
        self.leave_after(&task);
    }

    /// Has the loop return if `task`, which has ended, is the main coroutine. Where the runtime stops, the others
    /// must end, too.
    fn leave_after(&self, task: &Task) {
        if task.role() == Role::Main && !self.scheduler.is_stopping() {
            self.leave.set(true);
        }
    }
}
