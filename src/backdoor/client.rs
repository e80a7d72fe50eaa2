//! The conversation with one client.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use super::command;
use crate::sys::socket;

/// The most bytes of a line, with its end.
const MAX_LINE: usize = 256;

/// How long a client may take to send a line, and how long a part of a reply may wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers the client's commands until it goes.
pub(super) fn serve(stream: &UnixStream) {
    // Whatever ends the conversation, nobody is there to be told.
    let _ = converse(stream);
}

fn converse(stream: &UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = Lines {
        stream,
        bytes: Vec::with_capacity(MAX_LINE),
    };
    loop {
        match lines.next()? {
            Line::Command(line) => command::answer(&line, Output(stream))?,
            Line::TooLong => {
                let why = format!("a line has at most {MAX_LINE} bytes");
                return command::refuse(&why, Output(stream));
            }
            Line::End => return Ok(()),
        }
    }
}

/// Tells a client why it is not served.
pub(super) fn turn_away(stream: &UnixStream, why: &str) {
    let mut reply = Vec::new();
    if command::refuse(why, &mut reply).is_ok() {
        // Nothing was sent before, so there is room. The client may have gone.
        let _ = socket::send(stream.as_fd(), &reply);
    }
}

enum Line {
    Command(String),
    TooLong,
    /// The client has closed, perhaps in the midst of a line.
    End,
}

/// Splits what comes into lines, each of which has to come in time.
struct Lines<'a> {
    stream: &'a UnixStream,
    /// What has come, and belongs to no line yet.
    bytes: Vec<u8>,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Line> {
        let mut deadline = None;
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Ok(Line::Command(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.bytes.len() >= MAX_LINE {
                return Ok(Line::TooLong);
            }
            // A client may wait between two lines for as long as it likes.
            if deadline.is_none() && !self.bytes.is_empty() {
                deadline = Some(Instant::now() + PATIENCE);
            }
            if self.read(deadline)? == 0 {
                return Ok(Line::End);
            }
        }
    }

    /// Waits for bytes, and takes as many as a line may have.
    fn read(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        let mut buffer = [0; MAX_LINE];
        let room = MAX_LINE - self.bytes.len();
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(left)?;
            match (&mut &*self.stream).read(&mut buffer[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.bytes.extend(&buffer[..*read.as_ref().unwrap_or(&0)]);
                    return read;
                }
            }
        }
    }
}

/// The way to the client. A client that has gone causes no SIGPIPE, which ends a program that has not ignored it.
struct Output<'a>(&'a UnixStream);

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
