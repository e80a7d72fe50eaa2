//! Standard output.

use std::io::{self, IoSlice, LineWriter, Write};
use std::marker::PhantomData;
use std::process::Stdio;
use std::sync::OnceLock;

use super::output::{self, Guard, Output, Shared, is_output, writes_by};

static STDOUT: OnceLock<Shared<Lines>> = OnceLock::new();

/// Like [`std::io::stdout`], but waits park the coroutine.
///
/// It has a buffer of its own, which is flushed at each newline as std's is. So whole lines of this and of
/// std's own print macros come out in the order in which they were written. The beginning of a line
/// stays in the buffer that it was written to, and lines of the other overtake it. [`Write::flush`] of
/// this one flushes std's, too, for the sake of a prompt:
///
/// ```
/// use greenroom::shims as std;
/// use std::io::{self, Write};
///
/// print!("> "); // without a path, it is std's macro
/// io::stdout().flush()?;
/// # std::io::Result::Ok(())
/// ```
///
/// What is left in it is written when the process ends: when `main` returns, or by
/// [`exit`](std::process::exit). As with std's, that is left out if another has it locked then. What std's
/// macros have left comes first.
///
/// # What differs from std
///
/// - The lock is the coroutine's: others of its worker wait for it, too, in the order of
///   [`Mutex`](crate::shims::sync::Mutex).
/// - Amid an unwind, a coroutine can neither wait for a slow reader, nor for another one of its worker
///   that has the lock. A write blocks the worker then, as std's does, or goes past the lock and the
///   buffer.
/// - A test harness does not capture what is written to it, nor by [`print!`](crate::shims::print):
///   only std's own macros go where a harness has them go.
///
/// # Unwinding
///
/// A write that waits for a reader is an interruption point.
#[must_use]
pub fn stdout() -> Stdout {
    Stdout {
        shared: STDOUT.get_or_init(open),
    }
}

fn open() -> Shared<Lines> {
    // SAFETY: the function does not unwind, and may run at any time.
    let is_flushed = unsafe { libc::atexit(flush_at_exit) } == 0;
    let lines = match is_flushed && !output::is_exiting() {
        true => Lines(LineWriter::new(Output::STDOUT)),
        false => Lines::unbuffered(),
    };
    Shared::new(lines, Output::STDOUT)
}

/// Nothing is kept from now on.
extern "C" fn flush_at_exit() {
    output::exit();
    if let Some(mut stdout) = STDOUT.get().and_then(Shared::try_lock) {
        // Nobody is left to be told that it has failed.
        let _ = stdout.replace(Lines::unbuffered());
    }
}

/// Like [`std::io::Stdout`], but waits park the coroutine. See [`stdout`].
pub struct Stdout {
    shared: &'static Shared<Lines>,
}

/// Like [`std::io::StdoutLock`], but waits park the coroutine.
///
/// A coroutine may hold it while it waits for something else; all others, of its worker too, wait for
/// the lock meanwhile.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::io::StdoutLock<'static>>();
/// ```
pub struct StdoutLock<'a> {
    guard: Guard<Lines>,
    lifetime: PhantomData<&'a Stdout>,
}

impl Stdout {
    /// Like [`std::io::Stdout::lock`], but parks the coroutine.
    pub fn lock(&self) -> StdoutLock<'static> {
        StdoutLock {
            guard: self.shared.lock(),
            lifetime: PhantomData,
        }
    }
}

/// Writes whole lines at once, and flushes std's buffer with its own.
struct Lines(LineWriter<Output>);

impl Lines {
    fn unbuffered() -> Lines {
        Lines(LineWriter::with_capacity(0, Output::STDOUT))
    }
}

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    /// `LineWriter` would write one buffer at a time: it asks std's own writers alone whether they take
    /// many.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let last_line = bufs.iter().rposition(|buf| buf.contains(&b'\n'));
        let (lines, rest) = bufs.split_at(last_line.map_or(0, |last| last + 1));
        let mut written = 0;
        if !lines.is_empty() {
            self.0.flush()?;
            written = self.0.get_mut().write_vectored(lines)?;
            if written < lines.iter().map(|buf| buf.len()).sum() {
                return Ok(written);
            }
        }
        for buf in rest {
            let kept = match self.0.write(buf) {
                Err(_) if written > 0 => break,
                kept => kept?,
            };
            written += kept;
            if kept < buf.len() {
                break;
            }
        }
        Ok(written)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.0.write_all(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        let stds = match output::is_exiting() {
            // It has been flushed, or others have it locked for good.
            true => Ok(()),
            false => io::stdout().flush(),
        };
        self.0.flush()?;
        stds
    }
}

impl From<Stdout> for Stdio {
    fn from(_: Stdout) -> Stdio {
        Stdio::from(io::stdout())
    }
}

is_output!(Output::STDOUT; Stdout: "Stdout", StdoutLock<'_>: "StdoutLock");

writes_by! {
    Stdout: |this| this.lock();
    &Stdout: |this| this.lock();
    StdoutLock<'_>: |this| this.guard;
}
