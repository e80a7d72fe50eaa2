//! Whether a runtime is idle, and waiters for that: `worker/census.rs`.
//!
//! Each worker and each waiter is a thread. The keeper of timers is the coroutine that idles until a
//! timer is set: see `runtime/after.rs`.

use super::census::{Census, Tally};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "idling: a coroutine sets a timer and ends, against a look",
        3,
        a_timer_is_handed_on,
    ),
    small(
        "idling: the last two coroutines end, against a waiter",
        3,
        two_ends,
    ),
    small(
        "idling: a keeper begins to idle, against a waiter",
        3,
        the_keeper_idles,
    ),
    small("idling: a coroutine and a thread wait", 2, two_waiters),
    large("idling: many timers, against two waiters", many),
];

struct Runtime {
    census: Census,
    workers: [Tally; 2],
    /// The number of coroutines and timers that are not over, for the model's own checks.
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

    /// Like `Scheduler::wait_idle`, called by a coroutine or by a thread.
    fn wait_idle(&self, is_coroutine: bool) {
        let _wait = self.census.begin_wait(is_coroutine);
        self.look();
        self.census.wait(|| self.is_idle());
    }

    /// Spawns a coroutine on worker `number`.
    fn spawn(&self, number: usize) {
        self.there.fetch_add(1, Ordering::Relaxed);
        self.workers[number].count_in();
    }

    /// Ends a coroutine of worker `number`.
    fn end(&self, number: usize) {
        self.there.fetch_sub(1, Ordering::Relaxed);
        self.workers[number].count_out();
        self.look();
    }

    /// Spawns the keeper on worker 0. It idles.
    fn begin_keeping(&self) {
        self.workers[0].count_in();
        self.census.begin_idling();
    }

    fn set_timer(&self) {
        self.there.fetch_add(1, Ordering::Relaxed);
        self.census.end_idling();
    }

    /// Fires the only timer: the keeper spawns its closure, and idles again.
    fn fire(&self) {
        self.workers[0].count_in();
        self.census.begin_idling();
        self.look();
    }

    fn assert_nothing_is_there(&self) {
        assert_eq!(self.there.load(Ordering::Relaxed), 0);
    }
}

/// At every moment there is a coroutine, or the timer that it has set, or the coroutine of the timer.
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

/// The waiter is woken by the second end, whichever that is, and not before.
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

/// The closure of the last timer has ended, and the keeper idles: the waiter must see that.
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

/// A coroutine in `wait_idle` does not keep the thread in `wait_idle` from returning, nor itself.
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

/// Coroutines of worker 1 set a timer each and end, one after the other, while two threads wait.
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
