//! The building blocks of models, from shuttle.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

pub(crate) use shuttle::sync::{Arc, Condvar, Mutex};
pub(crate) use shuttle::thread;
pub(crate) use shuttle::thread_local as thread_of_model;

use crate::models::{self, Model};
use atomic::{AtomicUsize, Ordering};

pub(crate) mod atomic {
    pub(crate) use super::UnsafeCell;
    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;

    pub(crate) fn own_lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub(crate) mod process {
        pub(crate) fn count_forks() {}

        pub(crate) fn number() -> u32 {
            1
        }
    }

    pub(crate) fn pause(_times: u32) {
        shuttle::hint::spin_loop();
    }
}

/// Each model runs under this many random schedules, and under as many of PCT's.
const SCHEDULES: usize = 15_000;

/// PCT places this many preemptions in a schedule, less one.
const DEPTH: usize = 4;

/// A model that takes more steps than this is considered not to end.
const STEPS: usize = 100_000;

/// Blocks a thread until another raises it. Stands for the switch to a coroutine's worker, or for a
/// worker's poll.
pub(crate) struct Signal {
    raised: Mutex<usize>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal {
            raised: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn raise(&self) {
        *self.raised.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    /// Waits until the signal has been raised since the last call. Returns how often it was.
    pub(crate) fn wait(&self) -> usize {
        let mut raised = self.raised.lock().unwrap();
        while *raised == 0 {
            raised = self.changed.wait(raised).unwrap();
        }
        std::mem::take(&mut *raised)
    }
}

/// Like loom's: panics if two threads use the value at the same time, and one of them writes.
pub(crate) struct UnsafeCell<T> {
    /// The number of readers; at least `WRITER` while somebody writes.
    users: AtomicUsize,
    value: std::cell::UnsafeCell<T>,
}

const WRITER: usize = usize::MAX / 2;

// SAFETY: `with` and `with_mut` panic before a thread could use the value while another writes it.
unsafe impl<T: Send + Sync> Sync for UnsafeCell<T> {}

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell {
            users: AtomicUsize::new(0),
            value: std::cell::UnsafeCell::new(value),
        }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        let others = self.users.fetch_add(1, Ordering::SeqCst);
        assert!(others < WRITER, "read while it is written");
        let result = f(self.value.get());
        // A schedule may switch to another thread before this.
        self.users.fetch_sub(1, Ordering::SeqCst);
        result
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        let others = self.users.fetch_add(WRITER, Ordering::SeqCst);
        assert_eq!(others, 0, "written while it is used");
        let result = f(self.value.get());
        self.users.fetch_sub(WRITER, Ordering::SeqCst);
        result
    }
}

/// Checks the models whose names contain `wanted`. Returns how many there are.
pub fn all(wanted: &str) -> usize {
    let seed = match std::env::var("SHUTTLE_RANDOM_SEED") {
        Ok(seed) => seed.parse().expect("SHUTTLE_RANDOM_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("shuttle: SHUTTLE_RANDOM_SEED={seed}");
    let mut held = 0;
    for model in models::all().filter(|model| model.name.contains(wanted)) {
        let start = Instant::now();
        run(model, RandomScheduler::new_from_seed(seed, SCHEDULES));
        run(model, PctScheduler::new_from_seed(seed, DEPTH, SCHEDULES));
        let seconds = start.elapsed().as_secs_f64();
        println!("shuttle: {}: holds ({seconds:.1} s)", model.name);
        held += 1;
    }
    held
}

/// Runs the models whose names contain `wanted` under the schedule that a failure has printed. Returns
/// how many there are.
pub fn replay(wanted: &str, schedule: &str) -> usize {
    let mut held = 0;
    for model in models::all().filter(|model| model.name.contains(wanted)) {
        run(model, ReplayScheduler::new_from_encoded(schedule));
        println!("shuttle: {}: holds", model.name);
        held += 1;
    }
    held
}

fn run(model: &Model, scheduler: impl Scheduler + 'static) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS);
    // Shuttle warns that it does not check weak orderings. Loom does.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model.run);
}
