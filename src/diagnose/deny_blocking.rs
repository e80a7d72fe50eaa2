//! Coroutines that block their worker, found and named.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::task::{Description, Task};

/// Has every worker name the coroutines that block it, from now on, in debug builds: those with
/// debug assertions. In others this does nothing, and returns false.
///
/// A call that blocks the thread instead of parking the coroutine keeps all others of the worker
/// from running. It is easily missed, for nothing else goes wrong. This finds it whoever makes it, be
/// that a library or C:
///
/// ```no_run
/// use std::{thread, time::Duration};
///
/// greenroom::deny_blocking();
/// greenroom::spawn(|| thread::sleep(Duration::from_millis(10))); // std's, not the shims'
/// # greenroom::wait_idle();
/// ```
///
/// ```text
/// greenroom: coroutine '<unnamed>' (spawned at src/main.rs:4:1) has blocked its worker: once, in a turn of 10.09ms
/// ```
///
/// That is written to standard error, for the first offence of each place that spawns; for more, see
/// [`deny_blocking_with`].
///
/// It also names a coroutine that waits, by whatever parks, in the initialiser of std's `thread_local!`.
/// Another coroutine of the thread may use the value meanwhile, which the initialiser then replaces: see
/// the crate's [hazards](crate::guide::hazards). Each way to a wait is looked at once, which takes some
/// milliseconds.
///
/// # What it sees
///
/// It counts the voluntary context switches of the worker's thread in each turn of a coroutine, from
/// where it is resumed to where it is suspended: there is one for each time that the thread had to
/// wait in the kernel. So there is none, and nothing to be seen, where
///
/// - a call that *may* block did not have to: the bytes were there, the lock was free. What runs into
///   it seldom shows seldom;
/// - a coroutine keeps its worker by computing, or by spinning;
/// - the thread was preempted, or has called `sched_yield`: those are involuntary switches;
/// - the caller is no coroutine.
///
/// And there is one, though the coroutine has called nothing that is known to block, where
///
/// - it touched memory that had to come from a disk: a page of a mapped file, or one that was swapped
///   out;
/// - it ran into a lock of the allocator or of the kernel that another thread held for a moment. This
///   is rare, and shows as a single report of a short turn;
/// - it has started a process, which waits for the `exec` of that;
/// - it has waited while a panic unwinds, when it does keep its worker: see the crate's hazards.
///
/// To wait for a lock of this runtime itself is not counted.
///
/// # Before it runs
///
/// For code that one can see there is a list for clippy, of the functions and types of std that
/// wait: `shims/lints/clippy.toml` in this package. Copied to the root of a package or workspace, or added
/// to the `clippy.toml` that is there, it has `cargo clippy` find each use of one, and say what parks
/// instead. Code under `use greenroom::shims as std;` gives no lint, except for what is std's own
/// there too.
///
/// Clippy goes by the names in the code. So inside of [`unblock`](crate::unblock), or on threads
/// of one's own, such a use takes an `#[expect(clippy::disallowed_methods, reason = "...")]`; and
/// what a library calls is only seen by this function.
///
/// <details><summary>The list</summary>
///
/// ```toml
#[doc = include_str!("../../shims/lints/clippy.toml")]
/// ```
///
/// </details>
pub fn deny_blocking() -> bool {
    deny_blocking_with(|report| {
        if report.turns() == 1 {
            // In one piece, past std's lock. Where stderr is gone there is nothing to do.
            let line = format!("greenroom: {report}\n");
            let _ = fmt::Write::write_str(&mut crate::sys::stderr::Stderr, &line);
        }
    })
}

/// As [`deny_blocking`], but calls `hook` for every turn of a coroutine that has blocked its worker.
///
/// It is called on the worker's thread, after the turn and outside of any coroutine: where it waits,
/// it blocks the worker, and is not reported. A panic in it ends there. The hook of a further call
/// takes the place of the one before.
///
/// ```
/// let armed = greenroom::deny_blocking_with(|report| {
///     if report.turns() == 1 {
///         eprintln!("{report}"); // or log, count, abort
///     }
/// });
/// if !armed {
///     eprintln!("without debug assertions in greenroom, nobody looks");
/// }
/// ```
pub fn deny_blocking_with<F>(hook: F) -> bool
where
    F: Fn(&BlockingReport<'_>) + Send + Sync + 'static,
{
    #[cfg(debug_assertions)]
    watch::arm(std::sync::Arc::new(hook));
    #[cfg(not(debug_assertions))]
    drop(hook);
    cfg!(debug_assertions)
}

/// A turn of a coroutine in which it has blocked its worker, or waits where it must not. See
/// [`deny_blocking_with`].
///
/// Displays as a sentence without an end: who it was, how often, in how long a turn.
pub struct BlockingReport<'a> {
    task: &'a Task,
    times: u64,
    turns: u64,
    took: Duration,
    in_initialiser: bool,
}

impl BlockingReport<'_> {
    /// The name of the coroutine.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// The place that spawned the coroutine.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.spawned_at()
    }

    /// Whether it has begun a wait in the initialiser of a `thread_local!`. Then it may not have blocked.
    #[must_use]
    pub fn waits_in_initialiser(&self) -> bool {
        self.in_initialiser
    }

    /// How often it has blocked in this turn.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.times
    }

    /// In how many turns coroutines that were spawned at that place have blocked so far, this one
    /// included: 1 in the first report of a place.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// How long the turn took, of which it was blocked for a part.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }
}

impl fmt::Display for BlockingReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", Description(self.task))?;
        if self.in_initialiser {
            return f.write_str("waits in the initialiser of a `thread_local!`");
        }
        f.write_str("has blocked its worker: ")?;
        match self.times {
            1 => f.write_str("once")?,
            times => write!(f, "{times} times")?,
        }
        write!(f, ", in a turn of {:.2?}", self.took)
    }
}

impl fmt::Debug for BlockingReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingReport")
            .field("name", &self.name())
            .field("spawned_at", &format_args!("{}", self.spawned_at()))
            .field("times", &self.times)
            .field("turns", &self.turns)
            .field("took", &self.took)
            .field("in_initialiser", &self.in_initialiser)
            .finish()
    }
}

/// Runs `turn` as a turn of the coroutine `task`, and reports it if it blocks.
#[inline(always)]
pub(crate) fn watched<R>(task: &Task, turn: impl FnOnce() -> R) -> R {
    #[cfg(debug_assertions)]
    if watch::is_armed() {
        return watch::watched(task, turn);
    }
    let _ = task;
    turn()
}

#[cfg(debug_assertions)]
mod watch {
    use std::collections::BTreeMap;
    use std::mem;
    use std::panic::{AssertUnwindSafe, Location, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use super::BlockingReport;
    use crate::sys::{initialisers, switches};
    use crate::task::Task;

    /// Whether there is a hook.
    static ARMED: AtomicBool = AtomicBool::new(false);

    static FINDINGS: Mutex<Findings> = Mutex::new(Findings {
        hook: None,
        turns: BTreeMap::new(),
    });

    type Hook = Arc<dyn Fn(&BlockingReport<'_>) + Send + Sync>;

    struct Findings {
        hook: Option<Hook>,
        /// The turns that have blocked, by the place that spawned their coroutines.
        turns: BTreeMap<&'static Location<'static>, u64>,
    }

    /// Held for a moment.
    fn lock() -> MutexGuard<'static, Findings> {
        FINDINGS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arm(hook: Hook) {
        let before = lock().hook.replace(hook);
        drop(before);
        initialisers::watch();
        ARMED.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn is_armed() -> bool {
        ARMED.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn watched<R>(task: &Task, turn: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let before = switches::blamed();
        let result = turn();
        let times = switches::blamed() - before;
        let in_initialiser = initialisers::take_found();
        if times > 0 || in_initialiser {
            report(
                task,
                u64::try_from(times).unwrap_or(0),
                start,
                in_initialiser,
            );
        }
        result
    }

    #[cold]
    fn report(task: &Task, times: u64, start: Instant, in_initialiser: bool) {
        let took = start.elapsed();
        let (hook, turns) = {
            let mut findings = lock();
            let turns = findings.turns.entry(task.spawned_at()).or_default();
            *turns += 1;
            let turns = *turns;
            (findings.hook.clone(), turns)
        };
        let report = BlockingReport {
            task,
            times,
            turns,
            took,
            in_initialiser,
        };
        let tell = AssertUnwindSafe(|| hook.inspect(|hook| hook(&report)));
        if let Err(payload) = catch_unwind(tell) {
            // The panic hook has reported it, and dropping it may panic again.
            mem::forget(payload);
        }
    }
}
