//! Fresh coroutines, and workers that sleep and search: `worker/sleep.rs`, used in the way of
//! `worker/idle.rs`.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize as Count;

use super::mail::Face;
use super::sleep::{Sleep, Sleepers};
use super::{Model, large, small};
use crate::check::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "sleeping: a spawn from outside, one worker",
        4,
        one_pusher_one_worker,
    ),
    small(
        "sleeping: two spawns from outside, one worker",
        2,
        two_pushers_one_worker,
    ),
    small(
        "sleeping: a spawn from outside, two workers",
        2,
        one_pusher_two_workers,
    ),
    small(
        "sleeping: a spawn by a worker that cannot run it",
        2,
        spawn_by_a_busy_worker,
    ),
    small(
        "sleeping: spawns of which a busy worker takes a share",
        1,
        share_of_a_busy_worker,
    ),
    small(
        "sleeping: an offer by a worker that holds back",
        2,
        offer_against_sleep,
    ),
    small(
        "sleeping: a spawn against the end of patience",
        2,
        spawn_against_patience,
    ),
    small(
        "sleeping: a shutdown against a spawn",
        2,
        stop_against_spawn,
    ),
    small(
        "sleeping: a shutdown against a worker that steals",
        2,
        stop_against_steal,
    ),
    small(
        "sleeping: a shutdown against a worker that waits alone",
        4,
        stop_against_waiting_alone,
    ),
    large("sleeping: many spawns, one worker", many_for_one),
    large("sleeping: many spawns, many workers", many_spawns),
    large(
        "sleeping: a spawn that relies on a searcher to which mail comes",
        spawn_relies_on_a_searcher_with_mail,
    ),
    large(
        "sleeping: many spawns against a shutdown",
        stop_against_many,
    ),
    large(
        "sleeping: many spawns against a shutdown from within",
        stop_from_within,
    ),
    large(
        "sleeping: many spawns, workers that hold back",
        many_held_back,
    ),
    large(
        "sleeping: many spawns, workers that wait alone",
        many_while_alone,
    ),
];

/// A set of fresh coroutines, by number: a deque whose order does not matter.
struct Fresh(AtomicUsize);

impl Fresh {
    fn new() -> Fresh {
        Fresh(AtomicUsize::new(0))
    }

    fn push(&self, coroutine: usize) {
        self.0.fetch_or(1 << coroutine, Ordering::AcqRel);
    }

    fn take(&self) -> Option<usize> {
        let rest = |set: usize| (set != 0).then(|| set & (set - 1));
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, rest);
        before.ok().map(|set| set.trailing_zeros() as usize)
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

struct Worker {
    face: Face,
    fresh: Fresh,
    offered: AtomicBool,
    /// The worker has more coroutines than others, and holds back for now.
    patient: AtomicBool,
}

struct Runtime {
    workers: Vec<Worker>,
    injector: Fresh,
    sleep: Sleep,
    stopping: AtomicBool,
    /// The code of each coroutine, by its number.
    body: fn(&Driver<'_>, usize),
    /// Coroutines wait for these, in some models: one for each.
    signals: [Signal; 2],
    // These counts are of std: they are checked at the end, and must not order anything in the model.
    spawned: Count,
    ran: Count,
    abandoned: Count,
    /// When so many more coroutines have run, the runtime stops.
    to_run: Count,
}

impl Sleepers for Runtime {
    fn any_asleep(&self) -> bool {
        let mut workers = self.workers.iter();
        workers.any(|worker| worker.face.attention.is_asleep())
    }

    fn kick_one_to_search(&self) -> bool {
        self.workers.iter().any(|Worker { face, .. }| {
            let kicked = face.attention.demand_search();
            if kicked {
                face.kicked.raise();
            }
            kicked
        })
    }

    fn any_fresh(&self) -> bool {
        !self.injector.is_empty() || self.workers.iter().any(|worker| !worker.fresh.is_empty())
    }
}

/// Adds a coroutine to a set. Returns false if it was there already.
fn add(set: &Count, coroutine: usize) -> bool {
    set.fetch_or(1 << coroutine, Ordering::Relaxed) & (1 << coroutine) == 0
}

impl Runtime {
    /// The calling thread will drive the first worker. The other workers are announced.
    fn new(workers: usize, to_run: usize, body: fn(&Driver<'_>, usize)) -> Arc<Runtime> {
        let worker = || Worker {
            face: Face::new(),
            fresh: Fresh::new(),
            offered: AtomicBool::new(false),
            patient: AtomicBool::new(false),
        };
        let runtime = Runtime {
            workers: (0..workers).map(|_| worker()).collect(),
            injector: Fresh::new(),
            sleep: Sleep::new(),
            stopping: AtomicBool::new(false),
            body,
            signals: [Signal::new(), Signal::new()],
            spawned: Count::new(0),
            ran: Count::new(0),
            abandoned: Count::new(0),
            to_run: Count::new(to_run),
        };
        for worker in &runtime.workers[1..] {
            worker.face.attention.announce();
        }
        Arc::new(runtime)
    }

    /// Like `Scheduler::spawn`, by a thread that is no worker.
    fn spawn(&self, coroutine: usize) {
        assert!(add(&self.spawned, coroutine));
        self.injector.push(coroutine);
        self.sleep.notify(self);
        fence(Ordering::SeqCst);
        if self.is_stopping() {
            self.abandon_injected();
        }
    }

    fn abandon_injected(&self) {
        while let Some(coroutine) = self.injector.take() {
            self.abandon(coroutine);
        }
    }

    fn abandon(&self, coroutine: usize) {
        assert!(add(&self.abandoned, coroutine), "abandoned once");
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for worker in &self.workers {
            worker.face.kick();
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// To be called when all threads have ended: each coroutine has run, or was abandoned.
    fn check(&self) {
        let [spawned, ran, abandoned] =
            [&self.spawned, &self.ran, &self.abandoned].map(|set| set.load(Ordering::Relaxed));
        assert_eq!(ran & abandoned, 0, "none has run and was abandoned");
        assert_eq!(ran | abandoned, spawned, "none is lost");
    }

    /// Like `check`, if no coroutine may have been abandoned.
    fn check_all_ran(&self) {
        self.check();
        assert_eq!(self.abandoned.load(Ordering::Relaxed), 0);
    }
}

/// A thread that drives a worker.
struct Driver<'a> {
    runtime: &'a Arc<Runtime>,
    index: usize,
    holding: Cell<bool>,
}

impl Driver<'_> {
    fn worker(&self) -> &Worker {
        &self.runtime.workers[self.index]
    }

    /// Like `Worker::push_fresh`.
    fn spawn(&self, coroutine: usize) {
        assert!(add(&self.runtime.spawned, coroutine));
        self.worker().fresh.push(coroutine);
        self.runtime.sleep.notify(&**self.runtime);
    }

    /// Like `Worker::drive_until_stopped`.
    fn drive(&self) {
        let runtime = self.runtime;
        self.worker().face.attention.wake_up();
        while !runtime.is_stopping() {
            self.turn();
        }
        while let Some(coroutine) = self.next_fresh() {
            self.start(coroutine);
        }
        self.worker().face.attention.go_away();
    }

    fn turn(&self) {
        self.take_share();
        self.holding.set(false);
        for coroutine in self.worker().face.take_mail() {
            (self.runtime.body)(self, coroutine);
        }
        while let Some(coroutine) = self.next_fresh() {
            self.start(coroutine);
        }
        self.find_work_or_sleep();
    }

    fn next_fresh(&self) -> Option<usize> {
        if self.holds_back() {
            return None;
        }
        let own = self.worker().fresh.take();
        own.or_else(|| self.runtime.injector.take())
    }

    fn start(&self, coroutine: usize) {
        let runtime = self.runtime;
        if runtime.is_stopping() {
            return runtime.abandon(coroutine);
        }
        assert!(add(&runtime.ran, coroutine), "run once");
        (runtime.body)(self, coroutine);
        if runtime.to_run.fetch_sub(1, Ordering::Relaxed) == 1 {
            runtime.stop();
        }
    }

    /// Like `Worker::holds_back`. The `placement` is patient until the model ends that.
    fn holds_back(&self) -> bool {
        let runtime = self.runtime;
        if self.holding.get() {
            return true;
        }
        let hold = self.worker().patient.load(Ordering::Acquire)
            && !runtime.is_stopping()
            && runtime.any_fresh();
        if hold {
            self.holding.set(true);
            let other = &runtime.workers[(self.index + 1) % runtime.workers.len()];
            if other.face.attention.is_at_work() {
                other.offered.store(true, Ordering::Relaxed);
                other.face.kick();
            }
        }
        hold
    }

    /// Like `Worker::finds_work_instead_of_sleep`.
    fn find_work_or_sleep(&self) {
        let runtime = self.runtime;
        let face = &self.worker().face;
        let fresh = match runtime.workers.len() {
            1 => {
                face.attention.fall_asleep();
                runtime.any_fresh() && !self.holding.get()
            }
            _ if self.search_or_fall_asleep() => return,
            _ => false,
        };
        if !fresh && !face.has_mail() && !runtime.is_stopping() {
            face.kicked.wait();
        }
        self.holding.set(false);
        if face.attention.wake_up() && !self.search() {
            self.give_up_search();
        }
    }

    fn search_or_fall_asleep(&self) -> bool {
        let runtime = self.runtime;
        let face = &self.worker().face;
        runtime.sleep.start_searching();
        loop {
            if self.search() {
                return true;
            }
            if !self.worker().fresh.is_empty() && !self.holding.get() {
                self.give_up_search();
                return true;
            }
            face.attention.fall_asleep();
            runtime.sleep.stop_searching();
            fence(Ordering::SeqCst);
            if !runtime.any_fresh() || self.holding.get() {
                return false;
            }
            if !face.attention.wake_up() {
                runtime.sleep.start_searching();
            }
        }
    }

    fn give_up_search(&self) {
        let runtime = self.runtime;
        if runtime.sleep.stop_searching() {
            fence(Ordering::SeqCst);
            if runtime.any_fresh() {
                runtime.sleep.notify(&**runtime);
            }
        }
    }

    fn search(&self) -> bool {
        let runtime = self.runtime;
        if self.holds_back() {
            return false;
        }
        let Some(coroutine) = self.steal() else {
            return false;
        };
        if runtime.sleep.stop_searching() && runtime.any_fresh() {
            runtime.sleep.notify(&**runtime);
        }
        self.start(coroutine);
        true
    }

    fn take_share(&self) {
        let offered = &self.worker().offered;
        if !offered.load(Ordering::Relaxed) || !self.worker().fresh.is_empty() {
            return;
        }
        match (!self.holds_back()).then(|| self.steal()).flatten() {
            Some(coroutine) => {
                if !self.worker().fresh.is_empty() {
                    self.runtime.sleep.notify(&**self.runtime);
                }
                self.start(coroutine);
            }
            None => offered.store(false, Ordering::Relaxed),
        }
    }

    /// Takes a coroutine of another worker, or of the injector. Also moves a second one, if there is
    /// one, to the own deque.
    fn steal(&self) -> Option<usize> {
        let runtime = self.runtime;
        let others = runtime.workers.iter().enumerate();
        let others = others.filter(|&(index, _)| index != self.index);
        let mut queues = [&runtime.injector]
            .into_iter()
            .chain(others.map(|(_, worker)| &worker.fresh));
        queues.find_map(|queue| {
            let first = queue.take()?;
            if !queue.is_empty()
                && let Some(second) = queue.take()
            {
                self.worker().fresh.push(second);
            }
            Some(first)
        })
    }

    /// Like `Worker::wait_with`: waits for mail or a shutdown, and runs no other coroutine meanwhile.
    fn wait_alone(&self) {
        let face = &self.worker().face;
        while !self.runtime.is_stopping() && face.take_mail().is_empty() {
            face.attention.fall_asleep_alone();
            if !face.has_mail() && !self.runtime.is_stopping() {
                face.kicked.wait();
            }
            assert!(!face.attention.wake_up(), "no thread may have it search");
        }
    }
}

fn drive(runtime: &Arc<Runtime>, index: usize) {
    let holding = Cell::new(false);
    let driver = Driver {
        runtime,
        index,
        holding,
    };
    driver.drive();
}

/// Drives the first worker here, and the others in threads of their own. Returns when these threads and
/// `threads` have ended.
fn run(runtime: &Arc<Runtime>, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    let threads: Vec<_> = threads.into_iter().chain(others(runtime)).collect();
    drive(runtime, 0);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Like `run`, but this thread drives its worker only to shut down, like `Runtime::shut_down`. Its last
/// look at the injector comes after the fence of its own kicks.
fn shut_down(runtime: &Arc<Runtime>, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    let others = others(runtime);
    runtime.stop();
    drive(runtime, 0);
    for other in others {
        other.join().unwrap();
    }
    runtime.abandon_injected();
    for thread in threads {
        thread.join().unwrap();
    }
    runtime.check();
}

fn others(runtime: &Arc<Runtime>) -> Vec<thread::JoinHandle<()>> {
    let others = 1..runtime.workers.len();
    others
        .map(|index| {
            let runtime = runtime.clone();
            thread::spawn(move || drive(&runtime, index))
        })
        .collect()
}

/// Starts a thread that spawns `coroutines`.
fn pusher(
    runtime: &Arc<Runtime>,
    coroutines: impl IntoIterator<Item = usize> + Send + 'static,
) -> thread::JoinHandle<()> {
    let runtime = runtime.clone();
    thread::spawn(move || {
        for coroutine in coroutines {
            runtime.spawn(coroutine);
        }
    })
}

/// Makes a worker hold back, and starts a thread that ends this. Its kick stands for the worker's
/// timer.
fn end_of_patience(runtime: &Arc<Runtime>, index: usize) -> thread::JoinHandle<()> {
    runtime.workers[index]
        .patient
        .store(true, Ordering::Release);
    let runtime = runtime.clone();
    thread::spawn(move || {
        let worker = &runtime.workers[index];
        worker.patient.store(false, Ordering::Release);
        worker.face.kicked.raise();
    })
}

// Every coroutine that is pushed must run, whichever workers sleep. If one is forgotten, all threads
// block for ever, which the tools report.

fn one_pusher_one_worker() {
    let runtime = Runtime::new(1, 1, |_, _| ());
    run(&runtime, [pusher(&runtime, [0])]);
    runtime.check_all_ran();
}

fn two_pushers_one_worker() {
    let runtime = Runtime::new(1, 2, |_, _| ());
    run(&runtime, [0, 1].map(|one| pusher(&runtime, [one])));
    runtime.check_all_ran();
}

fn one_pusher_two_workers() {
    let runtime = Runtime::new(2, 1, |_, _| ());
    run(&runtime, [pusher(&runtime, [0])]);
    runtime.check_all_ran();
}

/// A coroutine keeps its worker until the coroutine that it has spawned has run on the other worker.
fn spawn_by_a_busy_worker() {
    let runtime = Runtime::new(2, 2, |driver, coroutine| match coroutine {
        0 => {
            driver.spawn(1);
            driver.runtime.signals[0].wait();
        }
        _ => driver.runtime.signals[0].raise(),
    });
    assert!(add(&runtime.spawned, 0));
    runtime.workers[0].fresh.push(0);
    run(&runtime, []);
    runtime.check_all_ran();
}

/// The number of a coroutine that has started, and is woken by mail.
const WOKEN: usize = 30;

/// Two coroutines keep their workers until the coroutine that one of them has spawned has run. The other one is woken
/// at any time, so its worker may have just looked for fresh coroutines, perhaps for the one that was spawned before.
/// The third worker must run the coroutine.
fn spawn_relies_on_a_searcher_with_mail() {
    let runtime = Runtime::new(3, 3, |driver, coroutine| {
        let signals = &driver.runtime.signals;
        match coroutine {
            0 => driver.spawn(1),
            1 => {
                driver.spawn(2);
                signals[0].wait();
            }
            WOKEN => {
                signals[1].wait();
            }
            _ => signals.iter().for_each(Signal::raise),
        }
    });
    assert!(add(&runtime.spawned, 0));
    runtime.workers[0].fresh.push(0);
    let waker = {
        let runtime = runtime.clone();
        thread::spawn(move || runtime.workers[1].face.send(WOKEN))
    };
    run(&runtime, [waker]);
    runtime.check_all_ran();
}

/// A worker that has a share offered takes two coroutines, the first of which keeps it until the second has run. The
/// worker that has spawned them is kept, too, so the third one must run the second.
fn share_of_a_busy_worker() {
    let runtime = Runtime::new(3, 3, |driver, coroutine| {
        let signals = &driver.runtime.signals;
        match coroutine {
            2 => signals.iter().for_each(Signal::raise),
            _ => drop(signals[coroutine].wait()),
        }
    });
    for coroutine in [0, 1, 2] {
        assert!(add(&runtime.spawned, coroutine));
        runtime.workers[0].fresh.push(coroutine);
    }
    runtime.workers[1].offered.store(true, Ordering::Relaxed);
    run(&runtime, []);
    runtime.check_all_ran();
}

/// The first worker holds back for ever. The second one must take its coroutine.
fn offer_against_sleep() {
    let runtime = Runtime::new(2, 1, |driver, _| assert_eq!(driver.index, 1));
    runtime.workers[0].patient.store(true, Ordering::Release);
    assert!(add(&runtime.spawned, 0));
    runtime.workers[0].fresh.push(0);
    run(&runtime, []);
    runtime.check_all_ran();
}

/// A worker that is alone holds back for a while, and then must take the coroutine itself.
fn spawn_against_patience() {
    let runtime = Runtime::new(1, 1, |_, _| ());
    let timer = end_of_patience(&runtime, 0);
    run(&runtime, [timer, pusher(&runtime, [0])]);
    runtime.check_all_ran();
}

fn stop_against_spawn() {
    let runtime = Runtime::new(2, usize::MAX, |_, _| ());
    shut_down(&runtime, [pusher(&runtime, [0])]);
}

/// A shutdown while another worker steals from the first.
fn stop_against_steal() {
    let runtime = Runtime::new(2, usize::MAX, |_, _| ());
    for coroutine in [0, 1] {
        assert!(add(&runtime.spawned, coroutine));
        runtime.workers[0].fresh.push(coroutine);
    }
    shut_down(&runtime, []);
}

/// A coroutine that waits alone, for mail that never comes, must see the shutdown.
fn stop_against_waiting_alone() {
    let runtime = Runtime::new(2, usize::MAX, |driver, _| driver.wait_alone());
    assert!(add(&runtime.spawned, 0));
    runtime.injector.push(0);
    shut_down(&runtime, []);
}

/// The code of coroutines in large models: the first two spawn two more each, on their own workers.
fn spawn_more(driver: &Driver<'_>, coroutine: usize) {
    if coroutine < 2 {
        driver.spawn(10 + 2 * coroutine);
        driver.spawn(11 + 2 * coroutine);
    }
}

fn pushers(runtime: &Arc<Runtime>) -> [thread::JoinHandle<()>; 3] {
    [0, 1, 2].map(|first| pusher(runtime, (first..9).step_by(3)))
}

/// The number of coroutines that `pushers` and `spawn_more` spawn.
const MANY: usize = 9 + 4;

fn many_for_one() {
    let runtime = Runtime::new(1, MANY, spawn_more);
    run(&runtime, pushers(&runtime));
    runtime.check_all_ran();
}

fn many_spawns() {
    let runtime = Runtime::new(4, MANY, spawn_more);
    run(&runtime, pushers(&runtime));
    runtime.check_all_ran();
}

fn stop_against_many() {
    let runtime = Runtime::new(5, usize::MAX, spawn_more);
    shut_down(&runtime, pushers(&runtime));
}

/// A coroutine stops its own runtime, as when it drops it. No thread abandons coroutines afterwards, so
/// the workers' last looks must find all. The sequentially consistent accesses of crossbeam's injector
/// guarantee that, not a fence. Loom does not model them, so only shuttle checks this.
fn stop_from_within() {
    let runtime = Runtime::new(4, usize::MAX, |driver, coroutine| {
        spawn_more(driver, coroutine);
        if coroutine == 4 {
            driver.runtime.stop();
        }
    });
    run(&runtime, pushers(&runtime));
    runtime.check();
}

/// Two of the workers hold back for a while.
fn many_held_back() {
    let runtime = Runtime::new(4, MANY, spawn_more);
    let timers = [0, 2].map(|index| end_of_patience(&runtime, index));
    run(&runtime, pushers(&runtime).into_iter().chain(timers));
    runtime.check_all_ran();
}

/// Some coroutines wait alone for mail from outside, perhaps on all workers at once.
fn many_while_alone() {
    let runtime = Runtime::new(3, MANY, |driver, coroutine| {
        spawn_more(driver, coroutine);
        if coroutine % 3 == 0 {
            let (runtime, index) = (driver.runtime.clone(), driver.index);
            thread::spawn(move || runtime.workers[index].face.send(coroutine));
            driver.wait_alone();
        }
    });
    run(&runtime, pushers(&runtime));
    runtime.check_all_ran();
}
