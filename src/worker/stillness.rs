//! Finding out that no coroutine of a runtime can ever run again.
//!
//! ```text
//! worker: nothing to run, and no timer ─▶ nothing happens for a while ─▶ no coroutine awaits an event ─▶ STILL
//! the last worker that becomes STILL: no mail, nothing fresh, no job of the pool, no other thread ─▶ report
//! ```
//!
//! # A report is true
//!
//! A parked coroutine goes on only if something ends its wait. Those are, and nothing else is:
//!
//! - *time*: then its worker has a timer, and does not become STILL;
//! - *I/O, a child, a signal that it waits for, a job of a pool*: then its wait is one for an event (`Kind::Event`,
//!   `Kind::Borrowed`), and its worker does not become STILL;
//! - *another coroutine of the runtime*: all of them are parked, since each worker has looked at its own before it
//!   became STILL, and none has started since;
//! - *another thread of the process*. There is none: the kernel's list of threads is as long as the number of
//!   workers, plus the idle threads of the pool, plus the monitor if it sleeps. All of these run coroutines, jobs or a
//!   hook only, and have none.
//!
//! The order in which all this is read is that of [`Standstill`], which is model-checked.
//!
//! The allocator may wake a coroutine. So nothing is allocated, and nothing freed, between the look at the mail and the
//! report.
//!
//! # What is not found
//!
//! If there is any other thread, nothing is reported, because nobody can tell whether it has a handle. So nothing is
//! reported for the default runtime of an ordinary `main`, nor beside a second runtime. A thread may also be about
//! to end, so the look is repeated some times, after longer and longer pauses.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::standstill::Standstill;
use super::{Live, Worker};
use crate::diagnose::monitor;
use crate::pool;
use crate::sys::thread_state;
use crate::task::{self, Awaits, Deadline, Holder, Role};

/// The coroutines of a runtime, none of which can ever run again. See
/// [`RuntimeBuilder::on_deadlock`](crate::RuntimeBuilder::on_deadlock).
///
/// Its `Display` has a line for each coroutine, with what it waits for, and the coroutine that has it.
#[derive(Clone, Debug)]
pub struct Deadlock {
    coroutines: Vec<Deadlocked>,
}

/// A coroutine that can never run again. See [`Deadlock`].
#[derive(Clone, Debug)]
pub struct Deadlocked {
    name: Option<Box<str>>,
    spawned_at: &'static Location<'static>,
    role: Role,
    id: u64,
    /// The number by which locks know it.
    holder: Option<u32>,
    awaits: Awaits,
}

impl Deadlock {
    /// All coroutines of the runtime, the main coroutine first.
    #[must_use]
    pub fn coroutines(&self) -> &[Deadlocked] {
        &self.coroutines
    }
}

impl Deadlocked {
    /// The name of the coroutine, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The place that spawned the coroutine.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// Whether this is a [daemon](crate::Builder::daemon).
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.role == Role::Daemon
    }

    fn of(live: &Live, slot: usize) -> Deadlocked {
        let task = &live.task;
        let slot = u32::try_from(slot).ok();
        Deadlocked {
            name: task.name().map(Into::into),
            spawned_at: task.spawned_at(),
            role: task.role(),
            id: task.id().get(),
            holder: slot.and_then(Holder::in_slot_here).map(Holder::number),
            awaits: live.awaits(),
        }
    }
}

impl Deadlock {
    /// The name and number of the first coroutine that satisfies `is_it`.
    fn name_if(&self, is_it: impl Fn(&Deadlocked) -> bool) -> String {
        match self.coroutines.iter().find(|coroutine| is_it(coroutine)) {
            Some(found) => format!("{} '{}'", found.id, found.name().unwrap_or("<unnamed>")),
            None => "a coroutine that has ended".to_owned(),
        }
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all coroutines wait for each other, and nothing else can wake them:")?;
        for coroutine in &self.coroutines {
            let name = coroutine.name().unwrap_or("<unnamed>");
            let kind = if coroutine.is_daemon() {
                "daemon"
            } else {
                "coroutine"
            };
            let Deadlocked {
                id,
                awaits,
                spawned_at,
                ..
            } = coroutine;
            write!(
                f,
                "\n  {kind} {id} '{name}' (spawned at {spawned_at}) {}",
                awaits.reason.text()
            )?;
            if awaits.address != 0 {
                write!(f, " at {:#x}", awaits.address)?;
            }
            if let Some(number) = awaits.holder {
                write!(
                    f,
                    " that {} has",
                    self.name_if(|other| other.holder == Some(number))
                )?;
            }
            for (index, task) in awaits.tasks.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                write!(f, "{comma} {}", self.name_if(|other| other.id == *task))?;
            }
        }
        Ok(())
    }
}

/// What to do about a deadlock.
pub(crate) type Hook = Arc<dyn Fn(&Deadlock) + Send + Sync>;

/// The setting of a runtime: the hook, and how long nothing must have happened.
#[derive(Clone)]
pub(crate) struct OnDeadlock {
    pub(crate) after: Duration,
    pub(crate) hook: Hook,
}

impl fmt::Debug for OnDeadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDeadlock")
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// Which workers of a runtime are STILL.
pub(super) struct Stillness {
    on_deadlock: Option<OnDeadlock>,
    standstill: Standstill,
    /// The coroutines of each worker when it last became STILL.
    coroutines: Mutex<BTreeMap<usize, Vec<Deadlocked>>>,
    /// The number of all turns at the last report, so that a deadlock is reported once. Locked by the worker that looks
    /// whether there is one.
    reported: Mutex<Option<u64>>,
}

/// How often the last worker looks for other threads.
const LOOKS: u32 = 16;

/// The first pause between two looks, unless the setting is longer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

impl Stillness {
    pub(super) fn new(on_deadlock: Option<OnDeadlock>) -> Stillness {
        Stillness {
            on_deadlock,
            standstill: Standstill::new(),
            coroutines: Mutex::new(BTreeMap::new()),
            reported: Mutex::new(None),
        }
    }

    /// Whether deadlocks are looked for.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.on_deadlock.is_some()
    }

    /// The report of all coroutines in the lists of the workers.
    fn all_deadlocked(&self) -> Deadlock {
        let all = task::lock_aside(&self.coroutines).clone();
        let mut coroutines: Vec<_> = all.into_values().flatten().collect();
        coroutines.sort_by_key(|coroutine| coroutine.role != Role::Main);
        Deadlock { coroutines }
    }
}

impl Worker {
    /// Waits with nothing to run, until `first` at most, and finds a deadlock meanwhile. `has_timer` says whether a
    /// coroutine waits for time.
    #[cold]
    pub(super) fn wait_watching(&self, first: Option<Deadline>, has_timer: bool) {
        let stillness = &self.scheduler.stillness;
        let Some(OnDeadlock { after, hook }) = &stillness.on_deadlock else {
            return self.wait(first);
        };
        if has_timer || self.placement.until().is_some() {
            return self.wait(first);
        }
        if !self.nothing_comes_within(*after, first) {
            return;
        }
        if self.awaits_events() {
            return self.wait(first);
        }
        // The hook may make a dump, which borrows `live`.
        let mine: Vec<_> = task::aside(|| {
            let live = self.live.borrow();
            live.iter()
                .map(|(slot, live)| Deadlocked::of(live, slot))
                .collect()
        });
        let number = self.index();
        task::lock_aside(&stillness.coroutines).insert(number, mine);
        if stillness.standstill.enter() < self.scheduler.workers.len()
            || !self.report_if_nothing_can_happen(*after, first, hook)
        {
            self.wait(first);
        }
        stillness.standstill.leave();
    }

    /// Waits for `time`. Returns false if anything has come by then, or if `first` is earlier.
    fn nothing_comes_within(&self, time: Duration, first: Option<Deadline>) -> bool {
        let Some(end) = Instant::now().checked_add(time).map(Deadline::at) else {
            self.wait(first);
            return false;
        };
        let is_first = first.is_none_or(|first| end.at <= first.at);
        self.wait(Some(first.filter(|_| !is_first).unwrap_or(end)));
        // A kick is told by the poll once. After that, the worker must not wait again before it has looked around.
        is_first
            && Instant::now() >= end.at
            && self.remote.attention().is_asleep()
            && !self.has_work()
            && !self.scheduler.has_fresh()
            && !self.scheduler.is_stopping()
    }

    /// Whether a coroutine of this worker waits for an event that comes by itself, or does not wait.
    fn awaits_events(&self) -> bool {
        let live = self.live.borrow();
        live.iter().any(|(_, live)| {
            let word = &live.task.word;
            word.awaits_event().is_some() || !word.is_waiting()
        })
    }

    /// Reports a deadlock, if there is one. Called when all workers are STILL. Returns whether the worker must look for
    /// work again.
    fn report_if_nothing_can_happen(
        &self,
        after: Duration,
        first: Option<Deadline>,
        hook: &Hook,
    ) -> bool {
        let scheduler = &self.scheduler;
        let Ok(mut reported) = scheduler.stillness.reported.try_lock() else {
            return false;
        };
        let workers = || scheduler.workers.iter();
        let turns = workers().map(|worker| worker.counters().turns.get()).sum();
        if *reported == Some(turns) {
            return false;
        }
        let mut pause = after.max(SHORTEST_PAUSE);
        for _ in 0..LOOKS {
            let copy = || {
                is_without_other_threads(scheduler.workers.len())
                    .then(|| scheduler.stillness.all_deadlocked())
            };
            let is_quiet = || {
                workers().all(|worker| !worker.has_mail())
                    && !self.has_work()
                    && !scheduler.has_fresh()
                    && !scheduler.is_stopping()
            };
            let standstill = &scheduler.stillness.standstill;
            let Some(deadlock) = standstill.look(scheduler.workers.len(), copy, is_quiet) else {
                return true;
            };
            if let Some(deadlock) = deadlock {
                *reported = Some(turns);
                drop(reported);
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| hook(&deadlock))) {
                    // The panic hook has reported it. Dropping the payload might panic again.
                    mem::forget(payload);
                }
                return self.has_work() || scheduler.has_fresh();
            }
            if !self.nothing_comes_within(pause, first) {
                return true;
            }
            pause = pause.saturating_mul(2);
        }
        false
    }
}

/// Whether the process has no thread but `workers`, idle threads of the pool, and a monitor that sleeps; and the pool
/// has no job.
fn is_without_other_threads(workers: usize) -> bool {
    pool::while_none_leaves(|pool| {
        let is_idle = pool.idle == pool.threads && pool.queued == 0;
        let own = workers + pool.threads + usize::from(monitor::is_asleep());
        is_idle.then(thread_state::count_threads).flatten() == Some(own)
    })
}
