//! Coroutines that block their worker, found and named.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::task::{Description, Task};

/// Has every worker name the coroutines that block it, from now on: in debug builds. In release
/// builds this does nothing. Returns whether it has done something.
///
/// What should park a coroutine, and blocks its thread instead, keeps all other coroutines of the
/// worker from running. Nothing goes wrong but the speed, so it is easily missed. This finds it
/// whoever makes the call, be it a library or C:
///
/// ```no_run
/// fn main() {
///     greenroom::deny_blocking();
///     greenroom::spawn(|| std::thread::sleep(std::time::Duration::from_millis(10))); // not the shims'!
///     // ...
/// }
/// ```
///
/// ```text
/// greenroom: coroutine '<unnamed>' (spawned at src/main.rs:3:5) has blocked its worker: once, in a turn of 10.09 ms
/// ```
///
/// That is written to standard error, for the first offence of each place that spawns; for more, see
/// [`deny_blocking_with`].
///
/// # What it sees
///
/// It counts the voluntary context switches of the worker's thread in each turn of a coroutine, from
/// where it is resumed to where it is suspended: whenever the thread had to wait in the kernel, there
/// is one. Not one is there, and nothing to be seen, where
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
/// - it had to wait for another thread inside the allocator, or inside the kernel, on a lock that is
///   held for a moment: freeing what another thread has allocated, mapping memory, starting a process
///   (which waits for its `exec`);
/// - it has waited while a panic unwinds, when it does keep its worker: see the crate's hazards.
///
/// The locks of this runtime itself are not blamed on who runs into one.
///
/// # Before it runs
///
/// For code that one can see there is a list of what blocks in std, for clippy:
/// `shims/clippy.toml` of this package. Copied to the root of a package (next to its `Cargo.toml`),
/// or added to the `clippy.toml` that is there, it has `cargo clippy` find each use of a function or
/// type of std that waits, and name the one of [`shims`](crate::shims) that parks. Code that is under
/// `use greenroom::shims as std;` gives no lint, but for the ten methods of [`std::path::Path`] that
/// look at the file system, which are std's own there too: [`shims::fs`](crate::shims) has functions
/// that do the same.
///
/// It goes by what the code says, so inside of [`unblock`](crate::unblock), or in a program's own
/// threads, it takes an `#[expect(clippy::disallowed_methods, reason = "...")]`.
pub fn deny_blocking() -> bool {
    deny_blocking_with(|report| {
        if report.turns() == 1 {
            // In one piece, past std's lock. Where stderr is gone there is nothing to do.
            let line = format!("greenroom: {report}\n");
            let _ = fmt::Write::write_str(&mut crate::coroutine::overflow::Stderr, &line);
        }
    })
}

/// As [`deny_blocking`], but calls `hook` for every turn of a coroutine that has blocked its worker.
///
/// It is called on the worker's thread, after the turn, outside of any coroutine: where it blocks, it
/// blocks the worker, but is not reported. A panic in it ends with it. The hook of a further call
/// takes the place of the one before.
///
/// ```
/// use std::{thread, time::Duration};
///
/// let armed = greenroom::deny_blocking_with(|report| {
///     if report.turns() == 1 {
///         eprintln!("{report}"); // or panic, in a test: log, count, abort
///     }
/// });
/// assert_eq!(armed, cfg!(debug_assertions));
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

/// A turn of a coroutine in which it has blocked its worker. See [`deny_blocking_with`].
///
/// Displays as a sentence without an end: who it was, how often, in how long a turn.
pub struct BlockingReport<'a> {
    task: &'a Task,
    times: u64,
    turns: u64,
    took: Duration,
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
        write!(f, "{} has blocked its worker: ", Description(self.task))?;
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
pub(crate) mod watch {
    use std::collections::BTreeMap;
    use std::mem;
    use std::panic::{AssertUnwindSafe, Location, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use super::BlockingReport;
    use crate::sys::switches;
    use crate::task::Task;

    /// Whether there is a hook.
    static ARMED: AtomicBool = AtomicBool::new(false);

    static FINDINGS: Mutex<Findings> = Mutex::new(Findings {
        hook: None,
        turns: BTreeMap::new(),
    });

    type Hook = Arc<dyn Fn(&BlockingReport<'_>) + Send + Sync>;

    pub(crate) struct Findings {
        hook: Option<Hook>,
        /// The turns that have blocked, by the place that spawned their coroutines.
        turns: BTreeMap<&'static Location<'static>, u64>,
    }

    /// Held for a moment, and over a fork.
    pub(crate) fn lock() -> MutexGuard<'static, Findings> {
        FINDINGS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn arm(hook: Hook) {
        let before = lock().hook.replace(hook);
        drop(before);
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
        if times > 0 {
            report(task, times.unsigned_abs(), start);
        }
        result
    }

    #[cold]
    fn report(task: &Task, times: u64, start: Instant) {
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
        };
        let tell = AssertUnwindSafe(|| hook.inspect(|hook| hook(&report)));
        if let Err(payload) = catch_unwind(tell) {
            // The panic hook has reported it, and dropping it may panic again.
            mem::forget(payload);
        }
    }
}
