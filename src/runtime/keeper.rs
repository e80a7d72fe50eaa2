//! The coroutine that fires the timers of a runtime.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spawn::Builder;
use crate::park;
use crate::task::Deadline;
use crate::time::{Added, Agenda, Next, Timer};
use crate::worker::{Scheduler, Worker};

/// How many closures the keeper spawns before it lets others of its worker run.
const BATCH: usize = 64;

/// How long it waits for a stack to become free.
const RETRY: Duration = Duration::from_millis(2);

/// Adds a timer to those of `scheduler`, and spawns the keeper if there is none.
///
/// # Errors
///
/// Those of spawning the keeper; then the timer is not pending.
pub(super) fn add(
    scheduler: &Scheduler,
    timer: &Arc<Timer>,
    deadline: Option<Deadline>,
) -> io::Result<()> {
    let agenda = scheduler.agenda();
    agenda.ensure_keeper(|| {
        let tenure = Tenure {
            agenda: Arc::clone(agenda),
            scheduler: None,
        };
        let builder = Builder::new().name("timers".into());
        // SAFETY: the closure borrows nothing.
        let spawned =
            unsafe { builder.spawn_with_guard(scheduler, timer.site(), || keep(tenure), ()) };
        spawned.map(drop)
    })?;
    match agenda.add(timer, deadline, || scheduler.end_idling()) {
        Added::Pending => Ok(()),
        Added::Unkept => Err(io::ErrorKind::OutOfMemory.into()),
        Added::TooLate => {
            timer.discard_quietly();
            Ok(())
        }
    }
}

/// The office of the keeper. Dropped when the keeper ends, or when it ends before its first turn
/// because no stack could be had or its runtime stops.
struct Tenure {
    agenda: Arc<Agenda>,
    /// The keeper's own, from its first turn on.
    scheduler: Option<Arc<Scheduler>>,
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.agenda.end(is_stopping(), || {
            // It idles, so it has had a turn.
            if let Some(scheduler) = &self.scheduler {
                scheduler.end_idling();
            }
        });
    }
}

/// Whether the runtime of the calling worker shuts down.
fn is_stopping() -> bool {
    Worker::with_current(|worker| worker.is_some_and(|worker| worker.scheduler().is_stopping()))
}

/// What the keeper runs, until its runtime stops.
fn keep(mut tenure: Tenure) {
    let agenda = Arc::clone(&tenure.agenda);
    let scheduler = Scheduler::current().expect("a keeper is a coroutine");
    tenure.scheduler = Some(Arc::clone(&scheduler));
    agenda.take_up();
    let mut fired = 0;
    while !scheduler.is_stopping() {
        match agenda.next(Instant::now(), || scheduler.begin_idling()) {
            Next::Fire(timer) => {
                fire(&scheduler, timer);
                fired += 1;
                if fired % BATCH == 0 {
                    park::yield_now();
                }
            }
            Next::Sleep(deadline) => agenda.sleep(deadline),
            Next::Idle => {
                scheduler.look();
                agenda.sleep(None);
            }
        }
    }
}

/// Spawns the closure of a timer, as soon as that is possible.
///
/// # Unwinding
///
/// If the runtime shuts down before it is.
fn fire(scheduler: &Scheduler, timer: Arc<Timer>) {
    let site = timer.site();
    let mut fired = Fired(Some(timer));
    while !is_stopping() {
        let run = Fired(fired.0.clone());
        // SAFETY: nothing is borrowed.
        let spawned = unsafe { Builder::new().spawn_with_guard(scheduler, site, || run.run(), ()) };
        if spawned.is_ok() {
            fired.0 = None;
            return;
        }
        park::sleep(RETRY);
    }
}

/// A timer that has fired, until its closure runs. Handles may keep the timer, but not a closure
/// that will not run: dropped because the runtime shuts down, this drops it.
struct Fired(Option<Arc<Timer>>);

impl Fired {
    fn run(mut self) {
        if let Some(timer) = self.0.take() {
            timer.run();
        }
    }
}

impl Drop for Fired {
    fn drop(&mut self) {
        // Not where a spawn has failed, which is tried again.
        if let Some(timer) = self.0.take_if(|_| is_stopping()) {
            timer.discard_quietly();
        }
    }
}
