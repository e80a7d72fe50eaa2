//! Reports of coroutines that block their worker, in debug builds.
#![forbid(unsafe_code)]

use super::blocking_report::{self, BlockingReport};
use crate::task::Task;

/// Reports coroutines that block their worker, from now on and in debug builds: those with debug
/// assertions. In other builds this does nothing, and returns `false`.
///
/// A call that blocks the OS thread, instead of parking the coroutine, keeps all other coroutines of the
/// worker from running. Nothing else goes wrong, so such a call is easily missed. This finds the call
/// even if a library or C code makes it:
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
/// The report is written to standard error, once for each place that spawns. For every report, see
/// [`deny_blocking_with`].
///
/// This finds each call that blocks, however short, after the turn, and is for development.
/// [`monitor`](crate::monitor()) finds a turn that takes too long, while it lasts and in all builds. Both can be
/// on, each with a hook of its own.
///
/// A coroutine that waits inside the initialiser of a std `thread_local!` is reported, too, even if the
/// wait parks. Another coroutine of the thread may use the value meanwhile, and the initialiser then
/// replaces the value: see the [hazards](crate::guide::hazards). The stack of each wait is examined once,
/// which takes some milliseconds.
///
/// # What is found
///
/// Each time that the thread of a worker blocks in the kernel, the kernel counts a voluntary context
/// switch. This counts the switches in each turn of a coroutine, from its resumption to its suspension.
///
/// Nothing is found if there is no switch:
///
/// - A call that *may* block did not have to: the bytes were there, or the lock was free. A call that
///   blocks seldom is found seldom.
/// - The coroutine computes or spins. [`monitor`](crate::monitor()) finds that.
/// - The thread was preempted, or has called `sched_yield`. Those switches are involuntary.
/// - The caller is not a coroutine.
///
/// Something is found although the coroutine has called nothing that is known to block, if there is a
/// switch for another reason:
///
/// - The coroutine has touched memory that had to be read from a disk: a mapped file, or a page that was
///   swapped out.
/// - It had to wait for a lock of the allocator or of the kernel that another thread held for a moment.
///   This is rare, and shows as a single report of a short turn.
/// - It has started a process, and waited for the child to call `exec`.
/// - It has waited during an unwind, which does keep its worker waiting: see the
///   [hazards](crate::guide::hazards).
///
/// Waits for greenroom's own locks are not counted.
///
/// # Finding blocking calls without running them
///
/// This package has a list for clippy of the functions and types of std that block:
/// `shims/lints/clippy.toml`. Copy the list to the root of your package or workspace, or add it to the
/// `clippy.toml` there. `cargo clippy` then finds each use, and says what parks instead. Code under
/// `use greenroom::shims as std;` gets no lint, except where the shims re-export what is std's own.
///
/// Clippy goes by the names in the code. So a use that is meant to block, inside
/// [`unblock`](crate::unblock) or on an OS thread of your own, needs an
/// `#[expect(clippy::disallowed_methods, reason = "...")]`. And clippy does not see what a library calls;
/// `deny_blocking` does.
///
/// <details><summary>The list</summary>
///
/// ```toml
#[doc = include_str!("../../shims/lints/clippy.toml")]
/// ```
///
/// </details>
pub fn deny_blocking() -> bool {
    deny_blocking_with(blocking_report::print)
}

/// Like [`deny_blocking`], but calls `hook` for every turn in which a coroutine has blocked its worker.
///
/// The hook is called on the worker's thread, after the turn, outside of any coroutine. If the hook
/// blocks, it blocks the worker, and that is not reported. A panic of the hook is caught and ignored. A
/// further call of this function replaces the hook.
///
/// ```
/// let armed = greenroom::deny_blocking_with(|report| {
///     if report.turns() == 1 {
///         eprintln!("{report}"); // or log, count, abort
///     }
/// });
/// if !armed {
///     eprintln!("greenroom was built without debug assertions");
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

/// Runs `turn`, a turn of the coroutine `task`, and reports it if it blocks. The worker calls this for
/// each turn: it costs one load while nothing is watched, and nothing in release builds.
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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use crate::diagnose::blocking_report::{BlockingReport, Finding, Findings, Hook};
    use crate::sys::{initialisers, switches};
    use crate::task::Task;

    /// Whether there is a hook. Once set, it stays set.
    static ARMED: AtomicBool = AtomicBool::new(false);

    static FINDINGS: Findings = Findings::new();

    /// Installs a hook.
    pub(super) fn arm(hook: Hook) {
        FINDINGS.set_hook(hook);
        initialisers::watch();
        ARMED.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn is_armed() -> bool {
        ARMED.load(Ordering::Relaxed)
    }

    /// Runs `turn`, and reports it if the thread has blocked in it.
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
        FINDINGS.report(BlockingReport {
            name: task.name(),
            spawned_at: task.spawned_at(),
            turns: 0,
            took: start.elapsed(),
            finding: Finding::Blocked {
                times,
                in_initialiser,
            },
        });
    }
}
