//! What the workers of a runtime share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_deque::{Injector, Steal};

use super::census::Census;
use super::hooks::{EndHooks, PollHooks};
use super::metrics::{self, Counted};
use super::remote::Remote;
use super::shutdown::Shutdown;
use super::sleep::{Sleep, Sleepers};
use super::stillness::{OnDeadlock, Stillness};
use super::{Parts, Worker};
#[cfg(test)]
use crate::coroutine::lacks;
use crate::coroutine::{Class, Reservation};
use crate::park::Cancelled;
use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::task::{self, Role, TaskRef};
use crate::time::Agenda;

/// Initialises crossbeam's global epoch, which the first steal would do otherwise. A fork at that
/// moment would leave it half-built in the child.
pub(crate) fn set_up_stealing() {
    let _ = crossbeam_deque::Worker::<()>::new_fifo().stealer().steal();
}

static ALL: Mutex<All> = Mutex::new(All {
    schedulers: Vec::new(),
    stopped_in: None,
});

/// All schedulers that are in use, also for `gdb.py`.
struct All {
    schedulers: Vec<Weak<Scheduler>>,
    /// The process in which all of them were stopped, and later ones are stopped from the beginning.
    stopped_in: Option<Process>,
}

/// What the workers of one runtime share.
pub(crate) struct Scheduler {
    made_by: Process,
    /// The number of this runtime, unique in the process. Not zero. Its tasks carry it.
    number: u32,
    /// The shared part of each worker.
    pub(super) workers: Box<[Arc<Remote>]>,
    /// The fresh coroutines that were spawned by threads other than this runtime's workers.
    pub(super) injector: Injector<TaskRef>,
    pub(super) sleep: Sleep,
    census: Arc<Census>,
    /// What `metrics` sees of this.
    counted: Arc<Counted>,
    /// The pending timers of `after`.
    agenda: Arc<Agenda>,
    /// The default class of stacks.
    stack_class: &'static Class,
    poll_hooks: PollHooks,
    /// The main coroutine, while there is one that a request to stop cancels.
    main: Mutex<Option<TaskRef>>,
    asked_to_stop: AtomicBool,
    /// What the end of the runtime calls first, while all coroutines still run.
    pub(crate) before_shutdown: EndHooks,
    /// What the end of the runtime calls last, when all coroutines have ended.
    pub(crate) after_shutdown: EndHooks,
    pub(super) shutdown: Arc<Shutdown>,
    pub(super) stillness: Stillness,
}

impl Scheduler {
    /// A scheduler of `workers` workers, and the parts to make these workers from, each on the thread
    /// that will drive it.
    ///
    /// # Errors
    ///
    /// The operating system's, if there is no poll to be had.
    pub(crate) fn new(
        workers: usize,
        stack_class: &'static Class,
        grace: Duration,
        on_deadlock: Option<OnDeadlock>,
        poll_hooks: PollHooks,
    ) -> io::Result<(Arc<Scheduler>, Vec<Parts>)> {
        let shutdown = Arc::new(Shutdown::new(workers, grace));
        let parts: Vec<_> = (0..workers)
            .map(|_| Parts::new(&shutdown))
            .collect::<io::Result<_>>()?;
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let census = Arc::new(Census::new());
        let remotes = || {
            parts
                .iter()
                .map(|parts| Arc::clone(&parts.remote))
                .collect()
        };
        let counted = Arc::new(Counted {
            workers: remotes(),
            census: Arc::clone(&census),
        });
        metrics::begin(Arc::clone(&counted));
        let scheduler = Scheduler {
            made_by: Process::current(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            workers: remotes(),
            injector: Injector::new(),
            sleep: Sleep::new(),
            census,
            counted,
            agenda: Arc::new(Agenda::new()),
            stack_class,
            poll_hooks,
            main: Mutex::new(None),
            asked_to_stop: AtomicBool::new(false),
            before_shutdown: EndHooks::default(),
            after_shutdown: EndHooks::default(),
            shutdown,
            stillness: Stillness::new(on_deadlock),
        };
        let scheduler = Arc::new(scheduler);
        let mut all = task::lock_aside(&ALL);
        all.schedulers
            .retain(|scheduler| scheduler.strong_count() > 0);
        all.schedulers.push(Arc::downgrade(&scheduler));
        let stopped_in = all.stopped_in;
        drop(all);
        if stopped_in.is_some_and(Process::is_current) {
            scheduler.stop();
        }
        Ok((scheduler, parts))
    }

    /// The schedulers of all runtimes of this process.
    pub(crate) fn all() -> Vec<Arc<Scheduler>> {
        let all = task::lock_aside(&ALL);
        let all = all.schedulers.iter().filter_map(Weak::upgrade);
        all.filter(|scheduler| !scheduler.is_left_in_parent())
            .collect()
    }

    /// Stops all runtimes of this process, and each that is made from now on. Returns the schedulers of those there
    /// are.
    pub(crate) fn stop_all() -> Vec<Arc<Scheduler>> {
        task::lock_aside(&ALL).stopped_in = Some(Process::current());
        let all = Scheduler::all();
        all.iter().for_each(|scheduler| scheduler.stop());
        all
    }

    /// The scheduler of the worker that the calling thread drives.
    pub(crate) fn current() -> Option<Arc<Scheduler>> {
        Worker::with_current(|worker| worker.map(|worker| Arc::clone(worker.scheduler())))
    }

    /// The scheduler of the worker that drops the caller because the caller's coroutine has found no stack on its first
    /// turn. `None` for all other callers.
    pub(crate) fn of_lacking_stack() -> Option<Arc<Scheduler>> {
        // The loop of a worker drops the caller then. At the end of a runtime, it also drops what is left behind.
        match task::on_coroutine() {
            true => None,
            false => Scheduler::current().filter(|scheduler| !scheduler.is_stopping()),
        }
    }

    /// Whether this process is a forked child of the one that made this scheduler. A child does not have
    /// the threads of the workers.
    pub(crate) fn is_left_in_parent(&self) -> bool {
        !self.made_by.is_current()
    }

    /// The number of this runtime; see [`Task::waits_alone_for`](crate::task::Task::waits_alone_for).
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn agenda(&self) -> &Arc<Agenda> {
        &self.agenda
    }

    /// Reserves a stack for one more coroutine, of at least `size` usable bytes, or else of the
    /// default size.
    ///
    /// # Errors
    ///
    /// See [`Class::for_size`] and [`Class::reserve`].
    pub(crate) fn reserve_stack(&self, size: Option<usize>) -> io::Result<Reservation> {
        #[cfg(test)]
        lacks::check(&lacks::RESERVATIONS)?;
        let class = match size {
            Some(size) => Class::for_size(size)?,
            None => self.stack_class,
        };
        task::aside(|| {
            Worker::with_current(|worker| match worker {
                Some(worker) => worker.reserve_stack(class),
                None => class.reserve(),
            })
        })
    }

    /// Queues a fresh coroutine, which any worker may start.
    pub(crate) fn spawn(&self, task: TaskRef) {
        self.with_worker(|worker| match worker {
            Some(worker) => {
                worker.count_in(&task);
                worker.push_fresh(task);
            }
            None => self.inject(task),
        });
    }

    /// Queues a fresh coroutine from a thread that is no worker of this runtime.
    fn inject(&self, task: TaskRef) {
        match is_counted(&task) {
            true => self.census.elsewhere.count_in_shared(),
            false => self.census.uncounted.count_in_shared(),
        }
        self.put_back(task);
    }

    /// Queues a fresh coroutine that is counted already.
    pub(super) fn put_back(&self, task: TaskRef) {
        task::aside(|| self.injector.push(task));
        self.notify();
        // A worker that has begun to leave may not look at the injector again. Pairs with the store of
        // `stopping`: either the leaving workers see this push, or this thread sees that they leave.
        fence(Ordering::SeqCst);
        if self.is_stopping() {
            self.abandon_injected();
        }
    }

    /// Makes sure that a worker looks for the fresh coroutine that was just queued.
    pub(super) fn notify(&self) {
        self.sleep.notify(self);
    }

    /// The worker with the fewest coroutines, among those at work and other than `me`.
    pub(super) fn least_loaded(&self, me: &Remote) -> Option<&Remote> {
        self.workers
            .iter()
            .map(|worker| &**worker)
            .filter(|worker| !std::ptr::eq(*worker, me) && worker.attention().is_at_work())
            .min_by_key(|worker| worker.load())
    }

    /// Asks the worker with the fewest coroutines to steal what `me` leaves.
    pub(super) fn offer_to_least_loaded(&self, me: &Remote) {
        if let Some(least) = self.least_loaded(me) {
            least.offer();
        }
    }

    /// Whether there is a fresh coroutine that any worker could take.
    pub(super) fn has_fresh(&self) -> bool {
        !self.injector.is_empty() || self.workers.iter().any(|worker| worker.has_fresh())
    }

    #[inline]
    pub(super) fn take_injected(&self) -> Option<TaskRef> {
        if self.injector.is_empty() {
            return None;
        }
        loop {
            match self.injector.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    /// Ends the fresh coroutines in the injector, which no worker will take any more.
    pub(crate) fn abandon_injected(&self) {
        while let Some(task) = self.take_injected() {
            self.abandon(&task, Box::new(Cancelled));
        }
    }

    /// Ends a coroutine that has never run: drops its closure, and gives `why` to its joiner.
    pub(super) fn abandon(&self, task: &TaskRef, why: Box<dyn std::any::Any + Send>) {
        drop(task.take_reservation());
        // SAFETY: the caller took the task from a queue of fresh coroutines, which holds each task once.
        // So the body is neither run nor abandoned by anyone else.
        unsafe { task.body().abandon(task, why) };
        self.census.note_abandoned();
        self.count_out(task);
        self.look();
    }

    /// Counts a coroutine that has ended without having run. From any thread, which must then call
    /// [`look`](Scheduler::look).
    fn count_out(&self, task: &TaskRef) {
        self.with_worker(|worker| match worker {
            Some(worker) => worker.count_out(task),
            None if is_counted(task) => self.census.elsewhere.count_out_shared(),
            None => self.census.uncounted.count_out_shared(),
        });
    }

    /// Calls `f` with the worker that the calling thread drives, if it is a worker of this runtime.
    #[inline]
    pub(super) fn with_worker<R>(&self, f: impl FnOnce(Option<&Worker>) -> R) -> R {
        Worker::with_current(|worker| {
            f(worker.filter(|worker| std::ptr::eq(&**worker.scheduler(), self)))
        })
    }

    #[inline]
    pub(super) fn poll_hooks(&self) -> &PollHooks {
        &self.poll_hooks
    }

    /// Whether all coroutines have ended or idle, and no timer is pending. The main coroutine and daemons do not
    /// count.
    pub(crate) fn is_idle(&self) -> bool {
        self.census
            .is_idle(self.workers.iter().map(|worker| worker.tally()))
    }

    /// Whether it seems that somebody is in `wait_idle`. A caller that has just come may be missed.
    #[inline]
    pub(super) fn may_be_awaited(&self) -> bool {
        self.census.may_be_awaited()
    }

    /// Wakes the callers of `wait_idle`, if all coroutines have ended or idle. To be called after
    /// coroutines have ended, or one has begun to idle.
    pub(crate) fn look(&self) {
        self.census.look(|| self.is_idle());
    }

    /// Counts the keeper of timers as idling: no timer is pending. [`look`](Scheduler::look) must
    /// follow.
    pub(crate) fn begin_idling(&self) {
        self.census.begin_idling();
    }

    /// Counts the keeper of timers as a coroutine that [`wait_idle`](Scheduler::wait_idle) waits for.
    pub(crate) fn end_idling(&self) {
        self.census.end_idling();
    }

    /// Parks the caller until no coroutine is left, other than main and those that wait here too.
    pub(crate) fn wait_idle(&self) {
        let is_counted = task::running().is_some_and(|task| is_counted(&task));
        let _wait = self.census.begin_wait(is_counted);
        self.look();
        if !self.is_idle() {
            Worker::refuse_to_wait_alone_for("all other coroutines");
        }
        self.census.wait(|| self.is_idle());
    }

    /// Asks the thread that drives worker 0 to end the runtime: cancels the main coroutine, and ends a turn. From
    /// any thread.
    ///
    /// A main coroutine that begins at the same time sees the request, or this call sees the coroutine, because
    /// both look under the same lock.
    pub(crate) fn ask_to_stop(&self) {
        self.asked_to_stop.store(true, Ordering::SeqCst);
        let main = own_lock(&self.main).clone();
        if let Some(main) = main {
            main.cancel();
        }
        self.workers[0].kick();
    }

    pub(crate) fn is_asked_to_stop(&self) -> bool {
        self.asked_to_stop.load(Ordering::SeqCst)
    }

    /// Has a request to stop cancel `main`, now if there was one before.
    pub(crate) fn set_main(&self, main: &TaskRef) {
        let before = own_lock(&self.main).replace(main.clone());
        debug_assert!(before.is_none(), "one main coroutine at a time");
        if self.is_asked_to_stop() {
            main.cancel();
        }
    }

    pub(crate) fn unset_main(&self) {
        let main = own_lock(&self.main).take();
        drop(main);
    }

    /// Tells all workers to end their coroutines within the grace, and then to leave.
    pub(crate) fn stop(&self) {
        // First, so that whoever drops the keeper because the runtime stops finds the agenda closed.
        self.agenda.close();
        self.shutdown.begin();
        self.kick_all();
    }

    /// Blocks the calling thread until no thread drives a worker of this runtime, which was told to stop; but not
    /// for long after the end of the grace.
    pub(crate) fn wait_until_left(&self) {
        let all_left = || {
            let mut workers = self.workers.iter();
            workers.all(|worker| worker.attention().is_away())
        };
        self.shutdown.wait_until(all_left);
    }

    /// How long the end of the runtime waits for coroutines that do not end.
    pub(crate) fn grace(&self) -> Duration {
        self.shutdown.grace()
    }

    /// When the grace ends, if the runtime stops and the moment is within the clock's range.
    pub(crate) fn grace_ends(&self) -> Option<Instant> {
        self.shutdown.grace_ends()
    }

    /// Wakes all workers that sleep, to look at what has just changed.
    fn kick_all(&self) {
        for worker in &self.workers {
            worker.kick();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.shutdown.is_stopping()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        metrics::end(&self.counted);
    }
}

impl Sleepers for Scheduler {
    fn any_asleep(&self) -> bool {
        let mut workers = self.workers.iter();
        workers.any(|worker| worker.attention().is_asleep())
    }

    fn kick_one_to_search(&self) -> bool {
        let asleep = || {
            self.workers
                .iter()
                .filter(|worker| worker.attention().is_asleep())
        };
        // Another thread may kick the chosen worker first. Then the next one is tried.
        while let Some(worker) = asleep().min_by_key(|worker| worker.load()) {
            if worker.kick_to_search() {
                return true;
            }
        }
        false
    }

    fn any_fresh(&self) -> bool {
        self.has_fresh()
    }
}

/// Whether `wait_idle` waits for `task`.
pub(super) fn is_counted(task: &TaskRef) -> bool {
    matches!(task.role(), Role::Spawned | Role::Local | Role::Keeper)
}
