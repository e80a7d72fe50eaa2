//! A turn in which a coroutine has kept its worker from running others, and the hooks that hear of it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sys::stderr::Stderr;
use crate::sys::switches::own_lock;

/// A turn in which a coroutine has blocked its worker, has held it for long, or has waited where it must not.
/// See [`deny_blocking_with`](crate::deny_blocking_with) and [`monitor_with`](crate::monitor_with).
///
/// Its `Display` is a sentence without a full stop: the coroutine, what it has done, and how long the turn took.
pub struct BlockingReport<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) spawned_at: &'static Location<'static>,
    pub(super) turns: u64,
    pub(super) took: Duration,
    pub(super) finding: Finding<'a>,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finding<'a> {
    /// By `deny_blocking`, in debug builds: how often the thread has blocked.
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "never found"))]
    Blocked { times: u64, in_initialiser: bool },
    /// By `monitor`: the turn goes on.
    Held {
        call: Option<&'a str>,
        backtrace: Option<&'a str>,
    },
}

impl BlockingReport<'_> {
    /// The name of the coroutine, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name
    }

    /// The place that spawned the coroutine.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// Whether the coroutine has begun to wait inside the initialiser of a `thread_local!`. In this case
    /// it may not have blocked, and [`times`](BlockingReport::times) may be 0.
    #[must_use]
    pub fn waits_in_initialiser(&self) -> bool {
        matches!(
            self.finding,
            Finding::Blocked {
                in_initialiser: true,
                ..
            }
        )
    }

    /// How often the coroutine has blocked in this turn, in a report of [`deny_blocking`](crate::deny_blocking()).
    /// 0 in a report of [`monitor`](crate::monitor()), which does not count.
    #[must_use]
    pub fn times(&self) -> u64 {
        match self.finding {
            Finding::Blocked { times, .. } => times,
            Finding::Held { .. } => 0,
        }
    }

    /// The number of turns, including this one, in which coroutines spawned at the same place were
    /// reported so far. It is 1 in the first report of a place. The two settings count by themselves.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// How long the turn took; in a report of [`monitor`](crate::monitor()), how long it has lasted so far, at least.
    /// The coroutine was blocked for a part of this time, or for all of it.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Whether the turn goes on: the report is one of [`monitor`](crate::monitor()).
    #[must_use]
    pub fn goes_on(&self) -> bool {
        matches!(self.finding, Finding::Held { .. })
    }

    /// The name of the system call in which the thread waits, such as `clock_nanosleep`. `None` if it computes, or
    /// the turn is over.
    #[must_use]
    pub fn system_call(&self) -> Option<&str> {
        match self.finding {
            Finding::Held { call, .. } => call,
            Finding::Blocked { .. } => None,
        }
    }

    /// The backtrace of the coroutine, as std prints one, innermost frame first. Only in a report of
    /// [`monitor`](crate::monitor()), which says when there is one.
    #[must_use]
    pub fn backtrace(&self) -> Option<&str> {
        match self.finding {
            Finding::Held { backtrace, .. } => backtrace,
            Finding::Blocked { .. } => None,
        }
    }
}

impl fmt::Display for BlockingReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.unwrap_or("<unnamed>");
        write!(f, "coroutine '{name}' (spawned at {}) ", self.spawned_at)?;
        let took = self.took;
        match self.finding {
            Finding::Blocked {
                in_initialiser: true,
                ..
            } => f.write_str("waits in the initialiser of a `thread_local!`"),
            Finding::Blocked { times: 1, .. } => {
                write!(f, "has blocked its worker: once, in a turn of {took:.2?}")
            }
            Finding::Blocked { times, .. } => {
                write!(
                    f,
                    "has blocked its worker: {times} times, in a turn of {took:.2?}"
                )
            }
            Finding::Held {
                call: Some(call), ..
            } => {
                write!(
                    f,
                    "has held its worker for {took:.0?} so far, and waits in {call}"
                )
            }
            Finding::Held { call: None, .. } => {
                write!(f, "has held its worker for {took:.0?} so far, and computes")
            }
        }
    }
}

impl fmt::Debug for BlockingReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingReport")
            .field("name", &self.name())
            .field("spawned_at", &format_args!("{}", self.spawned_at()))
            .field("turns", &self.turns)
            .field("took", &self.took)
            .field("finding", &self.finding)
            .finish()
    }
}

/// Writes the first report of a place to standard error.
pub(super) fn print(report: &BlockingReport<'_>) {
    if report.turns() == 1 {
        // In one piece, and past the lock of std's `Stderr`, which another thread may hold for long.
        // A failure to write to standard error is ignored.
        let backtrace = report.backtrace().unwrap_or_default();
        let _ = Stderr.write_str(&format!("greenroom: {report}\n{backtrace}"));
    }
}

pub(super) type Hook = Arc<dyn Fn(&BlockingReport<'_>) + Send + Sync>;

/// The hook of one of the two settings, and what was found so far.
pub(super) struct Findings(Mutex<Inner>);

struct Inner {
    hook: Option<Hook>,
    /// The number of turns that were reported, by the place that spawned the coroutine.
    turns: BTreeMap<&'static Location<'static>, u64>,
}

impl Findings {
    pub(super) const fn new() -> Findings {
        Findings(Mutex::new(Inner {
            hook: None,
            turns: BTreeMap::new(),
        }))
    }

    /// Installs a hook.
    pub(super) fn set_hook(&self, hook: Hook) {
        // Dropping the previous hook runs code of the user's, which must not run under the lock.
        let before = own_lock(&self.0).hook.replace(hook);
        drop(before);
    }

    pub(super) fn set_hook_if_none(&self, hook: fn(&BlockingReport<'_>)) {
        own_lock(&self.0).hook.get_or_insert_with(|| Arc::new(hook));
    }

    /// Counts a turn, and calls the hook.
    pub(super) fn report(&self, mut report: BlockingReport<'_>) {
        let hook = {
            let mut inner = own_lock(&self.0);
            let turns = inner.turns.entry(report.spawned_at).or_default();
            *turns += 1;
            report.turns = *turns;
            inner.hook.clone()
        };
        let call_hook = AssertUnwindSafe(|| hook.inspect(|hook| hook(&report)));
        if let Err(payload) = catch_unwind(call_hook) {
            // The panic hook has reported the panic. The payload is leaked, because dropping it might
            // panic again.
            mem::forget(payload);
        }
    }
}
