//! What was read from a stream, and not yet from the file over it.

use std::io::{self, Read};

use super::MakeFile;

/// Bytes that stay until they are consumed: so what a timeout interrupts is lost to nobody.
#[derive(Debug)]
pub(super) struct Input {
    /// Those of `start..end` are there.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How many to read at a time.
    chunk: usize,
    limit: usize,
    refuses: Refusal,
    /// What the stream has failed with, and nobody was told.
    failure: Option<io::Error>,
}

/// Whether to read after a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Never,
    AfterTimeout,
    Now,
}

impl Input {
    pub(super) fn new(options: &MakeFile) -> Input {
        Input {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            // One byte is not read ahead.
            chunk: options.buffer.max(1),
            limit: options.limit,
            refuses: match options.refuse_after_timeout {
                true => Refusal::AfterTimeout,
                false => Refusal::Never,
            },
            failure: None,
        }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.end);
        self.bytes.drain(..self.start);
        self.bytes
    }

    pub(super) fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > 4 * self.chunk {
                // One long record need not leave its memory behind.
                self.bytes.truncate(self.chunk);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Takes the first `amount` bytes, which are there.
    pub(super) fn take(&mut self, amount: usize) -> Vec<u8> {
        let taken = self.bytes()[..amount].to_vec();
        self.consume(amount);
        taken
    }

    pub(super) fn take_all(&mut self) -> Vec<u8> {
        self.take(self.bytes().len())
    }

    /// Puts back what was just taken.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.bytes.splice(..self.start, bytes.iter().copied());
        self.end = self.end - self.start + bytes.len();
        self.start = 0;
    }

    /// Reads once from `stream`, and adds what that gave; returns how much, which is nothing at the
    /// end.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.tell_failure()?;
        if self.bytes.len() - self.end < self.chunk {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < self.chunk {
                let needed = self.end + self.chunk;
                self.bytes.reserve(needed - self.bytes.len());
                self.bytes.resize(needed, 0);
            }
        }
        let room = self.end..self.end + self.chunk;
        let read = self.refuses.read(stream, &mut self.bytes[room])?;
        self.end += read;
        Ok(read)
    }

    /// Reads once, past the buffer if that is empty and no larger than `buf`.
    pub(super) fn read(&mut self, stream: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        if self.bytes().is_empty() && buf.len() >= self.chunk {
            self.tell_failure()?;
            return self.refuses.read(stream, buf);
        }
        if self.bytes().is_empty() && !buf.is_empty() {
            self.fill(stream)?;
        }
        let read = self.bytes().len().min(buf.len());
        buf[..read].copy_from_slice(&self.bytes()[..read]);
        self.consume(read);
        Ok(read)
    }

    /// Has the next read from the stream fail as [`find`](Input::find) has just done, whose caller has
    /// something else to return. Where that would come to the same by itself, it does.
    pub(super) fn put_off(&mut self, error: io::Error) {
        let too_long = self.bytes().len() > self.limit;
        if !too_long && !is_timeout(&error) {
            self.failure = Some(error);
        }
    }

    fn tell_failure(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Reads until `buf` is full or the end has come; returns how much that was. What an error
    /// interrupts is put back.
    pub(super) fn read_full(
        &mut self,
        stream: &mut impl Read,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(stream, &mut buf[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => {
                    self.put_back(&buf[..filled]);
                    return Err(error);
                }
            }
        }
        Ok(filled)
    }

    /// Reads until `find` finds something within the first `limit` bytes; returns how long what it
    /// has found is, from the start of all that is there, or `None` at the end. `find` is given
    /// what is there, and how much of that it has seen.
    pub(super) fn find(
        &mut self,
        stream: &mut impl Read,
        limit: usize,
        mut find: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> io::Result<Option<usize>> {
        let mut seen = 0;
        loop {
            let there = self.bytes();
            match find(there, seen) {
                Some(length) if length <= limit => return Ok(Some(length)),
                // So much may be all there is.
                None if there.len() <= limit => {}
                _ => return Err(too_long(limit)),
            }
            seen = there.len();
            if self.fill(stream)? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Refusal {
    fn read(&mut self, stream: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        if *self == Refusal::Now {
            return Err(io::Error::other(
                "cannot read from a file that has timed out",
            ));
        }
        loop {
            match stream.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && *self == Refusal::AfterTimeout => {
                    *self = Refusal::Now;
                    return Err(error);
                }
                done => return done,
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

pub(super) fn too_long(limit: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("what was looked for did not come within {limit} bytes"),
    )
}
