//! Workers, and what they share.
//!
//! A worker is an OS thread that runs coroutines. It owns the coroutines that it has started, for
//! good: only coroutines that have never run are stolen. So whatever lives on a started coroutine's
//! stack stays on one thread.

mod alone;
mod attention;
mod census;
mod fresh;
mod placement;
mod remote;
mod scheduler;
mod shutdown;
mod sleep;

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

use crate::coroutine::{self, Class, Coroutine, Pool, Reservation, Suspend, overflow};
use crate::diagnose::deny_blocking;
use crate::fatal;
use crate::park::Cancelled;
use crate::reactor::{self, Reactor};
use crate::sys::memory;
use crate::task::word::{Outcome, Seq};
use crate::task::{
    self, Deadline, Description, Owner, Role, Suspended, Task, TaskRef, WorkerNumber, budget,
};
use crate::time::Timers;
use census::Tally;
use placement::Placement;
use remote::Remote;
use shutdown::{NOTHING_UNWINDS, Shutdown};

pub(crate) use scheduler::{Scheduler, set_up_stealing};
pub(crate) use shutdown::PAUSE;

/// The most that a worker runs between two looks at timers and I/O, in turns and operations.
const LARGEST_BATCH: u32 = 256;

/// What a worker runs at first, when it does not know yet how long its coroutines' turns are.
const FIRST_BATCH: u32 = 16;

/// How long a batch should take at most.
const BATCH_TIME: Duration = Duration::from_micros(500);

/// From so many yields in a row on of a coroutine that is alone, each gives up the processor. (One or
/// two are those of a coroutine for which the others wait.)
const LONE_YIELDS: u32 = 3;

/// After so many batches in a row in which all have only yielded, the processor is given up once.
const IDLE_BATCHES: u32 = 16;

/// How long after coroutines have ended an idle worker trims their stacks.
const COLD: Duration = Duration::from_secs(1);

/// A worker before a thread drives it.
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

    /// A thread is about to drive this worker: others count on it already.
    pub(crate) fn announce(&self) {
        self.remote.attention().announce();
    }
}

/// One OS thread's part of a scheduler. It never leaves the thread that made it.
pub(crate) struct Worker {
    scheduler: Arc<Scheduler>,
    remote: Arc<Remote>,
    /// The same, in a place that coroutines point to. Dropped if none is left that does.
    owner: ManuallyDrop<Box<Arc<dyn Owner>>>,
    /// By which its coroutines are known to locks.
    number: WorkerNumber,
    /// Started coroutines are left behind for good.
    leaves_some: Cell<bool>,
    /// Fresh coroutines, which others may steal.
    fresh: crossbeam_deque::Worker<TaskRef>,
    /// Fresh coroutines that must run here.
    local: RefCell<VecDeque<TaskRef>>,
    placement: Placement,
    /// Started coroutines that are ready, by slot; each at most once. There is room for all that have
    /// started: whoever wakes them may be the allocator.
    ready: RefCell<VecDeque<u32>>,
    /// Started coroutines. Borrowed while one of them runs, so nothing that a coroutine can call
    /// touches it.
    live: RefCell<Slab<Live>>,
    /// Counts starts: the age of coroutines.
    started: Cell<u64>,
    timers: RefCell<Timers>,
    reactor: RefCell<Reactor>,
    /// Coroutines on their stacks, for the tasks to come.
    idle: RefCell<Pool>,
    /// What to run between two looks at timers and I/O.
    batch: Cell<u32>,
    /// When the batch before ended, if that was full.
    batch_ended: Cell<Option<Instant>>,
    /// The last yields in a row of one while no other was ready.
    lone_yields: Cell<u32>,
    /// The last batches in a row in which all have only yielded.
    idle_batches: Cell<u32>,
    /// When to trim the stacks: once, some time after coroutines have ended.
    trim_at: Cell<Option<Instant>>,
    /// The main coroutine has finished, and the driver wants its thread back.
    leave: Cell<bool>,
}

struct Live {
    task: TaskRef,
    coroutine: Coroutine,
    age: u64,
}

impl Live {
    /// Has the processor fetch what wakes it and what it goes on with.
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
            started: Cell::new(0),
            timers: RefCell::new(Timers::new()),
            reactor: RefCell::new(parts.reactor),
            idle: RefCell::new(Pool::new(run_task)),
            batch: Cell::new(FIRST_BATCH),
            batch_ended: Cell::new(None),
            lone_yields: Cell::new(0),
            idle_batches: Cell::new(0),
            trim_at: Cell::new(None),
            leave: Cell::new(false),
        }
    }

    /// Calls `f` with the worker that the calling thread drives.
    #[inline]
    pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Worker>) -> R) -> R {
        // SAFETY: `Driving` has set the pointer to a worker that it borrows until it clears it, on
        // this thread. A call that suspends may outlast that; it is a coroutine's which this worker
        // has started, and before that has ended (or will never go on) the worker neither moves nor
        // goes: `Runtime` keeps it in a place of its own, and drops it last.
        f(unsafe { CURRENT.get().as_ref() })
    }

    /// Makes sure that one more coroutine will find a stack of `class`.
    ///
    /// # Errors
    ///
    /// See [`Class::reserve`].
    #[inline]
    fn reserve_stack(&self, class: &'static Class) -> io::Result<Reservation> {
        self.idle.borrow_mut().reserve(class)
    }

    /// Whether the calling thread drives a worker, on a coroutine's stack or its own.
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

    fn push_ready(&self, slot: u32) {
        let mut ready = self.ready.borrow_mut();
        debug_assert!(ready.len() < ready.capacity(), "there is room for all");
        ready.push_back(slot);
    }

    /// Has the queue of the ready have room for `count`, and not for far more. Allocates and frees
    /// while it is not borrowed.
    #[cold]
    fn set_room(&self, count: usize) {
        let mut queue = VecDeque::with_capacity(count.max(LARGEST_BATCH as usize));
        let mut ready = self.ready.borrow_mut();
        queue.extend(ready.drain(..));
        let before = mem::replace(&mut *ready, queue);
        drop(ready);
        drop(before);
    }

    /// A coroutine was made here, and is in no queue yet.
    #[inline]
    fn count_in(&self, task: &TaskRef) {
        if Tally::counts(task) {
            self.tally().count_in();
        }
    }

    /// A coroutine has ended here: [`look`](Scheduler::look) is to be called.
    #[inline]
    fn count_out(&self, task: &TaskRef) {
        if Tally::counts(task) {
            self.tally().count_out();
        }
    }

    /// Runs coroutines on the calling thread until a main coroutine has finished.
    pub(crate) fn drive_main(&self) {
        let _driving = Driving::new(self);
        self.leave.set(false);
        while !self.leave.get() {
            self.turn();
        }
    }

    /// Runs coroutines on the calling thread until the runtime stops; then ends what is left. Returns
    /// whether coroutines that have started are left behind: see `ending`.
    pub(crate) fn drive_until_stopped(&self) -> bool {
        let _driving = Driving::new(self);
        self.leave.set(false);
        while !self.scheduler.is_stopping() {
            self.turn();
        }
        self.end()
    }

    /// A batch of coroutines, then I/O, then timers; waits if there is nothing to run.
    ///
    /// Each turn looks at I/O once, whatever it finds to run. That comes before the timers: an
    /// event that came before a deadline is seen before the deadline is.
    fn turn(&self) {
        self.take_share();
        let full = self.run_batch(self.batch.get());
        if self.leave.get() {
            return;
        }
        self.adapt_batch(full);
        if self.has_work() || self.finds_work_instead_of_sleep() {
            self.poll(|reactor| reactor.turn());
        }
        self.expire_timers();
    }

    /// Has the next batch take about as long as it should, if batches end by their size.
    fn adapt_batch(&self, full: bool) {
        if !full {
            self.batch_ended.set(None);
            return;
        }
        let now = Instant::now();
        if let Some(before) = self.batch_ended.replace(Some(now)) {
            let batch = match now - before {
                took if took < BATCH_TIME => self.batch.get() * 2,
                // As many fewer as it was slower.
                took => {
                    let times = u32::try_from(took.as_nanos() / BATCH_TIME.as_nanos());
                    self.batch.get() / times.unwrap_or(u32::MAX)
                }
            };
            self.batch.set(batch.clamp(1, LARGEST_BATCH));
        }
    }

    /// Runs ready and fresh coroutines by turns, so that neither starve the other; about `left` of
    /// them, where an operation counts like a turn. Returns whether it has run so many.
    ///
    /// The one function that switches into coroutines. Never inlined, so that no address of a
    /// thread-local is carried across the switch by the code around it; and the switch is inlined
    /// into its loop, because a return from a function that has switched is predicted wrongly.
    #[inline(never)]
    fn run_batch(&self, mut left: u32) -> bool {
        self.take_mail();
        self.placement.look_again();
        if self.placement.has_held() && !self.scheduler.has_fresh() {
            self.placement.found_none();
        }
        let mut fresh_first = false;
        let mut any_finished = false;
        let mut only_yields = true;
        let mut lone_yields = self.lone_yields.get();
        while left > 0 && !self.leave.get() {
            if NOTHING_UNWINDS && self.scheduler.is_stopping() {
                break;
            }
            let fresh = || self.sees_fresh().then(|| self.start_fresh()).flatten();
            let next = match fresh_first {
                true => fresh().or_else(|| self.next_ready()),
                false => self.next_ready().or_else(fresh),
            };
            fresh_first = !fresh_first;
            let Some(slot) = next else { break };

            let mut live = self.live.borrow_mut();
            self.prefetch_next(&live);
            let running = &mut live[slot as usize];
            budget::refill();
            let turn = || task::enter(&running.task, || running.coroutine.resume());
            match deny_blocking::watched(&running.task, turn) {
                Suspend::Parked => {
                    only_yields = false;
                    lone_yields = 0;
                }
                Suspend::Yielded => {
                    let idles = budget::spent() == 0;
                    only_yields &= idles;
                    let is_alone = idles && self.ready.borrow().is_empty();
                    lone_yields = if is_alone { lone_yields + 1 } else { 0 };
                    self.push_ready(slot);
                    if lone_yields >= LONE_YIELDS && !self.sees_fresh() {
                        break;
                    }
                }
                Suspend::Finished => {
                    only_yields = false;
                    lone_yields = 0;
                    let finished = live.remove(slot as usize);
                    drop(live);
                    self.finish(finished);
                    any_finished = true;
                }
            }
            left = left.saturating_sub(1 + budget::spent());
        }
        self.remote.set_load(self.live.borrow().len());
        if any_finished {
            self.scheduler.look();
        }
        self.give_way(lone_yields, only_yields && left == 0);
        left == 0
    }

    /// Gives up the processor, where nothing else of this worker is ready than what has yielded: what
    /// that waits for may need the processor. After a few yields of one that is alone, and after some
    /// batches if several have yielded to each other.
    #[inline]
    fn give_way(&self, lone_yields: u32, only_yields: bool) {
        let idle_batches = if only_yields {
            self.idle_batches.get() + 1
        } else {
            0
        };
        self.idle_batches.set(idle_batches);
        let alone = lone_yields >= LONE_YIELDS;
        // The next one gives way again.
        self.lone_yields
            .set(if alone { LONE_YIELDS - 1 } else { lone_yields });
        if (alone || idle_batches == IDLE_BATCHES) && !self.remote.has_mail() {
            self.idle_batches.set(0);
            thread::yield_now();
        }
    }

    fn next_ready(&self) -> Option<u32> {
        self.ready.borrow_mut().pop_front()
    }

    /// Has the processor fetch the coroutines that come to their turns after some others: first
    /// what is known of one here, then what that says lies on its stack.
    #[inline(always)]
    fn prefetch_next(&self, live: &Slab<Live>) {
        /// Of fewer, all that their turns touch stays in the second-level cache.
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

    fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.local.borrow().is_empty()
            || self.remote.has_mail()
            || (!self.placement.is_holding()
                && (!self.fresh.is_empty() || !self.scheduler.injector.is_empty()))
    }

    fn take_mail(&self) {
        if !self.remote.has_mail() {
            return;
        }
        self.ready.borrow_mut().extend(self.remote.take_mail());
    }

    /// Pins a fresh coroutine to this worker, in a slot with a stack.
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
        let age = self.started.get();
        self.started.set(age + 1);
        let mut live = self.live.borrow_mut();
        let vacant = live.vacant_entry();
        let slot = u32::try_from(vacant.key()).expect("fewer than 2^32 coroutines");
        // SAFETY: the task was fresh. The owner is dropped after all that were started here have
        // ended, or not at all.
        unsafe { task.pin(&self.owner, slot) };
        vacant.insert(Live {
            task,
            coroutine,
            age,
        });
        if live.len() > self.ready.borrow().capacity() {
            self.set_room(2 * live.len());
        }
        Some(slot)
    }

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

    /// Gives the thread back to the driver if it was the main coroutine that has ended.
    fn leave_after(&self, task: &Task) {
        if task.role() == Role::Main {
            self.leave.set(true);
        }
    }

    fn expire_timers(&self) {
        let mut timers = self.timers.borrow_mut();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        if !timers.is_due(now) {
            return;
        }
        // What came before the deadline is seen before it is.
        self.poll(Reactor::take_rest);
        let live = self.live.borrow();
        while let expired @ [_, ..] = timers.expire(now) {
            // They have slept for long: little of them is in the processor's caches.
            let each = || {
                expired
                    .iter()
                    .map(|&(slot, seq)| (&live[slot as usize], seq))
            };
            each().for_each(|(live, _)| memory::prefetch_all(live));
            each().for_each(|(live, _)| live.prefetch());
            for (live, seq) in each() {
                // A coroutine disarms before it goes on, so the wait is its current one, and at
                // worst has been woken already.
                live.task.wake(seq, Outcome::TimedOut);
            }
        }
    }

    fn poll(&self, poll: impl FnOnce(&mut Reactor) -> io::Result<()>) {
        if let Err(error) = poll(&mut self.reactor.borrow_mut()) {
            fatal::abort(format_args!("a worker cannot wait for I/O: {error}"));
        }
    }

    /// Steals a fresh coroutine, or blocks in the poll until something happens; returns whether
    /// there was something to run, so that it has not polled. See `sleep`.
    fn finds_work_instead_of_sleep(&self) -> bool {
        let scheduler = &*self.scheduler;
        let alone = scheduler.workers.len() == 1;
        if !alone {
            scheduler.sleep.start_searching();
            if self.search() {
                return true;
            }
        }
        self.remote.attention().fall_asleep();
        if !alone {
            scheduler.sleep.stop_searching();
            fence(Ordering::SeqCst);
        }
        let mut fresh = scheduler.has_fresh();
        if fresh && self.placement.is_holding() {
            // Some of it may have come since, from one that relied on this search.
            scheduler.offer_to_least_loaded(&self.remote);
            fresh = false;
        }
        let found = self.remote.has_mail() || fresh || scheduler.is_stopping();
        if !found {
            let timer = self.timers.borrow_mut().alarm();
            let others = [self.trim_if_cold(), self.placement.until()];
            let others = others.into_iter().flatten().map(Deadline::at);
            let first = others.chain(timer).min_by_key(|deadline| deadline.at);
            self.poll(|reactor| reactor.wait(first));
        }
        self.placement.look_again();
        if self.remote.attention().wake_up() && !self.search() {
            scheduler.sleep.stop_searching();
        }
        found
    }

    /// Trims the stacks of coroutines that have ended a while ago; returns when to look again. So
    /// a burst does not leave its memory behind, and an idle worker wakes up for that once.
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
            self.timers.borrow_mut().shrink();
        }
        self.trim_at.set((at > now).then_some(at));
        self.trim_at.get()
    }

    /// Suspends the running coroutine, which is `task`, until wait `seq` is over, amid panics.
    #[cold]
    fn suspend(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) {
        if self.waits_alone() && self.wait_with(task, seq, deadline) {
            return;
        }
        if let Some(deadline) = deadline {
            self.arm(task.slot(), deadline, seq);
        }
        let _suspended = Suspended::begin();
        coroutine::suspend(Suspend::Parked);
        if deadline.is_some() {
            self.disarm(task.slot());
        }
    }

    fn arm(&self, slot: u32, deadline: Deadline, seq: Seq) {
        task::aside(|| self.timers.borrow_mut().arm(slot, deadline, seq));
    }

    fn disarm(&self, slot: u32) {
        self.timers.borrow_mut().disarm(slot);
    }

    /// In the child of a fork: the calling thread drives no worker, even if it did.
    pub(crate) fn forget_current() {
        CURRENT.set(ptr::null());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.live.get_mut().is_empty() && !self.leaves_some.get() {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
            self.number.give_back();
        }
    }
}

/// Writes who runs on this thread. Async-signal-safe.
fn describe_running(out: &mut dyn fmt::Write) -> fmt::Result {
    task::with_running(|task| match task {
        Some(task) => write!(out, "{}", Description(task)),
        None => write!(out, "a coroutine"),
    })
}

/// What every coroutine runs: its task. Of one that comes too late, because its runtime stops, it
/// only drops the closure: destructors may wait, so they need a coroutine.
fn run_task() {
    task::with_running(|task| {
        let task = task.expect("a coroutine is running");
        if task.role() != Role::Main && !NOTHING_UNWINDS && task::is_runtime_stopping() {
            let waited = task.word.interrupt();
            debug_assert!(!waited, "a fresh coroutine does not wait");
            // SAFETY: this is the first turn of the task, on the worker that it was pinned to.
            return unsafe { task.body().abandon(task, Box::new(Cancelled)) };
        }
        // SAFETY: as above, instead of that.
        unsafe { task.body().run(task) };
    });
}

/// The calling thread drives a worker.
struct Driving<'a> {
    worker: &'a Worker,
    /// Where the thread panics, no coroutine does for that.
    _unwind: Option<Suspended>,
}

impl<'a> Driving<'a> {
    fn new(worker: &'a Worker) -> Driving<'a> {
        assert!(
            CURRENT.get().is_null(),
            "a thread drives one worker at a time"
        );
        if let Err(error) = overflow::watch(describe_running) {
            // Overflows still end the process, if without a word.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "greenroom: stack overflows will not be reported: {error}"
            );
        }
        CURRENT.set(worker);
        worker.number.enter();
        reactor::set_local(Some(Arc::clone(worker.reactor.borrow().handle())));
        worker.remote.set_driven(true);
        Driving {
            worker,
            _unwind: std::thread::panicking().then(Suspended::begin),
        }
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        reactor::set_local(None);
        WorkerNumber::leave();
        CURRENT.set(ptr::null());
        // Nobody will poll here, until it is driven again.
        self.worker.reactor.borrow().handle().release();
        self.worker.remote.set_driven(false);
    }
}
