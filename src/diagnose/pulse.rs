//! What can be seen of a worker from outside while a coroutine holds it.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::monitor::{self, Look};
use crate::coroutine::{Seen, Sight};
use crate::sys::switches::own_lock;
use crate::sys::thread_state::{ForeignCell, OwnMemory};
use crate::task::{self, Identity, RunningCell};

/// A worker, for the [monitor](super::monitor) and for dumps.
pub(crate) struct Pulse {
    /// Whether the worker waits in its poll with nothing to run, or no thread drives it.
    asleep: AtomicBool,
    /// The thread that drives the worker.
    driver: Mutex<Option<Driver>>,
    /// What the monitor has seen.
    look: Mutex<Look>,
}

/// The thread that drives a worker, for other threads.
#[derive(Clone, Copy)]
pub(super) struct Driver {
    /// How many turns of coroutines have begun.
    turns: ForeignCell<u64>,
    /// Which coroutine it runs.
    pub(super) running: RunningCell,
    /// Where the stack of that coroutine is.
    pub(super) sight: Sight,
}

impl Pulse {
    /// The pulse of a new worker, which is not driven yet. The monitor sees it for as long as it exists.
    pub(crate) fn new() -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            asleep: AtomicBool::new(true),
            driver: Mutex::new(None),
            look: Mutex::new(Look::new()),
        });
        monitor::add(&pulse);
        pulse
    }

    /// The calling thread begins to drive the worker, and counts its turns in that cell; or it has stopped.
    pub(crate) fn set_driven(&self, turns: Option<&Cell<u64>>) {
        let driver = turns.map(|turns| Driver {
            turns: ForeignCell::new(turns),
            running: task::running_cell(),
            sight: Sight::of_this_thread(),
        });
        let driven = driver.is_some();
        *own_lock(&self.driver) = driver;
        match driven {
            true => self.wake_up(),
            false => self.fall_asleep(),
        }
    }

    /// Whether a thread drives the worker.
    pub(crate) fn is_driven(&self) -> bool {
        own_lock(&self.driver).is_some()
    }

    /// The worker has nothing to run, and is about to wait. Called by the worker.
    #[inline]
    pub(crate) fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
    }

    /// The worker may run coroutines again. Called by the worker.
    #[inline]
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        monitor::note_awake();
    }

    /// Whether the worker waits with nothing to run.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// The address of the task that the worker runs, or has just run.
    pub(crate) fn running(&self, memory: &OwnMemory) -> Option<usize> {
        self.with_driver(|driver| driver.running.address(memory))?
    }

    /// What the monitor has seen of the worker. Locked by the monitor only.
    pub(super) fn look(&self) -> &Mutex<Look> {
        &self.look
    }

    /// The coroutine that holds the worker, and what can be seen of it if `with_sight`. `None` if its turn has ended, or
    /// the calling thread drives the worker.
    pub(crate) fn holder(&self, with_sight: bool) -> Option<(Identity, Option<Seen>)> {
        let memory = OwnMemory::open().ok()?;
        let turn = self.with_driver(|driver| {
            let is_foreign = driver.sight.is_of_another_thread();
            is_foreign.then(|| driver.turns(&memory)).flatten()
        })??;
        self.holder_in(turn, &memory, with_sight)
    }

    /// Like `holder`, in the turn with this number.
    pub(super) fn holder_in(
        &self,
        turn: u64,
        memory: &OwnMemory,
        with_sight: bool,
    ) -> Option<(Identity, Option<Seen>)> {
        self.with_driver(|driver| {
            let is_same = || driver.turns(memory) == Some(turn) && !self.is_asleep();
            let identity = driver.running.identity(memory, is_same)?;
            let seen = match with_sight {
                true => Some(driver.sight.look(is_same)?),
                false => None,
            };
            Some((identity, seen))
        })?
    }

    /// Calls `f` with the driver, which does not stop to drive the worker meanwhile.
    pub(super) fn with_driver<R>(&self, f: impl FnOnce(Driver) -> R) -> Option<R> {
        let driver = own_lock(&self.driver);
        driver.map(f)
    }
}

impl Driver {
    /// How many turns have begun. `None` if the memory cannot be read.
    pub(super) fn turns(&self, memory: &OwnMemory) -> Option<u64> {
        self.turns.read(memory)
    }
}
