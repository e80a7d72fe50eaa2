//! The coroutine that fires the timers of a runtime.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::spawn::Builder;
use crate::context;
use crate::park;
use crate::task::Deadline;
use crate::time::{Added, Agenda, Next, Timer};
use crate::worker::Scheduler;

/// The keeper yields after spawning this many closures.
const BATCH: usize = 64;

/// The keeper tries again after this time if no stack is available.
const RETRY: Duration = Duration::from_millis(2);

/// Adds a timer to the agenda of `scheduler`. Spawns the keeper if there is none.
///
/// # Errors
///
/// Those of spawning the keeper. The timer is not pending then.
pub(super) fn add(
    scheduler: &Scheduler,
    timer: &Arc<Timer>,
    deadline: Option<Deadline>,
) -> io::Result<()> {
    let agenda = scheduler.agenda();
    // Comes first, so that an error leaves the timer as it was.
    agenda.ensure_keeper(|| {
        let tenure = Tenure {
            agenda: Arc::clone(agenda),
            scheduler: None,
        };
        let builder = Builder::new().name("timers".into());
        let spawn = || builder.spawn_keeper(scheduler, timer.site(), || keep(tenure));
        // The keeper works for all callers, so it has no values of this one.
        context::without(spawn)
    })?;
    match agenda.add(timer, deadline, || scheduler.end_idling()) {
        Added::Pending => Ok(()),
        // The keeper was spawned, and found no stack on its first turn.
        Added::Unkept => Err(io::ErrorKind::OutOfMemory.into()),
        // The timer ends as if it had been pending when the keeper ended.
        Added::TooLate => {
            timer.discard_quietly();
            Ok(())
        }
    }
}

/// Tells the agenda when the keeper has ended. The keeper's closure owns it, so it is dropped even if
/// the keeper is not spawned, or never runs because no stack is available or its runtime stops.
struct Tenure {
    agenda: Arc<Agenda>,
    /// The keeper's scheduler; `None` before the first turn.
    scheduler: Option<Arc<Scheduler>>,
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.agenda.end(|| {
            // `None` is impossible here: a keeper that idles has had a turn.
            if let Some(scheduler) = &self.scheduler {
                scheduler.end_idling();
            }
        });
    }
}

/// The body of the keeper. Returns, or unwinds, when its runtime stops.
fn keep(mut tenure: Tenure) {
    let agenda = Arc::clone(&tenure.agenda);
    let scheduler = Scheduler::current().expect("a keeper is a coroutine");
    tenure.scheduler = Some(Arc::clone(&scheduler));
    // The spawner may not have come to note that it has succeeded.
    agenda.take_up();
    let mut fired = 0;
    while !scheduler.is_stopping() {
        match agenda.next(Instant::now(), || scheduler.begin_idling()) {
            Next::Fire(timer) => {
                fire(&scheduler, timer);
                fired += 1;
                // The closures that were spawned get their turns before many more are.
                if fired % BATCH == 0 {
                    park::yield_now();
                }
            }
            Next::Sleep(deadline) => agenda.sleep(deadline),
            // The keeper counts as idling already. Callers of `wait_idle` may have waited for that.
            Next::Idle => {
                scheduler.look();
                agenda.sleep(None);
            }
        }
    }
}

/// Spawns the closure of a timer, as soon as a stack is available.
///
/// # Unwinding
///
/// If the runtime shuts down before that.
fn fire(scheduler: &Scheduler, timer: Arc<Timer>) {
    let site = timer.site();
    let mut fired = Fired(Some(timer));
    // Not given up, as `Fired` sees it: an attempt that fails would drop the closure otherwise.
    while fired.0.as_ref().is_some_and(|timer| !timer.is_given_up()) {
        // A spawn consumes the closure even if it fails, so each attempt has a clone of its own.
        let run = Fired(fired.0.clone());
        // SAFETY: the closure owns what it uses; it and its result borrow nothing.
        let spawned = unsafe { Builder::new().spawn_with_guard(scheduler, site, || run.run(), ()) };
        // `run` is now in the hands of the spawned coroutine.
        if spawned.is_ok() {
            fired.0 = None;
            return;
        }
        park::sleep(RETRY);
    }
}

/// A timer that has fired, until its closure runs. If this is dropped before, because the runtime shuts
/// down, the closure is dropped too: timer handles may keep the timer alive, but must not keep its
/// closure.
struct Fired(Option<Arc<Timer>>);

impl Fired {
    /// The body of the coroutine: runs the closure.
    fn run(mut self) {
        if let Some(timer) = self.0.take() {
            timer.run();
        }
    }
}

impl Drop for Fired {
    fn drop(&mut self) {
        // If the runtime goes on, only the spawn has failed, and the keeper will try again.
        if let Some(timer) = self.0.take_if(|timer| timer.is_given_up()) {
            timer.discard_quietly();
        }
    }
}
