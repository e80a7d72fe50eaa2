//! The monitor: reports a coroutine that holds its worker for too long, while it does.
//!
//! A thread looks at the [`Pulse`]s of all workers, twice in each span of the threshold. A worker whose count of
//! turns has not changed, and which does not sleep, is in the same turn as before.
//!
//! When all workers sleep, so does the monitor, until one of them wakes up: see `monitor_sleep`.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::blocking_report::{self, BlockingReport, Finding, Findings};
use super::monitor_sleep::MonitorSleep;
use super::pulse::Pulse;
use crate::coroutine::Seen;
use crate::sys::switches::own_lock;
use crate::sys::thread_state::OwnMemory;
use crate::task::{Identity, lock_aside};

/// Reports each coroutine that holds its worker for longer than `max_blocking`, from now on and in all builds.
///
/// A coroutine that computes, or blocks the OS thread instead of parking, keeps all other coroutines of its worker
/// from running. The monitor tells which one it is, while it does so, and where:
///
/// ```no_run
/// use std::{thread, time::Duration};
///
/// greenroom::monitor(Duration::from_millis(100))?;
/// greenroom::spawn(|| thread::sleep(Duration::from_secs(1))); // std's, not the shims'
/// # greenroom::wait_idle();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// ```text
/// greenroom: coroutine '<unnamed>' (spawned at src/main.rs:4:1) has held its worker for 108ms so far, and waits in clock_nanosleep
///    0: clock_nanosleep
///    1: std::thread::sleep
///              at /rustc/.../library/std/src/thread/mod.rs:883:9
///    2: app::main::{{closure}}
///              at ./src/main.rs:4:22
///    ...
/// ```
///
/// A turn is reported once, however long it lasts: within twice `max_blocking`, if the monitor's own thread is
/// given a processor in time. The report is written to standard error, once for each place that spawns. For every
/// report, see [`monitor_with`].
///
/// This is one thing with [`deny_blocking`](crate::deny_blocking()), with another setting: that one finds each call
/// that blocks, after the turn and in debug builds.
///
/// # What it costs
///
/// One OS thread. It looks at the workers every half of `max_blocking` while any of them runs coroutines, and
/// makes no wake-up while all sleep. The coroutines pay nothing: the workers count their turns anyway, for
/// [`metrics`](crate::metrics()).
///
/// # What is not reported
///
/// - Time for which the system gives the worker no processor does not count, if the system tells it
///   (`/proc/self/task/N/schedstat`).
/// - A coroutine that waits, or that yields often enough, does not hold its worker.
/// - A coroutine is not seen while it is inside the global allocator, called by the runtime.
///
/// # The backtrace
///
/// The backtrace is taken without disturbing the coroutine. A thread that waits in the kernel is looked at from
/// outside (`/proc/self/task/N/syscall`). A thread that computes gets the signal SIGURG, whose handler copies the
/// stack. That signal is ignored by default, and it is not sent to a thread that waits, so no call fails with
/// `EINTR` because of it. If the program has a handler for SIGURG when the monitor takes its first such backtrace,
/// that one is called for all others. A program that installs one later gets SIGURGs that mean nothing, and
/// the reports then have no backtrace. Neither do they on other processors than x86-64, or with another C
/// library than glibc.
///
/// Of a thread that waits, the frames are found by what the functions have saved on the stack. If that does not
/// lead to the end of the stack, as may be in code without unwind tables, the backtrace stops there.
///
/// # Errors
///
/// `InvalidInput`, if `max_blocking` is zero. The operating system's, if there is no thread or no descriptor to be
/// had, or if `/proc` is missing.
pub fn monitor(max_blocking: Duration) -> io::Result<()> {
    monitor_with(max_blocking, blocking_report::print)
}

/// Like [`monitor`], but calls `hook` for every turn that takes too long.
///
/// The hook is called on the monitor's own thread, while the turn goes on. The monitor looks at nothing meanwhile, so
/// the hook should return soon. A panic of the hook is caught and ignored. A further call of this function, or of
/// [`monitor`], replaces the hook and `max_blocking`.
///
/// ```
/// use std::time::Duration;
///
/// greenroom::monitor_with(Duration::from_millis(100), |report| {
///     eprintln!("{report}"); // or log, count, abort
///     eprintln!("{}", report.backtrace().unwrap_or("no backtrace"));
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of [`monitor`].
pub fn monitor_with<F>(max_blocking: Duration, hook: F) -> io::Result<()>
where
    F: Fn(&BlockingReport<'_>) + Send + Sync + 'static,
{
    turn_on(max_blocking)?;
    FINDINGS.set_hook(Arc::new(hook));
    Ok(())
}

/// Replaces the threshold, and leaves the hook as it is; if there is none, reports are printed. `None` turns the
/// monitor off.
///
/// # Errors
///
/// Those of [`monitor`].
pub(crate) fn set_threshold(max_blocking: Option<Duration>) -> io::Result<()> {
    let Some(max_blocking) = max_blocking else {
        own_lock(&MONITOR).max_blocking = None;
        return Ok(());
    };
    FINDINGS.set_hook_if_none(blocking_report::print);
    turn_on(max_blocking)
}

/// The threshold. `None` if the monitor is off.
pub(crate) fn threshold() -> Option<Duration> {
    own_lock(&MONITOR).max_blocking
}

fn turn_on(max_blocking: Duration) -> io::Result<()> {
    if max_blocking.is_zero() {
        let why = "every turn takes longer than zero";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut monitor = lock_aside(&MONITOR);
    let thread = match &monitor.thread {
        Some(thread) => thread.clone(),
        None => {
            let memory = OwnMemory::open()?;
            let builder = thread::Builder::new().name("greenroom-monitor".into());
            let thread = builder.spawn(move || watch(&memory))?.thread().clone();
            monitor.thread = Some(thread.clone());
            thread
        }
    };
    monitor.max_blocking = Some(max_blocking);
    IS_OFF.store(false, Ordering::Release);
    drop(monitor);
    // It may sleep for half of a longer threshold.
    thread.unpark();
    Ok(())
}

static FINDINGS: Findings = Findings::new();

static MONITOR: Mutex<Monitor> = Mutex::new(Monitor {
    max_blocking: None,
    thread: None,
    pulses: Vec::new(),
});

/// Never asleep before the monitor was turned on.
static SLEEP: MonitorSleep = MonitorSleep(AtomicBool::new(false));

/// Whether the monitor's thread waits to be turned on again. Written while `MONITOR` is locked.
static IS_OFF: AtomicBool = AtomicBool::new(false);

struct Monitor {
    /// `None` while the monitor is off.
    max_blocking: Option<Duration>,
    /// `None` until the monitor is turned on for the first time.
    thread: Option<Thread>,
    /// All workers, and some that are gone.
    pulses: Vec<Weak<Pulse>>,
}

impl Monitor {
    fn pulses(&mut self) -> Vec<Arc<Pulse>> {
        self.pulses.retain(|pulse| pulse.strong_count() > 0);
        self.pulses.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Adds the pulse of a new worker.
pub(super) fn add(pulse: &Arc<Pulse>) {
    let mut monitor = lock_aside(&MONITOR);
    monitor.pulses.retain(|pulse| pulse.strong_count() > 0);
    monitor.pulses.push(Arc::downgrade(pulse));
}

/// Wakes the monitor if it sleeps. To be called by a worker that has noted that it is awake.
#[inline]
pub(super) fn note_awake() {
    if SLEEP.end() {
        unpark();
    }
}

/// Whether the monitor's thread exists, and sleeps until a worker wakes up or turns it on. It runs no hook then.
pub(crate) fn is_asleep() -> bool {
    SLEEP.is_asleep() || IS_OFF.load(Ordering::Acquire)
}

#[cold]
fn unpark() {
    if let Some(thread) = &own_lock(&MONITOR).thread {
        thread.unpark();
    }
}

/// What the monitor knows of a worker.
pub(super) struct Look {
    /// The number of the turn that was seen last.
    turn: u64,
    /// When the turn was first seen, and how long its thread had waited for a processor by then.
    since: Option<(Instant, Duration)>,
    /// How often the turn was seen after that.
    times: u32,
    /// The turn was reported.
    is_reported: bool,
}

impl Look {
    pub(super) fn new() -> Look {
        Look {
            turn: 0,
            since: None,
            times: 0,
            is_reported: false,
        }
    }

    /// How long the present turn has lasted, at least. `None` if it is new, or need not be reported any more.
    fn held(&mut self, pulse: &Pulse, memory: &OwnMemory) -> Option<Duration> {
        let turn = pulse.with_driver(|driver| driver.turns(memory))??;
        let is_same = !pulse.is_asleep() && turn == self.turn;
        if is_same && self.is_reported {
            return None;
        }
        let now = Instant::now();
        let queued = pulse.with_driver(|driver| driver.sight.time_in_queue())?;
        match self.since {
            Some((since, before)) if is_same => {
                self.times += 1;
                let held = (now - since).saturating_sub(queued.saturating_sub(before));
                // A process that was stopped by a signal goes on with one look, however late it comes.
                (self.times >= 2).then_some(held)
            }
            _ => {
                *self = Look {
                    turn,
                    since: Some((now, queued)),
                    ..Look::new()
                };
                None
            }
        }
    }
}

/// The body of the monitor's thread.
fn watch(memory: &OwnMemory) {
    loop {
        if SLEEP.begin(|| own_lock(&MONITOR).pulses().iter().all(|it| it.is_asleep())) {
            while SLEEP.is_asleep() {
                thread::park();
            }
        }
        let (max_blocking, pulses) = {
            let mut monitor = own_lock(&MONITOR);
            let max_blocking = monitor.max_blocking;
            IS_OFF.store(max_blocking.is_none(), Ordering::Release);
            (max_blocking, max_blocking.map(|_| monitor.pulses()))
        };
        let (Some(max_blocking), Some(pulses)) = (max_blocking, pulses) else {
            // Nothing is allocated or freed from here on: that could wake a coroutine.
            while IS_OFF.load(Ordering::Acquire) {
                thread::park();
            }
            continue;
        };
        for pulse in &pulses {
            look_at(pulse, memory, max_blocking);
        }
        drop(pulses);
        thread::park_timeout(max_blocking / 2);
    }
}

/// Reports the coroutine that `pulse`'s worker runs, if its turn is too long.
fn look_at(pulse: &Pulse, memory: &OwnMemory, max_blocking: Duration) {
    let mut look = own_lock(pulse.look());
    let Some(took) = look
        .held(pulse, memory)
        .filter(|held| *held >= max_blocking)
    else {
        return;
    };
    let turn = look.turn;
    let Some((identity, Some(seen))) = pulse.holder_in(turn, memory, true) else {
        return;
    };
    look.is_reported = true;
    drop(look);
    report(&identity, &seen, took);
}

fn report(identity: &Identity, seen: &Seen, took: Duration) {
    FINDINGS.report(BlockingReport {
        name: identity.name.as_deref(),
        spawned_at: identity.spawned_at,
        turns: 0,
        took,
        finding: Finding::Held {
            call: seen.call_name(),
            backtrace: seen.backtrace.as_deref(),
        },
    });
}
