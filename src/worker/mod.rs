//! Workers: the loop that runs coroutines, and what the workers of a runtime share.
//!
//! A worker is an OS thread that runs coroutines. It owns the coroutines that it has started for good:
//! only coroutines that have never run are stolen. So all that lives on a started coroutine's stack
//! stays on one thread.
//!
//! - `mod` (this file): a worker and its turns;
//! - `batch`: the loop that runs coroutines, and the switch into one; `body`: what a coroutine runs;
//! - `idle`: what a worker does that has nothing to run; `driving`: the thread that drives a worker;
//! - `fresh`: queues of fresh coroutines, and stealing; `placement`: which worker starts them;
//! - `remote`: what other threads use of a worker; `attention` and `sleep`: when to wake it;
//! - `scheduler`: what the workers share; `census`: how many coroutines there are;
//! - `counters`: what a worker counts; `metrics`: all of that, for the program;
//! - `roll`: what a worker's coroutines do, for a dump;
//! - `stillness`: finding out that no coroutine can run any more; `standstill`: the protocol of that;
//! - `outside`: a worker that the loop of other code drives; `idlers`: what runs if nothing else does;
//! - `hooks`: code of the user's that the loop and the end of the runtime call;
//! - `alone`: waits of a coroutine that unwinds; `shutdown`: the end of a runtime.

mod alone;
mod attention;
mod batch;
mod body;
mod census;
mod counters;
mod driving;
mod fresh;
mod hooks;
mod idle;
mod idlers;
pub(crate) mod metrics;
mod outside;
mod placement;
mod remote;
mod roll;
mod scheduler;
mod shutdown;
mod sleep;
mod standstill;
mod stillness;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::coroutine::{self, Class, Coroutine, CoroutinePool, Reservation, Suspend};
use crate::fatal;
use crate::reactor::Reactor;
use crate::sys::memory;
use crate::task::word::{Outcome, Seq};
use crate::task::{self, Deadline, Owner, Suspended, Suspension, Task, TaskRef, WorkerNumber};
use crate::time::Timers;
use batch::{FIRST_BATCH, LARGEST_BATCH};
use body::run_task;
use census::Tally;
use counters::{Counts, Probe};
use driving::Driving;
use idle::Patience;
use idlers::Idlers;
use outside::Outside;
use placement::Placement;
use remote::Remote;
use roll::Answering;
use scheduler::is_counted;
use shutdown::Shutdown;

pub(crate) use hooks::PollHooks;
pub use idlers::yield_until_idle;
pub(crate) use roll::{Activity, Answer, Entry, Started, Trace, Traces, Wanted};
pub(crate) use scheduler::{Scheduler, set_up_stealing};
pub(crate) use shutdown::PAUSE;
pub(crate) use stillness::OnDeadlock;
pub use stillness::{Deadlock, Deadlocked};

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
    /// The rolls that this worker answers, in turns.
    answering: RefCell<VecDeque<Answering>>,
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
    /// When the batch began in which the coroutine has parked last, by [`clock::coarse`](crate::sys::clock::coarse). Zero before that.
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

    /// Lets others see what this worker has counted.
    #[inline]
    fn publish(&self) {
        let ready = self.ready.borrow().len();
        self.remote.counters().publish(&self.counts, ready);
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
