//! What the program tells of itself at one moment.

use std::time::Instant;

use serde_json::Value;

use crate::printable::printable;

pub(crate) struct Sample {
    pub(crate) numbers: Numbers,
    /// `None` if coroutines were not asked for.
    pub(crate) coroutines: Option<Coroutines>,
}

/// The numbers in the header.
pub(crate) struct Numbers {
    at: Instant,
    pub(crate) pid: u64,
    pub(crate) live: u64,
    pub(crate) runnable: u64,
    spawned: u64,
    polls: u64,
    /// How many delays in the run queue were measured, and their sum in seconds.
    delays: (u64, f64),
}

/// What has happened between two samples.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) spawns: f64,
    pub(crate) polls: f64,
    /// The mean delay in the run queue in seconds, if there was one.
    pub(crate) delay: Option<f64>,
}

#[derive(Default)]
pub(crate) struct Coroutines {
    pub(crate) all: Vec<Coroutine>,
    /// The different stacks.
    pub(crate) traces: Vec<Vec<Frame>>,
    /// The workers that a coroutine holds, for people.
    pub(crate) held: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Coroutine {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    /// What it waits for, for people.
    pub(crate) waits_for: String,
    /// For how many seconds it has been parked.
    pub(crate) since: Option<f64>,
    /// How many bytes of its stack it has used so far.
    pub(crate) stack: u64,
    pub(crate) spawned_at: String,
    pub(crate) trace: Option<usize>,
}

/// A function in a backtrace, and its place, if that is known.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) function: String,
    pub(crate) at: Option<String>,
}

impl Frame {
    /// Whether the function is one of the libraries that are below each coroutine's own code.
    pub(crate) fn is_of_library(&self) -> bool {
        const LIBRARIES: [&str; 5] = ["greenroom::", "corosensei::", "std::", "core::", "__rust"];
        let path = self.function.trim_start_matches(['<', '&']);
        LIBRARIES.iter().any(|start| path.starts_with(start))
    }
}

impl Sample {
    pub(crate) fn of(metrics: &Value, dump: Option<Value>) -> Sample {
        Sample {
            numbers: Numbers::of(metrics),
            coroutines: dump.as_ref().map(Coroutines::of),
        }
    }
}

impl Numbers {
    fn of(metrics: &Value) -> Numbers {
        let delays = &metrics["run_queue_delay"];
        let buckets = array(&delays["buckets"]).iter();
        let count = buckets.map(|bucket| number(&bucket["count"])).sum();
        Numbers {
            at: Instant::now(),
            pid: number(&metrics["pid"]),
            live: number(&metrics["live"]),
            runnable: number(&metrics["runnable"]),
            spawned: number(&metrics["spawned"]),
            polls: number(&metrics["polls"]),
            delays: (count, delays["sum"].as_f64().unwrap_or(0.0)),
        }
    }

    /// What has happened since `before`. `None` if that is another process.
    pub(crate) fn since(&self, before: &Numbers) -> Option<Rates> {
        if self.pid != before.pid {
            return None;
        }
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let delays = self.delays.0.saturating_sub(before.delays.0);
        Some(Rates {
            spawns: rate(self.spawned, before.spawned),
            polls: rate(self.polls, before.polls),
            delay: (delays > 0).then(|| (self.delays.1 - before.delays.1) / delays as f64),
        })
    }
}

impl Coroutines {
    fn of(dump: &Value) -> Coroutines {
        let workers = array(&dump["workers"]).iter();
        let busy = workers.filter(|worker| worker["state"] == "busy");
        Coroutines {
            all: array(&dump["coroutines"])
                .iter()
                .map(Coroutine::of)
                .collect(),
            traces: array(&dump["traces"])
                .iter()
                .map(|trace| frames(array(trace)))
                .collect(),
            held: busy.map(held).collect(),
        }
    }
}

impl Coroutine {
    fn of(value: &Value) -> Coroutine {
        let wait = &value["wait"];
        Coroutine {
            id: number(&value["id"]),
            name: text(&value["name"]),
            state: text(&value["state"]),
            reason: text(&wait["reason"]),
            waits_for: text(&wait["text"]),
            since: value["parked_for"].as_f64(),
            stack: number(&value["stack"]["high_water"]),
            spawned_at: shortened(&text(&value["spawned_at"])),
            trace: value["trace"].as_u64().map(|trace| trace as usize),
        }
    }
}

/// Tells which coroutine holds a worker.
fn held(worker: &Value) -> String {
    let holder = &worker["holder"];
    let name = holder["name"].as_str().unwrap_or("<unnamed>");
    let who = match holder.is_null() {
        true => String::new(),
        false => format!(
            " by '{}' ({})",
            printable(name),
            text(&holder["spawned_at"])
        ),
    };
    let (index, runtime) = (&worker["worker"], &worker["runtime"]);
    let count = &worker["not_described"];
    format!("worker {index} of runtime {runtime}, with {count} coroutines, is held{who}")
}

/// The frames of a backtrace. Where functions are inlined into each other, a frame has several.
pub(crate) fn frames(stack: &[Value]) -> Vec<Frame> {
    let functions = |frame: &Value| {
        let symbols = array(&frame["symbols"]).iter();
        let mut found: Vec<_> = symbols
            .map(|symbol| Frame {
                function: text(&symbol["name"]),
                at: symbol["at"].as_str().map(printable),
            })
            .collect();
        if found.is_empty() {
            found.push(Frame {
                function: text(&frame["address"]),
                at: None,
            });
        }
        found
    };
    stack.iter().flat_map(functions).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().map(printable).unwrap_or_default()
}

/// A place in a source file, with the last two names of the path, and without the column.
fn shortened(place: &str) -> String {
    let place = place.rsplit_once(':').map_or(place, |(line, _)| line);
    let start = place.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    place[start..].to_owned()
}
