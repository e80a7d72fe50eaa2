//! Sums of waiting time, by coroutine, stack and reason.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::dump::Symbols;
use crate::task::Task;
use crate::worker::{Activity, Entry, Trace};

/// The time that coroutines have waited.
#[derive(Default)]
pub(super) struct Waits {
    /// By the name of the coroutine, the index of its stack, and what it waited for.
    sums: HashMap<(String, Option<usize>, &'static str), Duration>,
    traces: Vec<Arc<Trace>>,
    trace_of: HashMap<Box<[usize]>, usize>,
    symbols: Symbols,
}

impl Waits {
    /// Adds `each` to the time of a coroutine, if it has started. A coroutine that is ready has waited, too, and still
    /// does: it may have become ready since it was asked for.
    pub(super) fn add(&mut self, entry: Entry, each: Duration) {
        let Some(started) = entry.started else {
            return;
        };
        if entry.activity == Activity::Running {
            return;
        }
        let trace = started.trace.map(|trace| self.index(trace));
        let key = (name(&entry.task), trace, started.reason.name());
        *self.sums.entry(key).or_default() += each;
    }

    fn index(&mut self, trace: Arc<Trace>) -> usize {
        if let Some(index) = self.trace_of.get(&trace.frames) {
            return *index;
        }
        let index = self.traces.len();
        self.trace_of.insert(trace.frames.clone(), index);
        self.traces.push(trace);
        index
    }

    /// Finds the names of the functions.
    pub(super) fn resolve(&mut self) {
        for trace in &self.traces {
            self.symbols.resolve(&trace.symbols);
        }
    }

    pub(super) fn total(&self) -> Duration {
        self.sums.values().sum()
    }

    pub(super) fn write_folded(&self, out: impl Write) -> io::Result<()> {
        let mut sums: Vec<_> = self.sums.iter().collect();
        sums.sort_unstable();
        let mut out = BufWriter::new(out);
        for ((name, trace, reason), sum) in sums {
            write!(out, "{}", one_frame(name))?;
            let frames = trace.map_or(&[][..], |trace| &self.traces[trace].frames);
            for frame in self.symbols.without_root(frames).iter().rev() {
                match self.symbols.of(*frame) {
                    [] => write!(out, ";{frame:#x}")?,
                    symbols => {
                        for symbol in symbols.iter().rev() {
                            write!(out, ";{}", one_frame(&symbol.name))?;
                        }
                    }
                }
            }
            writeln!(out, ";{reason} {}", sum.as_micros())?;
        }
        out.flush()
    }
}

/// The name of a coroutine, or else the place where it was spawned.
fn name(task: &Task) -> String {
    match task.name() {
        Some(name) => name.to_owned(),
        None => format!("spawned at {}", task.spawned_at()),
    }
}

/// Text that may stand for a frame: frames are separated by semicolons, and stacks by lines.
fn one_frame(text: &str) -> String {
    text.replace(|c: char| c == ';' || c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_one_frame() {
        assert_eq!(one_frame("a;b\nc"), "a b c");
        assert_eq!(one_frame("<T as U>::f"), "<T as U>::f");
    }

    #[test]
    fn nothing_is_written_of_no_waits() {
        let waits = Waits::default();
        let mut out = Vec::new();
        waits.write_folded(&mut out).unwrap();
        assert_eq!((waits.total(), out.len()), (Duration::ZERO, 0));
    }
}
