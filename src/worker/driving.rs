//! The thread that drives a worker.

use std::fmt;
use std::io::Write;
use std::ptr;
use std::sync::Arc;

use crate::coroutine::overflow;
use crate::reactor;
use crate::task::{self, Description, Suspended, WorkerNumber};

use super::{CURRENT, Worker};

/// Marks the calling thread as the driver of a worker.
pub(super) struct Driving<'a> {
    worker: &'a Worker,
    /// Present if the thread itself panics, so that its coroutines are not taken for panicking.
    _unwind: Option<Suspended>,
}

impl<'a> Driving<'a> {
    pub(super) fn new(worker: &'a Worker) -> Driving<'a> {
        assert!(
            CURRENT.get().is_null(),
            "a thread drives one worker at a time"
        );
        let running = overflow::Running {
            describe: describe_running,
            forget: task::forget_running,
        };
        if let Err(error) = overflow::watch(running) {
            // Overflows still end the process, but without a report.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "greenroom: stack overflows will not be reported: {error}"
            );
        }
        CURRENT.set(worker);
        worker.remote.set_place(worker);
        worker.number.enter();
        reactor::set_local(Some(Arc::clone(worker.reactor.borrow().handle())));
        worker
            .remote
            .pulse()
            .set_driven(Some(worker.counts.turns.cell()));
        let driving = Driving {
            worker,
            _unwind: std::thread::panicking().then(Suspended::begin),
        };
        worker.wake_up();
        driving
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        while self.worker.remote.rolls().is_asked() {
            self.worker.answer_rolls();
        }
        reactor::set_local(None);
        WorkerNumber::leave();
        CURRENT.set(ptr::null());
        self.worker.publish();
        self.worker.remote.pulse().set_driven(None);
        self.worker.leave_alone();
        self.worker.scheduler.shutdown.note_left();
    }
}

/// Writes the name of the coroutine that runs on this thread. Async-signal-safe.
fn describe_running(out: &mut dyn fmt::Write) -> fmt::Result {
    task::with_running(|task| match task {
        Some(task) => write!(out, "{}", Description(task)),
        None => write!(out, "a coroutine"),
    })
}
