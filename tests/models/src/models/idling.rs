//! Whether a runtime is idle, and who waits for that: `worker/census.rs`.
//!
//! The workers are threads, and so is whoever waits. The keeper of timers is the coroutine that idles
//! until a timer is set: see `time/agenda.rs`.

use super::census::{Census, Tally};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "idling: a timer is handed on while somebody looks",
        3,
        a_timer_is_handed_on,
    ),
    small("idling: two last ends against a waiter", 3, two_ends),
    small(
        "idling: a keeper that begins to idle against a waiter",
        3,
        the_keeper_idles,
    ),
    small(
        "idling: a coroutine and a thread that both wait",
        2,
        two_waiters,
    ),
    large("idling: timers of many, some of whom wait", many),
];

struct Runtime {
    census: Census,
    workers: [Tally; 2],
    /// Coroutines and timers that are not over, as the model knows.
    there: AtomicUsize,
}

impl Runtime {
    fn new() -> Arc<Runtime> {
        Arc::new(Runtime {
            census: Census::new(),
            workers: [(); 2].map(|()| Tally::new()),
            there: AtomicUsize::new(0),
        })
    }

    fn is_idle(&self) -> bool {
        self.census.is_idle(self.workers.iter())
    }

    fn look(&self) {
        self.census.look(|| self.is_idle());
    }

    /// As `Scheduler::wait_idle`, of a coroutine or of a thread.
    fn wait_idle(&self, is_coroutine: bool) {
        let _wait = self.census.begin_wait(is_coroutine);
        self.look();
        self.census.wait(|| self.is_idle());
    }

    /// Worker `number` spawns a coroutine.
    fn spawn(&self, number: usize) {
        self.there.fetch_add(1, Ordering::Relaxed);
        self.workers[number].count_in();
    }

    /// A coroutine of worker `number` ends.
    fn end(&self, number: usize) {
        self.there.fetch_sub(1, Ordering::Relaxed);
        self.workers[number].count_out();
        self.look();
    }

    /// The keeper, on worker 0, has nothing to do.
    fn begin_keeping(&self) {
        self.workers[0].count_in();
        self.census.begin_idling();
    }

    fn set_timer(&self) {
        self.there.fetch_add(1, Ordering::Relaxed);
        self.census.end_idling();
    }

    /// The keeper spawns the closure of the only timer, and idles again.
    fn fire(&self) {
        self.workers[0].count_in();
        self.census.begin_idling();
        self.look();
    }

    fn assert_nothing_is_there(&self) {
        assert_eq!(self.there.load(Ordering::Relaxed), 0);
    }
}

/// Something is there all the time: a coroutine, then the timer that it has set, then the coroutine
/// of that.
fn a_timer_is_handed_on() {
    let runtime = Runtime::new();
    runtime.begin_keeping();
    runtime.spawn(1);
    let is_set = Arc::new(Signal::new());
    let setter = thread::spawn({
        let (runtime, is_set) = (runtime.clone(), is_set.clone());
        move || {
            runtime.set_timer();
            is_set.raise();
            runtime.end(1);
        }
    });
    let keeper = thread::spawn({
        let runtime = runtime.clone();
        move || {
            is_set.wait();
            runtime.fire();
        }
    });
    assert!(!runtime.is_idle());
    setter.join().unwrap();
    keeper.join().unwrap();
}

fn two_ends() {
    let runtime = Runtime::new();
    let workers = [0, 1].map(|number| {
        runtime.spawn(number);
        let runtime = runtime.clone();
        thread::spawn(move || runtime.end(number))
    });
    runtime.wait_idle(false);
    runtime.assert_nothing_is_there();
    for worker in workers {
        worker.join().unwrap();
    }
}

fn the_keeper_idles() {
    let runtime = Runtime::new();
    runtime.begin_keeping();
    runtime.set_timer();
    let keeper = thread::spawn({
        let runtime = runtime.clone();
        move || {
            runtime.fire();
            runtime.end(0);
        }
    });
    runtime.wait_idle(false);
    runtime.assert_nothing_is_there();
    keeper.join().unwrap();
}

fn two_waiters() {
    let runtime = Runtime::new();
    runtime.spawn(0);
    let waits = thread::spawn({
        let runtime = runtime.clone();
        move || {
            runtime.wait_idle(true);
            runtime.end(0);
        }
    });
    runtime.wait_idle(false);
    waits.join().unwrap();
    assert!(runtime.is_idle());
}

/// Coroutines of worker 1 that set a timer each and end, one after the other, while two threads wait.
fn many() {
    const TIMERS: usize = 4;
    let runtime = Runtime::new();
    runtime.begin_keeping();
    for _ in 0..TIMERS {
        runtime.spawn(1);
    }
    let (set, fired) = (Arc::new(Signal::new()), Arc::new(Signal::new()));
    let setter = thread::spawn({
        let (runtime, set, fired) = (runtime.clone(), set.clone(), fired.clone());
        move || {
            for _ in 0..TIMERS {
                runtime.set_timer();
                set.raise();
                runtime.end(1);
                fired.wait();
            }
        }
    });
    let keeper = thread::spawn({
        let runtime = runtime.clone();
        move || {
            for _ in 0..TIMERS {
                set.wait();
                runtime.fire();
                fired.raise();
                runtime.end(0);
            }
        }
    });
    let waiters = [(); 2].map(|()| {
        let runtime = runtime.clone();
        thread::spawn(move || {
            runtime.wait_idle(false);
            runtime.assert_nothing_is_there();
        })
    });
    for thread in waiters.into_iter().chain([setter, keeper]) {
        thread.join().unwrap();
    }
}
