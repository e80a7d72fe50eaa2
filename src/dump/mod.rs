//! Dumps: what each coroutine does, what it waits for, and where.
//!
//! - `snapshot`: what the workers tell of their coroutines (see `worker/roll.rs`), put together;
//! - `symbols`: the names of frames;
//! - `cycles`: coroutines that wait for each other;
//! - `text` and `json`: the two forms; `tree`: the end of the text;
//! - `one`: a coroutine that is looked for by its id;
//! - `deadlock`: the dump that ends a process.
#![forbid(unsafe_code)]

mod cycles;
mod deadlock;
pub(crate) mod json;
mod one;
mod snapshot;
mod symbols;
mod text;
mod tree;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use crate::signal::Signals;
use crate::sys::stderr::Stderr;
use crate::task::Reason;
use crate::worker::Traces;
pub(crate) use one::One;
use snapshot::Snapshot;

pub(crate) use symbols::Symbols;

/// How long a dump waits for workers that are held, unless [`Dump::patience`] sets it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes a text that tells what each coroutine of the process does: see [`Dump`].
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let sleeper = greenroom::Builder::new().name("sleeper".into());
///     sleeper.spawn_local(|| sleep(Duration::from_secs(60))).unwrap();
///     greenroom::yield_now(); // it has the same worker, and begins to sleep
///     let mut text = Vec::new();
///     greenroom::dump(&mut text).unwrap();
///     let text = String::from_utf8(text).unwrap();
///     assert!(text.contains("'sleeper'") && text.contains("sleeps"));
/// });
/// ```
///
/// # Errors
///
/// Those of `out`. That of an interrupt, if the caller is a coroutine whose interrupts are delivered as errors.
///
/// # Unwinding
///
/// An interruption point.
pub fn dump(out: impl Write) -> io::Result<()> {
    Dump::new().text(out)
}

/// How many coroutines of this process wait, by what they wait for: "read", "mutex", "join" and so on, as in
/// [`Dump::json`]. Each reason is there, also if no coroutine waits for it, and the order is always the same.
///
/// Nothing counts this while coroutines run. Each worker looks at its own coroutines when this is called, in its turns,
/// so the numbers are not of one moment. It takes about as long as a dump without backtraces: some milliseconds for ten
/// thousand coroutines. The coroutines of a worker that is held for longer than a second are missing.
///
/// ```
/// # greenroom::run(|| {
/// let parked = greenroom::spawn_local(greenroom::park);
/// greenroom::yield_now(); // it has the same worker, and parks
/// let reasons = greenroom::parked_by_reason()?;
/// assert!(reasons.contains(&("park", 1)));
/// parked.thread().unpark();
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// # Errors
///
/// That of an interrupt, if interrupts are delivered as errors.
///
/// # Unwinding
///
/// An interruption point.
pub fn parked_by_reason() -> io::Result<Vec<(&'static str, usize)>> {
    let snapshot = Snapshot::take(Traces::Nobodys, PATIENCE)?;
    let mut counts = Reason::ALL.map(|reason| (reason.name(), 0));
    let coroutines = snapshot.coroutines.iter();
    for awaits in coroutines.filter_map(|coroutine| coroutine.awaits()) {
        let at = Reason::ALL
            .iter()
            .position(|reason| *reason == awaits.reason);
        counts[at.expect("all reasons are there")].1 += 1;
    }
    Ok(counts.into())
}

/// Has a dump written to standard error, as text, whenever `signal` comes.
///
/// A thread of its own waits for the signal, so that a dump is written even if coroutines hold all workers. The
/// signal does nothing else any more: see [`signal`](crate::signal). SIGQUIT is what a Java or Go program
/// takes for this (on a terminal, `Ctrl-\`), and SIGUSR1 is free.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// greenroom::dump_on_signal(greenroom::signal::SIGQUIT)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Signals::new`], and the operating system's if there is no thread to be had.
pub fn dump_on_signal(signal: i32) -> io::Result<()> {
    let signals = Signals::new(&[signal])?;
    let write_dumps = move || {
        // The iterator has an error only if its own descriptor fails. Without a standard error there is nowhere to
        // write to, and nobody to tell.
        for _ in signals.map_while(Result::ok) {
            let _ = dump(Stderr);
        }
    };
    let thread = std::thread::Builder::new().name("greenroom-dump".into());
    thread.spawn(write_dumps).map(drop)
}

/// A dump: what each coroutine of the process does.
///
/// For each coroutine: its id, its name, and where it was spawned and by which coroutine; whether it runs, is
/// ready, is parked or has not started; what it waits for (a descriptor and its peer, a time, a lock and its owner,
/// coroutines to join, a channel, a child process, a job of a thread pool, several things), and for how long
/// already; how much of its stack it uses and has used; which [coroutine locals](crate::coroutine_local) have a value;
/// and the backtrace of its stack, while it is parked.
/// Coroutines that do the same at the same place are listed together. Locks whose owners wait for each other are
/// told first.
///
/// [The guide](crate::guide::insight) has an example, and says what costs what.
///
/// The dump is made from any thread or coroutine, and also from hooks that a worker calls between its turns. (The hook of
/// [`deny_blocking_with`](crate::deny_blocking_with()) is called amid one, so a dump there waits in vain for its worker.)
/// Each worker describes its own coroutines, a few of them in each turn, so that the others run on. A worker that is held by a coroutine, which
/// computes or blocks, describes nothing; after the [patience](Dump::patience) the dump is written without that worker's
/// coroutines, but says which one holds it, and where (as [`monitor`](crate::monitor()) does, which tells the
/// conditions).
///
/// ```
/// # greenroom::run(|| {
/// let mut json = Vec::new();
/// greenroom::Dump::new().backtraces(false).json(&mut json).unwrap();
/// assert!(json.starts_with(b"{"));
/// # });
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is dumped before `text` or `json` is called"]
pub struct Dump {
    backtraces: bool,
    patience: Duration,
    listed: usize,
}

impl Dump {
    /// The default settings: with backtraces, a patience of one second, and up to 16 listed coroutines of each
    /// group.
    pub fn new() -> Dump {
        Dump {
            backtraces: true,
            patience: PATIENCE,
            listed: 16,
        }
    }

    /// Sets whether the dump has backtraces. Each one takes its worker some microseconds, and the names of each
    /// different one some milliseconds.
    pub fn backtraces(mut self, backtraces: bool) -> Dump {
        self.backtraces = backtraces;
        self
    }

    /// Sets how long to wait for workers that do not answer, because a coroutine holds them. A worker that describes
    /// its coroutines is waited for, however many it has.
    pub fn patience(mut self, patience: Duration) -> Dump {
        self.patience = patience;
        self
    }

    /// Sets how many coroutines the text lists of each group that does the same at the same place. The rest are
    /// counted. The JSON always has all.
    pub fn listed(mut self, count: usize) -> Dump {
        self.listed = count;
        self
    }

    /// Makes the dump, and writes it as text for people.
    ///
    /// # Errors
    ///
    /// See [`dump`].
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn text(&self, out: impl Write) -> io::Result<()> {
        let snapshot = self.snapshot()?;
        write(out, |out| text::write(&snapshot, self.listed, out))
    }

    /// Makes the dump, and writes it as one JSON object. The guide has [its fields](crate::guide::insight#json).
    ///
    /// # Errors
    ///
    /// See [`dump`].
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn json(&self, out: impl Write) -> io::Result<()> {
        let snapshot = self.snapshot()?;
        write(out, |out| json::write(&snapshot, out))
    }

    fn snapshot(&self) -> io::Result<Snapshot> {
        let traces = match self.backtraces {
            true => Traces::All,
            false => Traces::Nobodys,
        };
        Snapshot::take(traces, self.patience)
    }
}

impl Default for Dump {
    fn default() -> Dump {
        Dump::new()
    }
}

/// Calls `write`, whose text goes to `out` in large pieces.
pub(crate) fn write(
    out: impl Write,
    write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result,
) -> io::Result<()> {
    let mut text = Text {
        out: io::BufWriter::with_capacity(1 << 16, out),
        error: None,
    };
    match (write(&mut text), text.error) {
        (_, Some(error)) => Err(error),
        (Ok(()), None) => text.out.flush(),
        (Err(fmt::Error), None) => Err(io::Error::other("a description failed")),
    }
}

/// An output for text, which keeps the error.
struct Text<W: Write> {
    out: io::BufWriter<W>,
    error: Option<io::Error>,
}

impl<W: Write> fmt::Write for Text<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}
