//! The OS thread of a worker, other than the thread that calls `Runtime::run`.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use super::fork;
use crate::sys::stderr::Stderr;
use crate::sys::switches::excused;
use crate::task;
use crate::worker::{Parts, Scheduler, Worker};

/// A started worker thread. Dropping the value detaches the thread.
pub(super) struct WorkerThread {
    thread: thread::JoinHandle<()>,
    /// Receives one message when the thread runs.
    begins: mpsc::Receiver<()>,
    /// Receives one message when the worker has ended but its thread must stay, because coroutines
    /// were left behind on it. Disconnects when the thread ends.
    stays: mpsc::Receiver<()>,
}

/// Keeps the calling thread until the process has ended. Coroutines that were left behind on it may have lent its
/// thread-locals to others.
pub(super) fn stay() -> ! {
    loop {
        thread::park();
    }
}

impl WorkerThread {
    /// Starts a thread that drives the worker made from `parts` until `scheduler` stops.
    ///
    /// # Errors
    ///
    /// The operating system's, when there is no thread to be had.
    pub(super) fn start(
        index: usize,
        scheduler: &Arc<Scheduler>,
        parts: Parts,
    ) -> io::Result<WorkerThread> {
        let scheduler = Arc::clone(scheduler);
        let builder = thread::Builder::new().name(format!("greenroom-{index}"));
        parts.announce();
        let (begin, begins) = mpsc::channel();
        let (tell, stays) = mpsc::channel();
        let thread = builder.spawn(move || {
            let _ = begin.send(());
            fork::set_up_late();
            let worker = Worker::new(scheduler, parts);
            if !worker.drive_until_stopped() {
                return;
            }
            drop(worker);
            // The receiver is gone if the thread that ended the runtime has stopped waiting.
            let _ = tell.send(());
            stay();
        })?;
        Ok(WorkerThread {
            thread,
            begins,
            stays,
        })
    }

    /// Waits until the thread runs.
    ///
    /// std aborts the process if it finds no memory or mapping for a thread that it sets up. So a
    /// runtime waits for its threads before its first coroutine can take the last of either.
    pub(super) fn wait_for_beginning(&self) {
        // An error means that the thread has ended, which `wait` reports.
        let _ = task::aside(|| excused(|| self.begins.recv()));
    }

    /// Waits until the worker has ended, or until `until`.
    ///
    /// The thread outlives its worker if coroutines were left behind on it. A coroutine may also
    /// hold its worker past `until`; then the thread is reported and goes on alone.
    pub(super) fn wait(self, until: Option<Instant>) {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let ended = match left {
            Some(left) => self.stays.recv_timeout(left),
            None => self
                .stays
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        match ended {
            // The worker has ended. Its thread stays for the coroutines that were left behind.
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let thread = self.thread.thread().name().unwrap_or_default();
                let report =
                    format!("greenroom: {thread} is held by a coroutine, and goes on alone\n");
                // Without a stderr there is nowhere to report to.
                let _ = fmt::Write::write_str(&mut Stderr, &report);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                if let Err(payload) = self.thread.join() {
                    // A panic of the worker itself is a bug of this crate. The panic hook has
                    // reported it, and dropping the payload could panic again.
                    mem::forget(payload);
                }
            }
        }
    }
}
