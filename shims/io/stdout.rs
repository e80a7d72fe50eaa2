//! Standard output.

use std::io::{self, IoSlice, LineWriter, Write};
use std::marker::PhantomData;
use std::process::Stdio;
use std::sync::OnceLock;

use super::output::{self, OutputFd, SharedWriter, SharedWriterGuard, is_output, writes_by};
use crate::{park, task};

static STDOUT: OnceLock<SharedWriter<Lines>> = OnceLock::new();

/// Like [`std::io::stdout`], but waits park the coroutine.
///
/// The buffer is separate from that of std's `stdout`, and is flushed at each newline, as std's is. Whole
/// lines written here and whole lines written by std's own print macros therefore appear in the order of
/// writing. An unfinished line stays in its buffer, and lines of the other buffer overtake it.
/// [`Write::flush`] flushes std's buffer, too, so that a prompt appears:
///
/// ```
/// use greenroom::shims as std;
/// use std::io::{self, Write};
///
/// print!("> "); // without a path, this is std's macro
/// io::stdout().flush()?;
/// # std::io::Result::Ok(())
/// ```
///
/// When the process ends, because `main` returns or by [`exit`](std::process::exit), the rest of the
/// buffer is written, after the rest of std's buffer. As in std, the rest is lost if a thread or a
/// coroutine holds the lock then.
///
/// # Differences from std
///
/// - A coroutine holds the lock, and other coroutines of the same worker wait for the lock, too. Waiters
///   get the lock in the order of [`Mutex`](crate::shims::sync::Mutex).
/// - A coroutine that unwinds cannot wait for a slow reader, nor for another coroutine of its worker that
///   holds the lock. In the first case a write blocks the worker, as std's does. In the second case a
///   write bypasses the lock and the buffer.
/// - A test harness does not capture what is written here or by [`print!`](crate::shims::print). A
///   harness captures only the output of std's own macros.
///
/// # Unwinding
///
/// A write that waits for a reader is an interruption point.
#[must_use]
pub fn stdout() -> Stdout {
    Stdout {
        shared: task::get_or_init_aside(&STDOUT, open),
    }
}

fn open() -> SharedWriter<Lines> {
    // SAFETY: `flush_at_exit` does not unwind, and uses only statics, so it may run at any time.
    let is_flushed = unsafe { libc::atexit(flush_at_exit) } == 0;
    let lines = match is_flushed && !output::is_exiting() {
        true => Lines(LineWriter::new(OutputFd::STDOUT)),
        false => Lines::unbuffered(),
    };
    SharedWriter::new(lines, OutputFd::STDOUT)
}

/// std's. The first call makes its buffer, and other coroutines of the worker may print meanwhile.
fn std_stdout() -> io::Stdout {
    task::aside(io::stdout)
}

/// Flushes the buffer, and leaves standard output unbuffered for the rest of the exit.
extern "C" fn flush_at_exit() {
    output::exit();
    if let Some(mut stdout) = STDOUT.get().and_then(SharedWriter::try_lock) {
        // A failure cannot be reported to anyone while the process exits.
        let _ = stdout.replace(Lines::unbuffered());
    }
}

/// Like [`std::io::Stdout`], but waits park the coroutine. See [`stdout`].
pub struct Stdout {
    shared: &'static SharedWriter<Lines>,
}

/// Like [`std::io::StdoutLock`], but waits park the coroutine.
///
/// A coroutine may hold the lock while it waits for something else. All other coroutines, even those of the
/// same worker, wait for the lock meanwhile.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::shims::io::StdoutLock<'static>>();
/// ```
pub struct StdoutLock<'a> {
    guard: SharedWriterGuard<Lines>,
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

/// A line-buffered writer to descriptor 1. A flush flushes std's buffer, too.
struct Lines(LineWriter<OutputFd>);

impl Lines {
    fn unbuffered() -> Lines {
        Lines(LineWriter::with_capacity(0, OutputFd::STDOUT))
    }
}

impl Write for Lines {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    /// Writes all whole lines in one call. `LineWriter` would write one buffer at a time: only std's own
    /// writers can tell it that they write several buffers at once.
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
                Err(error) if written > 0 => {
                    park::tell_later(&error);
                    break;
                }
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
        let flushed = match output::is_exiting() {
            // std's buffer has been flushed, or a thread that holds its lock keeps the lock for good.
            true => Ok(()),
            false => std_stdout().flush(),
        };
        self.0.flush()?;
        flushed
    }
}

impl From<Stdout> for Stdio {
    fn from(_: Stdout) -> Stdio {
        Stdio::from(std_stdout())
    }
}

is_output!(OutputFd::STDOUT; Stdout: "Stdout", StdoutLock<'_>: "StdoutLock");

writes_by! {
    Stdout: |this| this.lock();
    &Stdout: |this| this.lock();
    StdoutLock<'_>: |this| this.guard;
}
