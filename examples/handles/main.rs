//! The handles of libuv, each as a few lines of sequential code: what takes callbacks and a loop there is a call
//! that waits.
//!
//! ```text
//! $ cargo run --example handles
//! timer     ["once", "again"], and ticks that drifted by 0 ns
//! tcp       "HELLO", and the end
//! udp       "ping", and then no answer within 20 ms
//! pipe      "parent: one", and on the same connection "child: two"
//! tty       80 x 24, the line "hello\n", the key 'q'
//! poll      silence, then an eventfd with 3 (readable: true), and no waiting for files
//! idle      ["busy", "idle", "idle", "idle"]
//! idle      a prepare before each poll, a check after it: true
//! async     40000 sends of 4 threads, no more wake-ups than sends: true
//! signal    SIGHUP, SIGUSR2
//! process   "hello, child, in /", exit status: 3; signal: 9 (SIGKILL)
//! fs        ["done"] with 8 bytes, "one\ntwo\n"
//! fs-event  [Created, Modified, Removed]
//! dns       localhost is this machine: true; database:5432 is [192.0.2.1:5432]
//! work      the work waited for a turn of the loop, this program for a callback
//! makefile  "5 words\n" over a pipe, "5 words" at a terminal (below "and one at a terminal")
//! ```
//!
//! The arguments are the names of those to show: `cargo run --example handles -- timer tcp`.

mod r#async;
mod dns;
mod fs;
mod fs_event;
mod idle;
mod makefile;
#[path = "../util/outcome.rs"]
mod outcome;
mod pipe;
mod poll;
mod process;
mod signal;
mod tcp;
mod timer;
mod tty;
mod udp;
mod work;

use std::io;
use std::process::ExitCode;

use greenroom::RuntimeBuilder;

/// The name of a handle, and the program that uses it. It returns what has happened.
type Kind = (&'static str, fn() -> io::Result<String>);

const KINDS: [Kind; 15] = [
    ("timer", timer::show),
    ("tcp", tcp::show),
    ("udp", udp::show),
    ("pipe", pipe::show),
    ("tty", tty::show),
    ("poll", poll::show),
    ("idle", idle::show),
    ("async", r#async::show),
    ("signal", signal::show),
    ("process", process::show),
    ("fs", fs::show),
    ("fs-event", fs_event::show),
    ("dns", dns::show),
    ("work", work::show),
    ("makefile", makefile::show),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let names = KINDS.map(|(name, _)| name).join("|");
    outcome::status(run(&arguments), &format!("Usage: handles [all|{names}]..."))
}

fn run(arguments: &[String]) -> io::Result<()> {
    // One worker, as a loop of libuv is one OS thread beside its pool.
    let runtime = RuntimeBuilder::new().workers(1);
    let runtime = runtime.before_poll(idle::prepare).after_poll(idle::check);
    runtime.build()?.run(|| match arguments {
        [] => show(&KINDS),
        [one] if one == "all" => show(&KINDS),
        [one] if one == pipe::CHILD => pipe::child(),
        names => show(&find(names)?),
    })
}

fn find(names: &[String]) -> io::Result<Vec<Kind>> {
    let find = |name: &String| {
        let found = KINDS.iter().find(|(known, _)| known == name).copied();
        found.ok_or_else(|| io::Error::other(format!("no handle '{name}'")))
    };
    names.iter().map(find).collect()
}

fn show(kinds: &[Kind]) -> io::Result<()> {
    for (name, show) in kinds {
        let shown = show().map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        for line in shown.lines() {
            println!("{name:<9} {line}");
        }
    }
    Ok(())
}
