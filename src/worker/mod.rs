//! Workers: the loop that runs coroutines, and what the workers of a runtime share.
//!
//! A worker is an OS thread that runs coroutines. It owns the coroutines that it has started for good:
//! only coroutines that have never run are stolen. So all that lives on a started coroutine's stack
//! stays on one thread.
//!
//! - `mod` (this file): the loop, a worker's turn, and the switch into a coroutine;
//! - `fresh`: queues of fresh coroutines, and stealing; `placement`: which worker starts them;
//! - `remote`: what other threads use of a worker; `attention` and `sleep`: when to wake it;
//! - `scheduler`: what the workers share; `census`: how many coroutines there are;
//! - `counters`: what a worker counts; `metrics`: all of that, for the program;
//! - `roll`: what a worker's coroutines do, for a dump;
//! - `stillness`: finding out that no coroutine can run any more;
//! - `outside`: a worker that the loop of other code drives; `idlers`: what runs if nothing else does;
//! - `hooks`: code of the user's that the loop and the end of the runtime call;
//! - `alone`: waits of a coroutine that unwinds; `shutdown`: the end of a runtime.

mod alone;
mod attention;
mod census;
mod counters;
mod fresh;
mod hooks;
mod idlers;
pub(crate) mod metrics;
mod outside;
mod placement;
mod remote;
mod roll;
mod scheduler;
mod shutdown;
mod sleep;
mod stillness;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::coroutine::{
    self, Class, Coroutine, CoroutinePool, Reservation, Suspend, overflow,
    perf_map::{self, NamedFunction},
};
use crate::diagnose::deny_blocking;
use crate::fatal;
use crate::park::Cancelled;
use crate::reactor::{self, Reactor};
use crate::sys::{clock, memory};
use crate::task::word::{Outcome, Seq};
use crate::task::{
    self, Deadline, Description, Owner, Role, Suspended, Suspension, Task, TaskRef, WorkerNumber,
    budget,
};
use crate::time::Timers;
use census::Tally;
use counters::{Counts, MARK, Probe};
use idlers::Idlers;
use outside::Outside;
use placement::Placement;
use remote::Remote;
use roll::Answering;
use scheduler::is_counted;
use shutdown::{NOTHING_UNWINDS, Shutdown};

pub(crate) use hooks::PollHooks;
pub use idlers::yield_until_idle;
pub(crate) use roll::{Activity, Answer, Entry, Started, Trace, Traces, Wanted};
pub(crate) use scheduler::{Scheduler, set_up_stealing};
pub(crate) use shutdown::PAUSE;
pub(crate) use stillness::OnDeadlock;
pub use stillness::{Deadlock, Deadlocked};

/// The most that a worker runs between two looks at I/O and timers: turns of coroutines, plus their
/// operations.
const LARGEST_BATCH: u32 = 256;

/// The size of a worker's first batches, while it does not know how long its coroutines' turns are.
const FIRST_BATCH: u32 = 16;

/// How long a batch should take at most. Bounds how late I/O and timers are looked at.
const BATCH_TIME: Duration = Duration::from_micros(500);

/// A coroutine that yields while no other is ready gives up the processor from its third yield in a row
/// on. (After one or two yields it may be about to do what the others wait for.)
const LONE_YIELDS: u32 = 3;

/// If coroutines do nothing but yield to each other, the processor is given up once in this many
/// batches.
const IDLE_BATCHES: u32 = 16;

/// How long an idle worker waits, after coroutines have ended, before it trims their stacks.
const COLD: Duration = Duration::from_secs(1);

/// What a worker is made from, on the thread that will drive it.
pub(crate) struct Parts {
    remote: Arc<Remote>,
    fresh: crossbeam_deque::Worker<TaskRef>,
    reactor: Reactor,
}

impl Parts {
    fn new(shutdown: &Arc<Shutdown>) -> io::Result<Parts> {
        let fresh = crossbeam_deque::Worker::new_fifo();
        let reactor = Reactor::new()?;
        let handle = Arc::clone(reactor.handle());
        let remote = Remote::new(fresh.stealer(), handle, Arc::clone(shutdown));
        let remote = Arc::new(remote);
        Ok(Parts {
            remote,
            fresh,
            reactor,
        })
    }

    /// Says that a thread is about to drive this worker, so that others count on it already.
    pub(crate) fn announce(&self) {
        self.remote.attention().announce();
    }
}

/// One OS thread's part of a runtime. It never leaves the thread that made it.
pub(crate) struct Worker {
    scheduler: Arc<Scheduler>,
    remote: Arc<Remote>,
    /// `remote` once more, at a fixed address for coroutines to point to. Leaked if a coroutine is left
    /// behind that points to it.
    owner: ManuallyDrop<Box<Arc<dyn Owner>>>,
    /// The number by which locks know the holders among this worker's coroutines.
    number: WorkerNumber,
    /// Whether started coroutines were left behind.
    leaves_some: Cell<bool>,
    /// Fresh coroutines that other workers may steal.
    fresh: crossbeam_deque::Worker<TaskRef>,
    /// Fresh coroutines that must run here.
    local: RefCell<VecDeque<TaskRef>>,
    placement: Placement,
    /// The slots of the started coroutines that are ready, and the mark of the probe. Each is in the queue at
    /// most once. The queue has room for all started coroutines and the mark, so that a wake never allocates:
    /// the waker may be the allocator itself.
    ready: RefCell<VecDeque<u32>>,
    /// The started coroutines, by slot. Mutably borrowed while one of them runs, so nothing that a
    /// coroutine can call may touch it.
    live: RefCell<Slab<Live>>,
    counts: Counts,
    probe: Probe,
    timers: RefCell<Timers>,
    idlers: Idlers,
    reactor: RefCell<Reactor>,
    /// Coroutines without a task, on their stacks, for the next tasks.
    idle: RefCell<CoroutinePool>,
    /// The size of the next batch; see `LARGEST_BATCH`.
    batch: Cell<u32>,
    /// When the last batch ended, if it was full.
    batch_ended: Cell<Option<Instant>>,
    /// Whether the next fresh coroutine goes before the next ready one. They take turns, also across batches:
    /// in batches of one turn, ready coroutines would starve fresh ones otherwise.
    fresh_first: Cell<bool>,
    /// How often in a row one coroutine has just yielded while no other was ready.
    lone_yields: Cell<u32>,
    /// In how many batches in a row all coroutines have done nothing but yield.
    idle_batches: Cell<u32>,
    /// When to trim the stacks of ended coroutines.
    trim_at: Cell<Option<Instant>>,
    /// The rolls that this worker answers, the first one at the moment.
    answering: RefCell<Vec<Answering>>,
    /// The main coroutine has finished, so the loop must return.
    leave: Cell<bool>,
    /// The remaining coroutines have been interrupted, for the end of the runtime.
    has_ended: Cell<bool>,
    /// What is expected of this worker while no thread drives it. See `outside`.
    outside: Cell<Outside>,
}

/// A started coroutine.
struct Live {
    task: TaskRef,
    coroutine: Coroutine,
    /// How many coroutines had started on this worker before.
    age: u64,
    /// When the batch began in which the coroutine has parked last, by [`clock::coarse`]. Zero before that.
    since: u64,
}

impl Live {
    /// Prefetches what a wake of the coroutine writes, and the frames that it goes on with.
    fn prefetch(&self) {
        self.task.prefetch();
        self.coroutine.prefetch_frames();
    }
}

thread_local! {
    /// The worker that this thread drives.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

impl Worker {
    pub(crate) fn new(scheduler: Arc<Scheduler>, parts: Parts) -> Worker {
        Worker {
            placement: Placement::new(scheduler.workers.len()),
            scheduler,
            owner: ManuallyDrop::new(Box::new(Arc::<Remote>::clone(&parts.remote))),
            number: WorkerNumber::take(),
            leaves_some: Cell::new(false),
            remote: parts.remote,
            fresh: parts.fresh,
            local: RefCell::default(),
            ready: RefCell::default(),
            live: RefCell::default(),
            counts: Counts::default(),
            probe: Probe::default(),
            timers: RefCell::new(Timers::new()),
            idlers: Idlers::new(),
            reactor: RefCell::new(parts.reactor),
            idle: RefCell::new(CoroutinePool::new(run_task)),
            batch: Cell::new(FIRST_BATCH),
            batch_ended: Cell::new(None),
            fresh_first: Cell::new(true),
            lone_yields: Cell::new(0),
            idle_batches: Cell::new(0),
            trim_at: Cell::new(None),
            answering: RefCell::default(),
            leave: Cell::new(false),
            has_ended: Cell::new(false),
            outside: Cell::new(Outside::Away),
        }
    }

    /// Calls `f` with the worker that the calling thread drives.
    #[inline]
    pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Worker>) -> R) -> R {
        // SAFETY: `Driving` has set the pointer, on this thread, to a worker that it borrows, and clears
        // it before the borrow ends. `f` may suspend and outlast that borrow only on a coroutine that
        // this worker has started. The worker neither moves nor is dropped before that coroutine has
        // ended or can never go on: `Runtime` keeps it in an allocation of its own and drops it last.
        f(unsafe { CURRENT.get().as_ref() })
    }

    /// Reserves a stack of `class` for one more coroutine.
    ///
    /// # Errors
    ///
    /// See [`Class::reserve`].
    #[inline]
    fn reserve_stack(&self, class: &'static Class) -> io::Result<Reservation> {
        self.idle.borrow_mut().reserve(class)
    }

    /// Whether the calling thread drives a worker. The caller may be a coroutine or the worker's loop.
    pub(crate) fn is_driven_here() -> bool {
        !CURRENT.get().is_null()
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.scheduler
    }

    fn tally(&self) -> &Tally {
        self.remote.tally()
    }

    fn is(&self, remote: &Remote) -> bool {
        ptr::eq(&*self.remote, remote)
    }

    /// The number of this worker in its runtime.
    fn index(&self) -> usize {
        let mut workers = self.scheduler.workers.iter();
        let index = workers.position(|remote| self.is(remote));
        index.expect("its scheduler has all workers")
    }

    /// Queues the started coroutine in `slot`, which is to run again. Returns whether no other was ready.
    #[inline]
    fn push_ready(&self, slot: u32) -> bool {
        let mut ready = self.ready.borrow_mut();
        debug_assert!(ready.len() < ready.capacity(), "there is room for all");
        let was_empty = ready.is_empty();
        ready.push_back(slot);
        was_empty
    }

    /// Gives the ready queue room for `count` slots, and not for many more. Allocates and frees while the
    /// queue is not borrowed, because the allocator may wake coroutines of this worker.
    #[cold]
    fn set_room(&self, count: usize) {
        // The mark of the probe takes one place.
        let mut queue = VecDeque::with_capacity(1 + count.max(LARGEST_BATCH as usize));
        let mut ready = self.ready.borrow_mut();
        queue.extend(ready.drain(..));
        let before = mem::replace(&mut *ready, queue);
        drop(ready);
        drop(before);
    }

    /// Counts a coroutine that was made here. Called before the coroutine is in a queue.
    #[inline]
    fn count_in(&self, task: &TaskRef) {
        match is_counted(task) {
            true => self.tally().count_in(),
            false => self.remote.uncounted().count_in(),
        }
    }

    /// Counts a coroutine that has ended here. The caller must then call [`look`](Scheduler::look).
    #[inline]
    fn count_out(&self, task: &TaskRef) {
        match is_counted(task) {
            true => self.tally().count_out(),
            false => self.remote.uncounted().count_out(),
        }
    }

    /// Runs coroutines on the calling thread until a main coroutine has finished. If the runtime stops before
    /// that, ends all coroutines of this worker, and returns false: the main coroutine may have been left behind.
    pub(crate) fn drive_main(&self) -> bool {
        let _driving = Driving::new(self);
        self.leave.set(false);
        while !self.leave.get() {
            if self.scheduler.is_stopping() {
                self.end();
                return false;
            }
            self.turn();
        }
        true
    }

    /// Runs coroutines on the calling thread until the runtime stops, then ends the remaining ones. Returns
    /// whether started coroutines were left behind; see `shutdown::ending`.
    pub(crate) fn drive_until_stopped(&self) -> bool {
        let _driving = Driving::new(self);
        self.leave.set(false);
        while !self.scheduler.is_stopping() {
            self.turn();
        }
        self.end()
    }

    /// Runs a batch of coroutines, then looks at I/O, then at timers. Blocks in the poll if there is
    /// nothing to run.
    ///
    /// Each turn looks at I/O exactly once, whatever it finds to run. I/O comes before timers, so that an
    /// event which came before a deadline is seen before the deadline.
    fn turn(&self) {
        self.run_next_batch();
        if !self.leave.get() {
            self.look(Patience::ENDLESS);
        }
    }

    fn run_next_batch(&self) {
        self.take_share();
        if self.remote.rolls().is_asked() {
            self.answer_rolls();
        }
        let full = self.run_batch(self.batch.get());
        self.adapt_batch(full);
    }

    /// Looks at I/O, then at timers. Blocks in the poll, as long as `patience` says, if there is nothing to run.
    fn look(&self, patience: Patience) {
        let hooks = self.scheduler.poll_hooks();
        hooks.before_poll();
        if self.has_work() || self.finds_work_instead_of_sleep(patience) {
            self.poll(|reactor| reactor.turn());
        }
        self.expire_timers();
        self.counts.polls.add(1);
        hooks.after_poll();
        self.wake_idler();
        self.begin_probe();
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
    fn run_batch(&self, mut left: u32) -> bool {
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

    /// Lets others see what this worker has counted.
    #[inline]
    fn publish(&self) {
        let ready = self.ready.borrow().len();
        self.remote.counters().publish(&self.counts, ready);
    }

    /// Puts the mark into the ready queue, if its delay is to be measured now. See `counters`.
    #[inline]
    fn begin_probe(&self) {
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

    /// Whether this worker has something to run without stealing. Fresh coroutines that it leaves to other
    /// workers (see `placement`) do not count.
    fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.local.borrow().is_empty()
            || self.remote.has_mail()
            || (!self.placement.is_holding()
                && (!self.fresh.is_empty() || !self.scheduler.injector.is_empty()))
    }

    /// Makes the coroutines ready that other threads have woken. Does not allocate; see `ready`.
    fn take_mail(&self) {
        if !self.remote.has_mail() {
            return;
        }
        self.ready.borrow_mut().extend(self.remote.take_mail());
    }

    /// Pins a fresh coroutine to this worker, in a slot with a stack. Returns the slot. If there is no stack,
    /// ends the coroutine with the error, and returns `None`.
    // Inlined into `start_fresh`, its hot caller, which is none of the loop.
    #[inline(always)]
    fn start(&self, task: TaskRef) -> Option<u32> {
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
    fn finish(&self, finished: Live) {
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

    /// Ends the waits whose deadlines have passed.
    fn expire_timers(&self) {
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        if !timers.is_due(now) {
            return;
        }
        // The poll of this turn may have left events over. They may have come before the deadlines, so
        // they are seen first.
        self.poll(Reactor::take_rest);
        let live = self.live.borrow();
        while let expired @ [_, ..] = timers.expire(now) {
            // These coroutines have slept for long, so little of them is in the processor's caches.
            let each = || {
                expired
                    .iter()
                    .map(|&(slot, seq)| (&live[slot as usize], seq))
            };
            each().for_each(|(live, _)| memory::prefetch_all(live));
            each().for_each(|(live, _)| live.prefetch());
            for (live, seq) in each() {
                // A coroutine disarms its deadline before it goes on. So `seq` is its current wait, which
                // a waker may have ended already; then this has no effect.
                live.task.wake(seq, Outcome::TimedOut);
            }
        }
    }

    /// Calls `poll`. Aborts if that fails, because the coroutines that wait for I/O would never wake.
    fn poll(&self, poll: impl FnOnce(&mut Reactor) -> io::Result<()>) {
        if let Err(error) = poll(&mut self.reactor.borrow_mut()) {
            fatal::abort(format_args!("a worker cannot wait for I/O: {error}"));
        }
    }

    /// Blocks in the poll until an event or until `first`, with nothing to run meanwhile.
    ///
    /// Only polls if there is a coroutine to run. Since the caller has looked, this worker may have allocated or
    /// freed memory. The user's allocator may have woken or spawned a coroutine of this worker by that, which kicks
    /// nobody.
    fn wait(&self, first: Option<Deadline>) {
        if !self.ready.borrow().is_empty() || !self.local.borrow().is_empty() {
            return self.poll(|reactor| reactor.turn());
        }
        self.remote.set_blocking(true);
        self.poll(|reactor| reactor.wait(first));
        self.remote.set_blocking(false);
    }

    /// Calls `wait`, which waits with nothing to run.
    fn asleep(&self, wait: impl FnOnce()) {
        self.counts.sleeps.add(1);
        self.publish();
        self.remote.pulse().fall_asleep();
        wait();
        self.remote.pulse().wake_up();
    }

    /// Steals a fresh coroutine, or else blocks in the poll until something happens. Returns true if it has
    /// not polled, because there was something to do at once. See `sleep` for the protocol.
    fn finds_work_instead_of_sleep(&self, patience: Patience) -> bool {
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
    fn next_deadline(&self) -> Option<Deadline> {
        let timer = self.next_timer();
        let others = [self.trim_if_cold(), self.placement.until()];
        let others = others.into_iter().flatten().map(Deadline::at);
        others.chain(timer).min_by_key(|deadline| deadline.at)
    }

    /// When this worker is to wake up for its timers.
    fn next_timer(&self) -> Option<Deadline> {
        let set = self.reactor.borrow().alarm_at();
        self.timers.borrow_mut().alarm(set)
    }

    /// Notes that this worker looks for work by itself again.
    fn wake_up(&self) {
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

    /// Suspends the running coroutine, `task`, until wait `seq` is over. Called only while std's panic count
    /// of this thread is raised; otherwise [`Task::suspend`] needs no help of the worker.
    #[cold]
    fn suspend(&self, task: &Task, seq: Seq, suspension: &Suspension, deadline: Option<Deadline>) {
        if self.waits_alone() && self.wait_with(task, seq, deadline) {
            return;
        }
        if let Some(deadline) = deadline {
            self.arm(task.slot(), deadline, seq);
        }
        let _suspended = Suspended::begin();
        coroutine::suspend(Suspend::Parked, suspension);
        if task.word.is_looked_at() {
            task.be_looked_at(suspension);
        }
        if deadline.is_some() {
            self.disarm(task.slot());
        }
    }

    fn arm(&self, slot: u32, deadline: Deadline, seq: Seq) {
        // The queue of the timers may grow. An allocator that waits must not suspend the caller while the
        // timers are borrowed.
        task::aside(|| self.timers.borrow_mut().arm(slot, deadline, seq));
    }

    fn disarm(&self, slot: u32) {
        self.timers.borrow_mut().disarm(slot);
    }

    /// Called in a forked child, where the calling thread drives no worker any more.
    pub(crate) fn forget_current() {
        CURRENT.set(ptr::null());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.remote.set_place(ptr::null());
        if self.live.get_mut().is_empty() && !self.leaves_some.get() {
            // SAFETY: `owner` is dropped here and nowhere else, and no coroutine is left that points to it.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
            self.number.give_back();
        }
    }
}

/// Writes the name of the coroutine that runs on this thread. Async-signal-safe.
fn describe_running(out: &mut dyn fmt::Write) -> fmt::Result {
    task::with_running(|task| match task {
        Some(task) => write!(out, "{}", Description(task)),
        None => write!(out, "a coroutine"),
    })
}

/// The body of every coroutine: runs its task. If the task was cancelled or the runtime has begun to stop,
/// only drops the task's closure. The drop happens on the coroutine, because the destructors may wait.
fn run_task() {
    task::with_running(|task| {
        let task = task.expect("a coroutine is running");
        match perf_map::is_on() {
            false => run_body(task),
            true => run_named(task),
        }
    });
}

/// Runs the body in a frame that has the name of the coroutine in call graphs of perf.
#[cold]
fn run_named(task: &Task) {
    let function = task::aside(|| match task.name() {
        Some(name) => NamedFunction::of(name),
        None => NamedFunction::of(&format!("spawned at {}", task.spawned_at())),
    });
    match function {
        Some(function) => function.call(|| run_body(task)),
        None => run_body(task),
    }
}

// Inlined where no function of perf's lies between.
#[inline(always)]
fn run_body(task: &Task) {
    let is_left = task.role() != Role::Main && !NOTHING_UNWINDS && task::is_runtime_stopping();
    if is_left || task.word.is_interrupted() {
        let waited = task.word.interrupt();
        debug_assert!(!waited, "a fresh coroutine does not wait");
        // SAFETY: this is the first turn of the task, on its worker, so the body was neither run nor
        // abandoned before, and is not run after.
        return unsafe { task.body().abandon(task, Box::new(Cancelled)) };
    }
    // SAFETY: this is the first turn of the task, on its worker, so the body was neither run nor
    // abandoned before. The branch above has returned.
    unsafe { task.body().run(task) };
}

/// How long a worker that has nothing to run may block.
#[derive(Clone, Copy)]
struct Patience {
    until: Option<Deadline>,
    /// Whether it ends when the runtime is asked to stop.
    ends_by_stop: bool,
}

impl Patience {
    /// Until something happens.
    const ENDLESS: Patience = Patience {
        until: None,
        ends_by_stop: false,
    };

    /// Whether the worker may not block at all. To be asked after the worker has fallen asleep, so that a later
    /// request to stop wakes it.
    fn is_over(&self, scheduler: &Scheduler) -> bool {
        self.ends_by_stop && scheduler.is_asked_to_stop()
    }
}

/// Marks the calling thread as the driver of a worker.
struct Driving<'a> {
    worker: &'a Worker,
    /// Present if the thread itself panics, so that its coroutines are not taken for panicking.
    _unwind: Option<Suspended>,
}

impl<'a> Driving<'a> {
    fn new(worker: &'a Worker) -> Driving<'a> {
        assert!(
            CURRENT.get().is_null(),
            "a thread drives one worker at a time"
        );
        let running = overflow::Running {
            describe: describe_running,
            forget: task::forget_running,
        };
        if let Err(error) = overflow::watch(running) {
            // Overflows still end the process, but without a report.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "greenroom: stack overflows will not be reported: {error}"
            );
        }
        CURRENT.set(worker);
        worker.remote.set_place(worker);
        worker.number.enter();
        reactor::set_local(Some(Arc::clone(worker.reactor.borrow().handle())));
        worker
            .remote
            .pulse()
            .set_driven(Some(worker.counts.turns.cell()));
        let driving = Driving {
            worker,
            _unwind: std::thread::panicking().then(Suspended::begin),
        };
        worker.wake_up();
        driving
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        while self.worker.remote.rolls().is_asked() {
            self.worker.answer_rolls();
        }
        reactor::set_local(None);
        WorkerNumber::leave();
        CURRENT.set(ptr::null());
        self.worker.publish();
        self.worker.remote.pulse().set_driven(None);
        self.worker.leave_alone();
        self.worker.scheduler.shutdown.note_left();
    }
}
