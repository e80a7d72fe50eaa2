//! Child processes.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, ExitStatus, Output};
use std::time::{Duration, Instant};

use super::{ChildStderr, ChildStdin, ChildStdout};
use crate::park::is_error_of_interrupt;
use crate::pool::unblock_operation;
use crate::shims::back_off::BackOff;
use crate::shims::select::select;
use crate::sys::child;
use crate::task;
use crate::{Interest, wait_fd};

/// The longest pause between looks at a child, while no descriptor can be had to wait with.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Like [`std::process::Child`], but waits park the coroutine.
pub struct Child {
    /// The pipe to its standard input, if that is captured.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its standard output, if that is captured.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its standard error, if that is captured.
    pub stderr: Option<ChildStderr>,
    process: process::Child,
    /// The pidfd of the child. Opened by the first wait for the child, closed when the child has ended.
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Like [`std::process::Child::id`].
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Like [`std::process::Child::kill`].
    ///
    /// # Errors
    ///
    /// As std. Killing a child that has been waited for succeeds.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Like [`std::process::Child::try_wait`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.process.try_wait()?;
        if status.is_some() {
            self.pidfd = None;
        }
        Ok(status)
    }

    /// Like [`std::process::Child::wait`]: first closes the pipe to the child's standard input.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child keeps running.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        if task::on_coroutine() && self.try_wait()?.is_none() {
            if task::is_unwinding() || self.pidfd().is_err() {
                // A coroutine that unwinds cannot wait for a descriptor. Otherwise none can be had.
                let id = self.process.id();
                unblock_operation(move || child::wait_for_end(id))??;
            } else {
                self.wait_until(None)?;
            }
        }
        self.pidfd = None;
        self.process.wait()
    }

    /// Like [`std::process::Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child keeps running.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match (self.stdout.take(), self.stderr.take()) {
            (None, None) => {}
            (Some(mut out), None) => drop(out.read_to_end(&mut stdout)?),
            (None, Some(mut err)) => drop(err.read_to_end(&mut stderr)?),
            (Some(out), Some(err)) => read_both(out, &mut stdout, err, &mut stderr)?,
        }
        let status = self.wait()?;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }

    /// Waits until the child has ended or `deadline` has passed.
    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        let mut back_off = BackOff::up_to(LONGEST_PAUSE);
        loop {
            let status = self.try_wait()?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if status.is_some() || left.is_some_and(|left| left.is_zero()) {
                return Ok(status);
            }
            let Ok(pidfd) = self.pidfd() else {
                // No descriptor can be had. std's wait needs none, so this must not fail.
                back_off.pause(left)?;
                continue;
            };
            match wait_fd(pidfd, Interest::READABLE, deadline) {
                Err(error)
                    if error.kind() == io::ErrorKind::TimedOut
                        && !is_error_of_interrupt(&error) =>
                {
                    return self.try_wait();
                }
                ended => drop(ended?),
            }
        }
    }

    /// A descriptor that becomes readable when the child ends. The child must not have been waited for.
    fn pidfd(&mut self) -> io::Result<&OwnedFd> {
        let pidfd = match self.pidfd.take() {
            Some(pidfd) => pidfd,
            None => child::pidfd(self.process.id())?,
        };
        Ok(self.pidfd.insert(pidfd))
    }
}

/// Methods of [`Child`] that std does not have.
pub trait ChildExt {
    /// Waits for the child to end, for at most `timeout`. Returns `None` if the child still runs then.
    ///
    /// Unlike [`wait`](Child::wait), this leaves the pipe to the child's standard input open.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child keeps running.
    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>>;
}

impl ChildExt for Child {
    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        self.wait_until(Instant::now().checked_add(timeout))
    }
}

/// Reads both pipes to their end at the same time. Reading one after the other could deadlock: the child
/// may block on the pipe that is not being read.
fn read_both(
    mut out: ChildStdout,
    stdout: &mut Vec<u8>,
    mut err: ChildStderr,
    stderr: &mut Vec<u8>,
) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let ready = select(&[out.as_fd(), err.as_fd()], &[], &[], None)?.readable;
        if ready.contains(&0) && !read_some(&mut out, &mut chunk, stdout)? {
            return err.read_to_end(stderr).map(drop);
        }
        if ready.contains(&1) && !read_some(&mut err, &mut chunk, stderr)? {
            return out.read_to_end(stdout).map(drop);
        }
    }
}

/// Reads once. Returns false at the end of the pipe.
fn read_some(from: &mut impl Read, chunk: &mut [u8], to: &mut Vec<u8>) -> io::Result<bool> {
    match from.read(chunk) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
        Ok(read) => {
            to.extend_from_slice(&chunk[..read]);
            Ok(read > 0)
        }
    }
}

/// Takes over a child from std.
impl From<process::Child> for Child {
    fn from(mut process: process::Child) -> Child {
        Child {
            stdin: process.stdin.take().map(ChildStdin::from),
            stdout: process.stdout.take().map(ChildStdout::from),
            stderr: process.stderr.take().map(ChildStderr::from),
            process,
            pidfd: None,
        }
    }
}

/// Gives the child up to std.
impl From<Child> for process::Child {
    fn from(child: Child) -> process::Child {
        let mut process = child.process;
        process.stdin = child.stdin.map(process::ChildStdin::from);
        process.stdout = child.stdout.map(process::ChildStdout::from);
        process.stderr = child.stderr.map(process::ChildStderr::from);
        process
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}
