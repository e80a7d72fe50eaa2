//! What the workers tell of their coroutines, put together.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cycles::{self, Cycle};
use super::symbols::{Symbol, Symbols};
use crate::coroutine::Seen;
use crate::diagnose::pulse::Pulse;
use crate::park;
use crate::pool;
use crate::task::{Awaits, Deadline, Identity, Reason, Task};
use crate::worker::{Activity, Answer, Entry, Scheduler, Started, Trace, Traces, Wanted};

/// All coroutines of the process, each at one moment of the last few milliseconds.
pub(super) struct Snapshot {
    /// By their ids.
    pub(super) coroutines: Vec<Described>,
    /// Where the coroutine with an id is in `coroutines`.
    by_id: HashMap<u64, usize>,
    /// The id of the coroutine that is known by a number as the holder of locks.
    by_holder: HashMap<u32, u64>,
    pub(super) traces: Vec<Arc<Trace>>,
    symbols: Symbols,
    pub(super) workers: Vec<WorkerAnswer>,
    pub(super) pool: pool::Size,
    pub(super) cycles: Vec<Cycle>,
    /// When the workers were asked.
    pub(super) at: Instant,
}

/// A coroutine.
pub(super) struct Described {
    pub(super) id: u64,
    pub(super) entry: Entry,
    /// The index of its trace.
    pub(super) trace: Option<usize>,
}

/// How a worker has answered.
pub(super) struct WorkerAnswer {
    pub(super) runtime: u32,
    pub(super) index: usize,
    /// `None` if it has described its coroutines.
    pub(super) silent: Option<Silent>,
}

/// A worker that has described nothing.
pub(super) struct Silent {
    pub(super) why: &'static str,
    /// So many started coroutines it had.
    pub(super) coroutines: usize,
    /// Tells which coroutine holds it. `None` if no thread drives it.
    pulse: Option<Arc<Pulse>>,
    pub(super) holder: Option<WorkerHolder>,
}

/// A coroutine that holds its worker.
pub(super) struct WorkerHolder {
    pub(super) identity: Identity,
    /// What it does, if backtraces were asked for.
    pub(super) seen: Option<Seen>,
}

impl Silent {
    fn new(why: &'static str, coroutines: usize, pulse: Option<Arc<Pulse>>) -> Silent {
        Silent {
            why,
            coroutines,
            pulse,
            holder: None,
        }
    }

    /// Finds out which coroutine holds the worker, unless its turn has ended by now.
    fn look(&mut self, with_trace: bool) {
        let found = self.pulse.take().and_then(|pulse| pulse.holder(with_trace));
        self.holder = found.map(|(identity, seen)| WorkerHolder { identity, seen });
    }
}

/// What the workers have told.
struct Told {
    entries: Vec<Entry>,
    workers: Vec<WorkerAnswer>,
    pool: pool::Size,
    at: Instant,
}

impl Told {
    /// Asks all workers, with `patience`.
    fn ask(traces: Traces, patience: Duration) -> io::Result<Told> {
        let at = Instant::now();
        let schedulers = Scheduler::all();
        // All are asked before the first one is waited for.
        let calls: Vec<_> = schedulers
            .iter()
            .map(|scheduler| {
                let wanted = Wanted::All { traces };
                (scheduler.number(), scheduler.call_roll(wanted))
            })
            .collect();
        let deadline = Deadline::after(patience);
        let (mut entries, mut workers) = (Vec::new(), Vec::new());
        for (runtime, call) in calls {
            let (injected, answers) = call.answers(deadline, patience)?;
            entries.extend(injected);
            for (index, answer) in answers.into_iter().enumerate() {
                workers.push(WorkerAnswer {
                    runtime,
                    index,
                    silent: match answer {
                        Answer::Entries(described) => {
                            entries.extend(described);
                            None
                        }
                        Answer::Away(coroutines) => Some(Silent::new("away", coroutines, None)),
                        Answer::Busy(coroutines, pulse) => {
                            Some(Silent::new("busy", coroutines, Some(pulse)))
                        }
                    },
                });
            }
        }
        Ok(Told {
            entries,
            workers,
            // Without the job of the dump itself.
            pool: pool::crew_size(),
            at,
        })
    }
}

impl Snapshot {
    /// Asks all workers, with `patience`, and finds out the rest.
    pub(super) fn take(traces: Traces, patience: Duration) -> io::Result<Snapshot> {
        let told = Told::ask(traces, patience)?;
        // On a thread of the pool: there may be very many, and the symbols are read from files. Beyond the pool's
        // limit: somebody may ask because its jobs do not end.
        let mut snapshot = pool::unblock_waiting(move || {
            let mut snapshot = Snapshot::of(told);
            let silent = snapshot.workers.iter_mut();
            for silent in silent.filter_map(|worker| worker.silent.as_mut()) {
                silent.look(traces == Traces::All);
            }
            for trace in &snapshot.traces {
                snapshot.symbols.resolve(&trace.symbols);
            }
            snapshot.cycles = cycles::find(&snapshot);
            snapshot
        });
        if !snapshot.cycles.is_empty() {
            let told = Told::ask(Traces::Nobodys, patience)?;
            let second = pool::unblock_waiting(move || Snapshot::of(told));
            let mut cycles = mem::take(&mut snapshot.cycles);
            cycles::retain_lasting(&mut cycles, &snapshot, &second);
            snapshot.cycles = cycles;
        }
        Ok(snapshot)
    }

    fn of(told: Told) -> Snapshot {
        let Told {
            entries,
            workers,
            pool,
            at,
        } = told;
        let mut known: HashMap<u64, Entry> = HashMap::with_capacity(entries.len());
        for entry in entries {
            let id = entry.task.id().get();
            // It was described as fresh, and has started since.
            let is_later = entry.started.is_some();
            if is_later || !known.contains_key(&id) {
                known.insert(id, entry);
            }
        }
        let (mut traces, mut trace_of) = (Vec::new(), HashMap::new());
        let mut coroutines: Vec<_> = known
            .into_iter()
            .map(|(id, entry)| {
                let trace = entry
                    .started
                    .as_ref()
                    .and_then(|started| started.trace.as_ref());
                let trace = trace.map(|trace| {
                    *trace_of.entry(trace.frames.clone()).or_insert_with(|| {
                        traces.push(Arc::clone(trace));
                        traces.len() - 1
                    })
                });
                Described { id, entry, trace }
            })
            .collect();
        coroutines.sort_unstable_by_key(|coroutine| coroutine.id);
        let by_id = coroutines.iter().enumerate();
        let by_id = by_id
            .map(|(index, coroutine)| (coroutine.id, index))
            .collect();
        let by_holder = coroutines.iter().filter_map(|coroutine| {
            let started = coroutine.entry.started.as_ref()?;
            Some((started.holder?, coroutine.id))
        });
        Snapshot {
            by_id,
            by_holder: by_holder.collect(),
            coroutines,
            traces,
            symbols: Symbols::default(),
            workers,
            pool,
            cycles: Vec::new(),
            at,
        }
    }

    /// The coroutine with this id, unless it has ended or was not described.
    pub(super) fn coroutine(&self, id: u64) -> Option<&Described> {
        self.by_id.get(&id).map(|&index| &self.coroutines[index])
    }

    /// The id of the coroutine that is known by this number as the holder of locks.
    pub(super) fn holder(&self, number: u32) -> Option<u64> {
        self.by_holder.get(&number).copied()
    }

    pub(super) fn symbols(&self, frame: usize) -> &[Symbol] {
        self.symbols.of(frame)
    }

    /// The frames without those at the coroutine's root.
    pub(super) fn without_root<'a>(&self, frames: &'a [usize]) -> &'a [usize] {
        self.symbols.without_root(frames)
    }

    /// How many coroutines do that.
    pub(super) fn count(&self, activity: Activity) -> usize {
        let all = self.coroutines.iter();
        all.filter(|coroutine| coroutine.entry.activity == activity)
            .count()
    }

    /// Displays the coroutine with this id.
    pub(super) fn named(&self, id: u64) -> Named<'_> {
        Named {
            id,
            name: self
                .coroutine(id)
                .and_then(|coroutine| coroutine.task().name()),
        }
    }

    /// Displays what is waited for.
    pub(super) fn wait<'a>(&'a self, awaits: &'a Awaits) -> WaitText<'a> {
        WaitText {
            snapshot: self,
            awaits,
        }
    }
}

impl fmt::Display for WorkerHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerHolder { identity, seen } = self;
        match identity.id {
            Some(id) => write!(f, "coroutine {id}")?,
            None => f.write_str("a coroutine")?,
        }
        if let Some(name) = &identity.name {
            write!(f, " '{}'", name.escape_debug())?;
        }
        write!(f, ", spawned at {}, holds it", identity.spawned_at)?;
        match seen.as_ref().map(Seen::call_name) {
            None => Ok(()),
            Some(None) => f.write_str(" and computes"),
            Some(Some(call)) => write!(f, " and waits in {call}"),
        }
    }
}

impl Described {
    pub(super) fn task(&self) -> &Task {
        &self.entry.task
    }

    pub(super) fn started(&self) -> Option<&Started> {
        self.entry.started.as_deref()
    }

    /// What it waits for, if it is parked.
    pub(super) fn awaits(&self) -> Option<&Awaits> {
        self.started()?.awaits.as_ref()
    }
}

/// The name of an activity.
pub(super) fn name(activity: Activity) -> &'static str {
    match activity {
        Activity::Running => "running",
        Activity::Ready => "ready",
        Activity::Parked => "parked",
        Activity::Fresh => "fresh",
    }
}

/// Displays a coroutine by its id and its name.
pub(super) struct Named<'a> {
    id: u64,
    name: Option<&'a str>,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{} '{}'", self.id, name.escape_debug()),
            None => write!(f, "{}", self.id),
        }
    }
}

/// Displays a wait, as the end of a sentence about the coroutine.
pub(super) struct WaitText<'a> {
    snapshot: &'a Snapshot,
    awaits: &'a Awaits,
}

impl fmt::Display for WaitText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaitText { snapshot, awaits } = self;
        f.write_str(awaits.reason.text())?;
        if awaits.address != 0 {
            write!(f, " at {:#x}", awaits.address)?;
        }
        match awaits.holder.map(|number| snapshot.holder(number)) {
            None => {}
            Some(Some(id)) => write!(f, " that {} has", snapshot.named(id))?,
            Some(None) => f.write_str(" that an OS thread or a coroutine without a number has")?,
        }
        for (index, id) in awaits.tasks.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma} {}", snapshot.named(*id))?;
        }
        for (index, descriptor) in awaits.descriptors.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match awaits.reason {
                Reason::Descriptors => write!(f, "{comma} {} ", descriptor.interest)?,
                _ => f.write_str(" descriptor ")?,
            }
            write!(f, "{}", descriptor.number)?;
            if let Some(object) = &descriptor.object {
                write!(f, " ({})", object.escape_debug())?;
            }
        }
        if let Some(detail) = &awaits.detail {
            write!(f, " ({detail})")?;
        }
        for (index, arm) in awaits.arms.iter().enumerate() {
            let colon = if index > 0 { ";" } else { ":" };
            write!(f, "{colon} {}", snapshot.wait(arm))?;
        }
        Ok(())
    }
}

/// Lets others run now and then, while a long dump is written.
pub(super) fn breathe(written: usize) {
    if written % 128 == 127 {
        park::yield_now();
    }
}
