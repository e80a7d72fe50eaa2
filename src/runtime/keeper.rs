//! The coroutine that fires the timers of a runtime.

use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spawn::Builder;
use crate::park;
use crate::task::Deadline;
use crate::time::{Agenda, Next, Timer};
use crate::worker::{Scheduler, Worker};

/// How many closures the keeper spawns before it lets others of its worker run.
const BATCH: usize = 64;

/// How long it waits for a stack to become free.
const RETRY: Duration = Duration::from_millis(2);

/// Adds a timer to those of `scheduler`, and appoints a keeper if there is none.
///
/// # Errors
///
/// Those of spawning the keeper; then the timer is cancelled.
pub(super) fn add(
    scheduler: &Scheduler,
    timer: &Arc<Timer>,
    deadline: Option<Deadline>,
) -> io::Result<()> {
    if scheduler.agenda().add(timer, deadline) {
        return Ok(());
    }
    match appoint(scheduler, timer.site()) {
        // Another one's keeper may have fired it in the meantime.
        Err(error) if timer.cancel() => Err(error),
        _ => Ok(()),
    }
}

fn appoint(scheduler: &Scheduler, site: &'static Location<'static>) -> io::Result<()> {
    let agenda = Arc::clone(scheduler.agenda());
    let tenure = Tenure {
        agenda: Some(agenda),
        keeps: false,
    };
    let builder = Builder::new().name("timers".into());
    // SAFETY: nothing is borrowed.
    let spawned = unsafe { builder.spawn_with_guard(scheduler, site, || keep(tenure), ()) };
    // Where it was not spawned, its tenure has ended.
    scheduler.agenda().count_in();
    spawned.map(drop)
}

/// The office of a keeper, from before it is spawned.
struct Tenure {
    /// None, if it has ended as it should.
    agenda: Option<Arc<Agenda>>,
    keeps: bool,
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if let Some(agenda) = self.agenda.take() {
            agenda.retire(self.keeps, is_stopping());
        }
    }
}

/// Whether the runtime of the calling worker shuts down.
fn is_stopping() -> bool {
    Worker::with_current(|worker| worker.is_some_and(|worker| worker.scheduler().is_stopping()))
}

fn keep(mut tenure: Tenure) {
    let Some(agenda) = tenure.agenda.clone() else {
        return;
    };
    if !agenda.take_up() {
        tenure.agenda = None;
        return;
    }
    tenure.keeps = true;
    let scheduler = Scheduler::current().expect("a keeper is a coroutine");
    let mut fired = 0;
    while !scheduler.is_stopping() {
        match agenda.next(Instant::now()) {
            Next::Fire(timer) => {
                fire(&scheduler, timer);
                fired += 1;
                if fired % BATCH == 0 {
                    park::yield_now();
                }
            }
            Next::Sleep(deadline) => agenda.sleep(deadline),
            Next::End => {
                tenure.agenda = None;
                return;
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
