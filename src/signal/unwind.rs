//! Signals that end the process after its coroutines have unwound.
//!
//! In the order in which it happens:
//!
//! 1. [`unwind_on`] installs a handler, and starts a thread that waits for its byte in an inbox.
//! 2. The handler of the first signal sets [`ENDING`] and wakes the thread. The handler of the second one finds
//!    the flag set and has the signal do what it does by default. So it ends the process even if no thread goes on.
//! 3. The thread stops all runtimes: see `worker/shutdown`. A thread that is in `run` does not return from there. A
//!    runtime that is made from now on is stopped from the beginning, so nothing runs there that would be cut short.
//! 4. When no worker runs any more, the thread has the first signal do what it does by default, too.
//!
//! Meanwhile other threads go on. One that calls `exit`, or returns from `main`, is held there, so that the process
//! always ends by the signal and no destructor is cut short.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use signal_hook::low_level;

use super::inbox::Inbox;
use super::{check, has_default, invalid, register};
use crate::fatal;
use crate::reactor::{Interest, wait_fd};
use crate::sys::fork::{self, Process};
use crate::sys::signal::is_ignored;
use crate::sys::switches::excused;
use crate::task::lock_aside;
use crate::worker::{Scheduler, Worker};

/// Has each of `signals` unwind all coroutines before it ends the process.
///
/// Without this call, a signal such as SIGINT (Ctrl-C) or SIGTERM ends the process at once, and no destructor
/// runs. With it, the first signal ends all runtimes of the process as if they were dropped: their coroutines unwind
/// from their waits, the main coroutine of [`run`](crate::run()) and those of the default runtime included, and what
/// they hold is dropped. The [rules](crate::guide::hazards#shutdown) for coroutines that do not unwind are the
/// same, and so is the [grace](crate::RuntimeBuilder::grace). Then the process ends by the signal, so that a shell
/// or a supervisor sees what it expects: the status 130 for SIGINT.
///
/// The second signal ends the process at once.
///
/// ```no_run
/// use greenroom::signal::{self, SIGINT, SIGTERM};
/// # fn serve() {}
///
/// # fn main() -> std::io::Result<()> {
/// signal::unwind_on(&[SIGINT, SIGTERM])?;
/// greenroom::run(serve);
/// # Ok(())
/// # }
/// ```
///
/// - OS threads do not unwind, and neither do frames outside of `run`. They go on meanwhile; a thread that joins a
///   coroutine finds it [`Cancelled`](crate::Cancelled). A thread that returns from `main` or calls
///   [`exit`](std::process::exit) stays there until the process ends by the signal. (A coroutine that calls `exit`
///   ends the process at once.) The thread that is in `run` stays in `run`.
/// - The coroutines that a thread has started in [`Runtime::run`](crate::Runtime::run) or
///   [`Runtime::turn`](crate::Runtime::turn) unwind only if the thread is in one of these, or drops the runtime.
/// - In a runtime that is made after the signal, no coroutine begins.
/// - The end cannot be stopped. A program that wants to finish its work waits for the signal itself: [`wait`](super::wait).
/// - A signal that is ignored when this is called stays ignored, as SIGINT is in a background job of a shell script,
///   and SIGHUP under nohup.
/// - One OS thread is started, which sleeps until there is a signal.
/// - In a child that has forked and not called `exec`, the signals end the process at once.
///
/// # Errors
///
/// `InvalidInput` for signals that do not end a process by default, for real-time signals, and for those that
/// [`Signals::new`](super::Signals::new) refuses. Then no signal has changed. Otherwise the operating system's.
pub fn unwind_on(signals: &[i32]) -> io::Result<()> {
    check(signals)?;
    has_default(signals)?;
    if let Some(signal) = signals.iter().find(|signal| SURVIVED.contains(signal)) {
        let name = low_level::signal_name(*signal).unwrap_or_default();
        return Err(invalid(format!("{name} does not end a process")));
    }
    fork::count_forks()?;
    let mut state = lock_aside(&STATE);
    let ender = match &mut *state {
        Some(ender) => ender,
        None => state.insert(Ender::start()?),
    };
    for &signal in signals {
        if !ender.signals.contains(&signal) && !is_ignored(signal)? {
            let inbox = Arc::clone(&ender.inbox);
            let action = move || {
                if ENDING.swap(true, Ordering::SeqCst) || !is_in_own_process() {
                    // Fails only for an unknown signal, which `has_default` has refused.
                    let _ = low_level::emulate_default_handler(signal);
                }
                inbox.put(signal);
            };
            // SAFETY: the action uses atomics and functions that are async-signal-safe, and does not panic.
            unsafe { register(signal, action) }?;
            ender.signals.push(signal);
        }
    }
    Ok(())
}

/// The signals whose default action is to stop the process, or none.
const SURVIVED: &[i32] = &[
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGWINCH,
    // Linux ends the process, but not signal-hook.
    libc::SIGIO,
];

/// Whether a signal ends this process.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The process that has the thread.
static MADE_BY: OnceLock<Process> = OnceLock::new();

/// Whether the caller is not in a forked child. Async-signal-safe.
fn is_in_own_process() -> bool {
    MADE_BY.get().is_some_and(|made_by| made_by.is_current())
}

static STATE: Mutex<Option<Ender>> = Mutex::new(None);

/// What ends the process.
struct Ender {
    inbox: Arc<Inbox>,
    /// The signals that have the handler.
    signals: Vec<i32>,
}

impl Ender {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system's: out of descriptors or threads.
    fn start() -> io::Result<Ender> {
        let inbox = Arc::new(Inbox::new()?);
        let builder = thread::Builder::new().name("greenroom-signals".into());
        let awaited = Arc::clone(&inbox);
        excused(|| builder.spawn(move || end_after_signal(&awaited)))?;
        // SAFETY: the function exists for as long as the process.
        if unsafe { libc::atexit(hold_exit) } != 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        MADE_BY.get_or_init(Process::current);
        Ok(Ender {
            inbox,
            signals: Vec::new(),
        })
    }
}

/// The thread: waits for the first signal, and ends the process by it.
fn end_after_signal(inbox: &Inbox) -> ! {
    let signal = loop {
        match inbox.take() {
            Ok(Some(signal)) => break signal,
            Ok(None) => {}
            Err(error) => fatal::abort(format_args!("a signal cannot be read: {error}")),
        }
        if let Err(error) = wait_fd(inbox, Interest::READABLE, None) {
            fatal::abort(format_args!("signals cannot be waited for: {error}"));
        }
    };
    Scheduler::stop_all()
        .iter()
        .for_each(|scheduler| scheduler.wait_until_left());
    let _ = low_level::emulate_default_handler(signal);
    fatal::abort(format_args!("signal {signal} has not ended the process"));
}

/// Keeps a thread in `exit` while a signal ends the process. Not a coroutine, without which its worker cannot end.
extern "C" fn hold_exit() {
    while ENDING.load(Ordering::SeqCst) && is_in_own_process() && !Worker::is_driven_here() {
        thread::park();
    }
}
