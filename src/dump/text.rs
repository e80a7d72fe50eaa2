//! A dump as text.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::panic::Location;
use std::time::{Duration, Instant};

use super::snapshot::{Described, Snapshot, breathe, name};
use super::tree;
use crate::task::{Reason, Role};
use crate::worker::{Activity, Started};

/// What the coroutines of a group have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Kind {
    activity: Activity,
    reason: Option<Reason>,
    spawned_at: &'static Location<'static>,
    trace: Option<usize>,
}

/// Writes the dump. Of each group, `listed` coroutines are listed.
pub(super) fn write(snapshot: &Snapshot, listed: usize, out: &mut dyn Write) -> fmt::Result {
    write_summary(snapshot, out)?;
    for cycle in &snapshot.cycles {
        writeln!(
            out,
            "\nthese coroutines wait for each other, and will for ever:"
        )?;
        for id in cycle {
            let awaits = snapshot.coroutine(*id).and_then(Described::awaits);
            if let Some(awaits) = awaits {
                writeln!(out, "  {} {}", snapshot.named(*id), snapshot.wait(awaits))?;
            }
        }
    }
    let mut groups: HashMap<Kind, Vec<&Described>> = HashMap::new();
    for (index, coroutine) in snapshot.coroutines.iter().enumerate() {
        breathe(index);
        groups.entry(kind(coroutine)).or_default().push(coroutine);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    // The largest group first, and for equal ones the oldest.
    groups.sort_unstable_by_key(|(_, members)| (usize::MAX - members.len(), members[0].id));
    for (kind, members) in &groups {
        write_group(snapshot, *kind, members, listed, out)?;
    }
    tree::write(snapshot, listed, out)
}

fn kind(coroutine: &Described) -> Kind {
    Kind {
        activity: coroutine.entry.activity,
        reason: coroutine.awaits().map(|awaits| awaits.reason),
        spawned_at: coroutine.task().spawned_at(),
        trace: coroutine.trace,
    }
}

fn write_summary(snapshot: &Snapshot, out: &mut dyn Write) -> fmt::Result {
    write!(out, "greenroom: {}", coroutines(snapshot.coroutines.len()))?;
    let all = [
        Activity::Running,
        Activity::Ready,
        Activity::Parked,
        Activity::Fresh,
    ];
    for (index, activity) in all.into_iter().enumerate() {
        let before = if index > 0 { "," } else { ":" };
        write!(
            out,
            "{before} {} {}",
            snapshot.count(activity),
            name(activity)
        )?;
    }
    writeln!(out)?;
    let pool = snapshot.pool;
    if pool.threads > 0 {
        writeln!(
            out,
            "the pool: {} threads, {} of them idle; {} jobs wait for a thread",
            pool.threads, pool.idle, pool.queued
        )?;
    }
    for worker in &snapshot.workers {
        if let Some(silent) = &worker.silent {
            let (worker, runtime) = (worker.index, worker.runtime);
            write!(out, "worker {worker} of runtime {runtime} has not answered")?;
            match (silent.why, &silent.holder) {
                ("away", _) => out.write_str(", since no thread drives it")?,
                (_, Some(holder)) => write!(out, ", since {holder}")?,
                // Its turn has ended by now, or its thread was stopped.
                (_, None) => out.write_str(" in time")?,
            }
            let had = coroutines(silent.coroutines);
            writeln!(out, "; it had {had} when it was last counted")?;
            let seen = silent
                .holder
                .as_ref()
                .and_then(|holder| holder.seen.as_ref());
            if let Some(backtrace) = seen.and_then(|seen| seen.backtrace.as_ref()) {
                out.write_str(backtrace)?;
            }
        }
    }
    Ok(())
}

fn coroutines(count: usize) -> String {
    match count {
        1 => "1 coroutine".into(),
        count => format!("{count} coroutines"),
    }
}

fn write_group(
    snapshot: &Snapshot,
    kind: Kind,
    members: &[&Described],
    listed: usize,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(
        out,
        "\n{}, {}",
        coroutines(members.len()),
        name(kind.activity)
    )?;
    if let Some(reason) = kind.reason {
        write!(out, " ({})", reason.name())?;
    }
    writeln!(out, ", spawned at {}", kind.spawned_at)?;
    for (index, member) in members.iter().take(listed).enumerate() {
        write_member(snapshot, member, out)?;
        breathe(index);
    }
    if let Some(more @ 1..) = members.len().checked_sub(listed) {
        writeln!(out, "  and {more} more")?;
    }
    match kind.trace {
        Some(trace) => write_trace(snapshot, trace, out),
        None => Ok(()),
    }
}

fn write_member(snapshot: &Snapshot, member: &Described, out: &mut dyn Write) -> fmt::Result {
    write!(out, "  {}", snapshot.named(member.id))?;
    if let Some(started) = member.started() {
        if let Some(awaits) = &started.awaits {
            write!(out, " {}", snapshot.wait(awaits))?;
            write!(out, ", for {:.3?} so far", started.idle)?;
            if let Some(deadline) = started.deadline {
                write_deadline(deadline, out)?;
            }
        }
        write_stack(started, out)?;
        write!(out, "; worker {}", started.worker)?;
        for (index, name) in started.locals.iter().enumerate() {
            let before = if index > 0 { "," } else { "; locals" };
            write!(out, "{before} {name}")?;
        }
    }
    if member.task().role() == Role::Daemon {
        write!(out, "; daemon")?;
    }
    if let Some(parent) = member.task().parent() {
        write!(out, "; spawned by {}", snapshot.named(parent.get()))?;
    }
    writeln!(out)
}

fn write_deadline(deadline: Instant, out: &mut dyn Write) -> fmt::Result {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => write!(out, ", until now"),
        left => write!(out, ", for {left:.3?} more at most"),
    }
}

fn write_stack(started: &Started, out: &mut dyn Write) -> fmt::Result {
    write!(
        out,
        "; stack {} bytes, {} so far, of {}",
        started.depth, started.high_water, started.stack,
    )
}

fn write_trace(snapshot: &Snapshot, trace: usize, out: &mut dyn Write) -> fmt::Result {
    let frames = snapshot.without_root(&snapshot.traces[trace].frames);
    for (index, &frame) in frames.iter().enumerate() {
        match snapshot.symbols(frame) {
            [] => writeln!(out, "    {index:>3}: {frame:#x}")?,
            [inner, outer @ ..] => {
                writeln!(out, "    {index:>3}: {}", inner.name)?;
                write_place(inner.at.as_deref(), out)?;
                for symbol in outer {
                    writeln!(out, "         {}", symbol.name)?;
                    write_place(symbol.at.as_deref(), out)?;
                }
            }
        }
    }
    Ok(())
}

fn write_place(at: Option<&str>, out: &mut dyn Write) -> fmt::Result {
    match at {
        Some(at) => writeln!(out, "             at {at}"),
        None => Ok(()),
    }
}
