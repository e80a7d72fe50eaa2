//! What models are made of, by shuttle.

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

/// Random schedules, and as many of PCT's, that a model is run under.
const SCHEDULES: usize = 15_000;

/// Preemptions that PCT places in a schedule, and one.
const DEPTH: usize = 4;

/// A model that takes more steps than this does not end.
const STEPS: usize = 100_000;

/// What a thread blocks in: the switch to a coroutine's owner, or a worker's poll.
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

    /// Waits until it has been raised since the last time, and returns how often.
    pub(crate) fn wait(&self) -> usize {
        let mut raised = self.raised.lock().unwrap();
        while *raised == 0 {
            raised = self.changed.wait(raised).unwrap();
        }
        std::mem::take(&mut *raised)
    }
}

/// As loom's: two that use it at a time are seen.
pub(crate) struct UnsafeCell<T> {
    /// Those who read it, or `WRITER`.
    users: AtomicUsize,
    value: std::cell::UnsafeCell<T>,
}

const WRITER: usize = usize::MAX / 2;

// SAFETY: `with` and `with_mut` panic where two threads would use the value, one of them to write.
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
        // Others may come in here.
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

/// Checks the models whose names contain `wanted`; returns how many.
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

/// Runs the models whose names contain `wanted` under the schedule that a failure has printed;
/// returns how many.
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
    // The weaker orderings are loom's part.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model.run);
}
