//! The commands, and their replies.

use std::fmt;
use std::io::{self, Write};
use std::process;
use std::time::Duration;

use crate::diagnose::monitor;
use crate::dump::json::Json;
use crate::dump::{self, Dump, One};
use crate::task::Role;
use crate::worker::metrics::{Histogram, Metrics, metrics};

const HELP: [&str; 10] = [
    "dump: what all coroutines do, with their backtraces",
    "dump brief: the same without backtraces",
    "dump text: the same for people, as one string",
    "backtrace ID: the stack of a parked coroutine",
    "metrics: the numbers of the runtimes",
    "cancel ID: cancels a coroutine",
    "threshold: the threshold of the monitor in milliseconds",
    "threshold MS: sets the threshold, and turns the monitor on",
    "threshold off: turns the monitor off",
    "help: these lines",
];

#[derive(Debug, PartialEq)]
enum Command {
    Dump { backtraces: bool },
    DumpText,
    Backtrace(u64),
    Metrics,
    Cancel(u64),
    Threshold,
    SetThreshold(Option<Duration>),
    Help,
}

impl Command {
    /// The command in a line. If it is none, what is wrong with it.
    fn parse(line: &str) -> Result<Command, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Ok(match words[..] {
            ["dump"] => Command::Dump { backtraces: true },
            ["dump", "brief"] => Command::Dump { backtraces: false },
            ["dump", "text"] => Command::DumpText,
            ["backtrace", id] => Command::Backtrace(parse_id(id)?),
            ["metrics"] => Command::Metrics,
            ["cancel", id] => Command::Cancel(parse_id(id)?),
            ["threshold"] => Command::Threshold,
            ["threshold", "off"] => Command::SetThreshold(None),
            ["threshold", ms] => match ms.parse() {
                Ok(ms) => Command::SetThreshold(Some(Duration::from_millis(ms))),
                Err(_) => return Err("a threshold is a number of milliseconds, or off".into()),
            },
            ["help"] => Command::Help,
            _ => return Err("no such command: see help".into()),
        })
    }
}

fn parse_id(word: &str) -> Result<u64, String> {
    word.parse()
        .map_err(|_| "an id is a number, as in a dump".into())
}

/// Carries out the command in `line`, and writes the reply.
///
/// # Errors
///
/// Those of `out`.
pub(super) fn answer(line: &str, out: impl Write) -> io::Result<()> {
    match Command::parse(line) {
        Ok(command) => carry_out(&command, out),
        Err(why) => refuse(&why, out),
    }
}

/// Writes the reply to what cannot be carried out.
pub(super) fn refuse(why: &str, out: impl Write) -> io::Result<()> {
    reply(out, |json| {
        json.object(|json| json.member("error", |json| json.string(why)))
    })
}

fn carry_out(command: &Command, out: impl Write) -> io::Result<()> {
    match *command {
        Command::Dump { backtraces } => Dump::new().backtraces(backtraces).json(out),
        Command::DumpText => {
            let mut text = Vec::new();
            Dump::new().text(&mut text)?;
            reply(out, |json| json.string(&String::from_utf8_lossy(&text)))
        }
        Command::Backtrace(id) => match One::find(id, true) {
            Ok(one) => reply(out, |json| one.write_backtrace(json)),
            Err(error) => refuse(&error.to_string(), out),
        },
        Command::Metrics => {
            let metrics = metrics();
            reply(out, |json| write_metrics(&metrics, json))
        }
        Command::Cancel(id) => match cancel(id) {
            Ok(()) => reply(out, |json| {
                json.object(|json| json.member("cancelled", |json| json.number(id)))
            }),
            Err(error) => refuse(&error.to_string(), out),
        },
        Command::Threshold => reply(out, write_threshold),
        Command::SetThreshold(threshold) => match monitor::set_threshold(threshold) {
            Ok(()) => reply(out, write_threshold),
            Err(error) => refuse(&error.to_string(), out),
        },
        Command::Help => reply(out, |json| json.array(HELP, |json, line| json.string(line))),
    }
}

/// Writes one JSON value, and the end of the line.
fn reply(out: impl Write, value: impl FnOnce(&mut Json<'_>) -> fmt::Result) -> io::Result<()> {
    dump::write(out, |out| {
        value(&mut Json::new(out))?;
        out.write_char('\n')
    })
}

/// Cancels a coroutine.
///
/// # Errors
///
/// If there is none with this id, or its runtime needs it: the main coroutine, and the one that fires timers.
fn cancel(id: u64) -> io::Result<()> {
    let one = One::find(id, false)?;
    let what = match one.task().role() {
        Role::Main => "is the main coroutine of its runtime",
        Role::Keeper => "fires the timers of its runtime",
        _ => {
            one.task().cancel();
            return Ok(());
        }
    };
    let why = format!("coroutine {id} {what}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

fn write_threshold(json: &mut Json<'_>) -> fmt::Result {
    let threshold = monitor::threshold().map(|threshold| threshold.as_secs_f64() * 1e3);
    json.object(|json| json.member("threshold_ms", |json| json.option(threshold, Json::number)))
}

fn write_metrics(metrics: &Metrics, json: &mut Json<'_>) -> fmt::Result {
    json.object(|json| {
        json.member("pid", |json| json.number(process::id()))?;
        json.member("live", |json| json.number(metrics.live))?;
        json.member("runnable", |json| json.number(metrics.runnable))?;
        json.member("spawned", |json| json.number(metrics.spawned))?;
        json.member("turns", |json| json.number(metrics.turns))?;
        json.member("wakes", |json| json.number(metrics.wakes))?;
        json.member("yields", |json| json.number(metrics.yields))?;
        json.member("steals", |json| json.number(metrics.steals))?;
        json.member("polls", |json| json.number(metrics.polls))?;
        json.member("sleeps", |json| json.number(metrics.sleeps))?;
        json.member("workers", |json| json.number(metrics.workers))?;
        json.member("run_queue_delay", |json| {
            write_histogram(&metrics.run_queue_delay, json)
        })?;
        json.member("pool", |json| {
            json.object(|json| {
                json.member("threads", |json| json.number(metrics.pool.threads))?;
                json.member("idle", |json| json.number(metrics.pool.idle))?;
                json.member("queued", |json| json.number(metrics.pool.queued))
            })
        })?;
        json.member("stacks", |json| {
            json.object(|json| {
                json.member("count", |json| json.number(metrics.stacks.count))?;
                json.member("reserved", |json| json.number(metrics.stacks.reserved))?;
                json.member("mapped", |json| json.number(metrics.stacks.mapped))
            })
        })
    })
}

/// Writes the ranges as pairs of the upper bound, `null` for none, and the count.
fn write_histogram(histogram: &Histogram, json: &mut Json<'_>) -> fmt::Result {
    json.object(|json| {
        json.member("buckets", |json| {
            json.array(histogram.buckets(), |json, (bound, count)| {
                json.object(|json| {
                    let bound = bound.map(|bound| bound.as_secs_f64());
                    json.member("up_to", |json| json.option(bound, Json::number))?;
                    json.member("count", |json| json.number(count))
                })
            })
        })?;
        json.member("sum", |json| json.number(histogram.sum().as_secs_f64()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_apart() {
        let parse = |line| Command::parse(line);
        assert_eq!(parse("dump\n"), Ok(Command::Dump { backtraces: true }));
        assert_eq!(parse(" dump  text\r\n"), Ok(Command::DumpText));
        assert_eq!(parse("backtrace 7"), Ok(Command::Backtrace(7)));
        let second = Some(Duration::from_secs(1));
        assert_eq!(parse("threshold 1000"), Ok(Command::SetThreshold(second)));
        assert_eq!(parse("threshold off"), Ok(Command::SetThreshold(None)));
        for wrong in [
            "",
            "\0",
            "Dump",
            "dump all",
            "cancel",
            "cancel -1",
            "cancel 1 2",
            "threshold x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn help_has_each_command() {
        for line in HELP {
            let (command, _) = line.split_once(':').unwrap();
            let command = command.replace("ID", "1").replace("MS", "1");
            assert!(Command::parse(&command).is_ok(), "{command}");
        }
    }
}
