//! The end of patience with coroutines that do not end when their runtime does.
//!
//! A coroutine that has started cannot be taken off its stack by force: it may sit in a C call, or
//! catch the unwind and go on. The end of its runtime waits for it; after the grace, a watchdog
//! reports who is left and ends the process. Workers that come round name what they have; one that
//! does not is held by the coroutine it runs, which its thread names in a signal handler.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Scheduler;
use crate::coroutine::overflow;
use crate::fatal;

/// How long workers have to report, and each thread that does not come round.
const HEARING: Duration = Duration::from_millis(500);

/// Watches over the shutdown of a runtime until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    over: Arc<Over>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Over {
    over: Mutex<bool>,
    changed: Condvar,
}

impl Watchdog {
    /// From now on the shutdown of `scheduler` has `grace`. If there is no coroutine to wait for,
    /// or no thread to be had, nobody watches.
    pub(crate) fn new(scheduler: &Arc<Scheduler>, grace: Duration) -> Watchdog {
        let over = Arc::new(Over {
            over: Mutex::new(false),
            changed: Condvar::new(),
        });
        let watch = {
            let (scheduler, over) = (Arc::clone(scheduler), Arc::clone(&over));
            move || {
                if !over.wait(grace) {
                    end_process(&scheduler, grace);
                }
            }
        };
        let thread = match scheduler.is_empty() {
            true => None,
            false => {
                let builder = thread::Builder::new().name("greenroom-grace".into());
                builder.spawn(watch).ok()
            }
        };
        Watchdog { over, thread }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.over.lock() = true;
        self.over.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its panic would be a bug of this file, which the hook has reported.
            let _ = thread.join();
        }
    }
}

impl Over {
    /// Waits until it is over, or `grace` has passed; returns whether it is over.
    fn wait(&self, grace: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), grace, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_process(scheduler: &Scheduler, grace: Duration) -> ! {
    fatal::report(format_args!(
        "{grace:?} after their runtime began to shut down, these have not ended:"
    ));
    scheduler.ask_for_report();
    let silent = || scheduler.workers.iter().filter(|worker| worker.is_silent());
    until(|| silent().next().is_none());
    // One after the other, lest their answers mix.
    for worker in silent() {
        let before = overflow::answers();
        if worker.with_thread(overflow::ask_who_runs) {
            until(|| overflow::answers() > before);
        }
    }
    std::process::abort();
}

/// Waits until `done`, or till the end of the hearing.
fn until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < HEARING {
        thread::sleep(Duration::from_millis(5));
    }
}
