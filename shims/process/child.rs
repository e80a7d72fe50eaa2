//! Children.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, ExitStatus, Output};
use std::time::Duration;

use super::{ChildStderr, ChildStdin, ChildStdout};
use crate::reactor::{Descriptor, Direction};
use crate::sys::child;
use crate::task;

/// Like [`std::process::Child`], but waits park the coroutine.
pub struct Child {
    /// The pipe to its standard input, if that was captured.
    pub stdin: Option<ChildStdin>,
    /// The pipe from its standard output, if that was captured.
    pub stdout: Option<ChildStdout>,
    /// The pipe from its standard error, if that was captured.
    pub stderr: Option<ChildStderr>,
    process: process::Child,
    /// Tells of its end. Made when a coroutine waits for that.
    end: Option<Descriptor<OwnedFd>>,
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
    /// As std: none for a child that was waited for.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Like [`std::process::Child::try_wait`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Like [`std::process::Child::wait`]: closes the pipe to its standard input first.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child runs on.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        if !task::on_coroutine() {
            return self.process.wait();
        }
        self.wait_parked(None)
    }

    /// Like [`std::process::Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child runs on.
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

    /// Waits for its end in a coroutine, for at most `timeout`.
    fn wait_parked(&mut self, timeout: Option<Duration>) -> io::Result<ExitStatus> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(status);
        }
        if self.end.is_none() {
            match child::pidfd(self.process.id()) {
                Ok(fd) => self.end = Some(Descriptor::fresh(fd)),
                // No descriptor can be had; without a limit there is another way.
                Err(error) if timeout.is_some() => return Err(error),
                Err(_) => {
                    let id = self.process.id();
                    crate::unblock(move || child::wait_for_end(id))?;
                    return self.process.wait();
                }
            }
        }
        let Child { process, end, .. } = self;
        let end = end.as_ref().expect("it was just made");
        let mut waiting = end.operation(Direction::Read);
        if let Some(timeout) = timeout {
            waiting = waiting.timeout(timeout);
        }
        waiting.run(|_| {
            let ended = process.try_wait()?;
            ended.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        })
    }
}

/// What children have that std's have not.
pub trait ChildExt {
    /// Waits for the end of the child, for at most `timeout`; returns `None` if that has passed.
    /// Unlike [`wait`](Child::wait) it leaves the pipe to the child's standard input open.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child runs on.
    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>>;
}

impl ChildExt for Child {
    fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(Some(status));
        }
        if !task::on_coroutine() {
            let end = child::pidfd(self.process.id())?;
            child::wait_readable(end.as_fd(), timeout)?;
            return self.process.try_wait();
        }
        match self.wait_parked(Some(timeout)) {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads both to their end at the same time, lest the child wait for one while the other is read.
fn read_both(
    mut out: ChildStdout,
    stdout: &mut Vec<u8>,
    mut err: ChildStderr,
    stderr: &mut Vec<u8>,
) -> io::Result<()> {
    crate::scope(|s| {
        let reader = s.spawn(|| out.read_to_end(stdout));
        let read = err.read_to_end(stderr);
        reader.join().unwrap()?;
        read.map(drop)
    })
}

/// Takes over a child of std's.
impl From<process::Child> for Child {
    fn from(mut process: process::Child) -> Child {
        Child {
            stdin: process.stdin.take().map(ChildStdin::from),
            stdout: process.stdout.take().map(ChildStdout::from),
            stderr: process.stderr.take().map(ChildStderr::from),
            process,
            end: None,
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
