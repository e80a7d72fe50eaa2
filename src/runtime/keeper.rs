//! The coroutine that fires the timers of a runtime.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::join::{Failure, PacketGuard};
use super::spawn::Builder;
use crate::context;
use crate::park;
use crate::task::{Deadline, Task};
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
    let fired = Fired(Some(timer));
    // Comes first, because a spawn that fails would drop the closure.
    let builder = loop {
        match Builder::new().with_stack_of(scheduler) {
            Ok(builder) => break builder,
            Err(_) => park::sleep(RETRY),
        }
    };
    // SAFETY: the closure owns what it uses; it and its result borrow nothing.
    let spawned = unsafe { builder.spawn_with_guard(scheduler, site, || fired.run(), Firing) };
    spawned.expect("its stack was reserved");
}

/// A timer that has fired, until its closure runs. If this is dropped before, because the coroutine finds no
/// stack on its first turn, the timer is pending again. If the runtime shuts down, or the coroutine was
/// cancelled, the closure is dropped: timer handles may keep the timer alive, but must not keep its closure.
struct Fired(Option<Arc<Timer>>);

impl Fired {
    /// The body of the coroutine: runs the closure.
    fn run(mut self) {
        if let Some(timer) = self.0.take() {
            timer.run();
        }
    }
}

/// The guard of the coroutine that fires a timer.
struct Firing;

impl PacketGuard for Firing {
    fn unjoined(&self, failure: Failure, task: &Task) {
        // Without a stack, nothing is lost: the timer is pending again.
        if Scheduler::of_lacking_stack().is_none() {
            ().unjoined(failure, task);
        }
    }
}

impl Drop for Fired {
    fn drop(&mut self) {
        let Some(timer) = self.0.take() else {
            return;
        };
        let lacking = Scheduler::of_lacking_stack().filter(|_| !timer.is_given_up());
        if !lacking.is_some_and(|scheduler| put_back(&scheduler, &timer)) {
            timer.discard_quietly();
        }
    }
}

/// Has a timer fire again. Returns false if its runtime has ended.
#[cold]
fn put_back(scheduler: &Scheduler, timer: &Arc<Timer>) -> bool {
    let end_idling = || scheduler.end_idling();
    let added = scheduler
        .agenda()
        .add(timer, Deadline::after(RETRY), end_idling);
    added == Added::Pending
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use crate::coroutine::lacks;
    use crate::park;
    use crate::runtime::after::after;
    use crate::runtime::{RuntimeBuilder, wait_idle};

    #[test]
    fn a_timer_whose_coroutine_finds_no_stack_on_its_first_turn_fires_later() {
        const LACKING: usize = 3;
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let fired = Arc::new(AtomicUsize::new(0));
            let timer = after(Duration::from_secs(60), {
                let fired = Arc::clone(&fired);
                move || {
                    fired.fetch_add(1, Ordering::SeqCst);
                }
            });
            // The coroutine that fires timers has its stack.
            park::sleep(Duration::from_millis(1));
            lacks::STACKS.set(LACKING);
            assert!(timer.reset(Duration::ZERO));
            wait_idle();
            assert_eq!(lacks::STACKS.get(), 0);
            assert_eq!(fired.load(Ordering::SeqCst), 1);
            assert!(!timer.is_active());
            assert_eq!(Arc::strong_count(&fired), 1, "the closure is gone");
        });
    }
}
