//! The building blocks of models, from loom.

use std::time::Instant;

use loom::sync::Notify;

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::{Arc, Condvar, Mutex};
pub(crate) use loom::thread;
pub(crate) use loom::thread_local as thread_of_model;

use crate::models;
use atomic::{AtomicUsize, Ordering};

pub(crate) mod atomic {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;

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
        loom::hint::spin_loop();
    }
}

/// Blocks a thread until another raises it. Stands for the switch to a coroutine's worker, or for a
/// worker's poll.
pub(crate) struct Signal {
    raised: AtomicUsize,
    notify: Notify,
}

impl Signal {
    pub(crate) fn new() -> Signal {
        Signal {
            raised: AtomicUsize::new(0),
            notify: Notify::new(),
        }
    }

    pub(crate) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::Release);
        self.notify.notify();
    }

    /// Waits until the signal has been raised since the last call. Returns how often it was.
    pub(crate) fn wait(&self) -> usize {
        loop {
            match self.raised.swap(0, Ordering::Acquire) {
                // Loom's `wait` may return spuriously.
                0 => self.notify.wait(),
                raised => return raised,
            }
        }
    }
}

/// Checks the small models whose names contain `wanted`. Returns how many there are.
pub(crate) fn all(wanted: &str) -> usize {
    let mut held = 0;
    for model in models::all().filter(|model| model.name.contains(wanted)) {
        let Some(preemptions) = model.preemptions else {
            continue;
        };
        let start = Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model.run);
        let seconds = start.elapsed().as_secs_f64();
        println!("loom: {}: holds ({seconds:.1} s)", model.name);
        held += 1;
    }
    held
}
