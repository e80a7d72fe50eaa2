//! The read buffer of a file.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::mem;

use super::MakeFile;
use crate::park::{is_error_of_interrupt, tell_later};

/// Bytes that were read from the stream and not yet from the file. A byte stays until it is consumed, so
/// a timeout loses nothing.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    /// The unread bytes are `bytes[start..end]`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes to read from the stream at a time.
    chunk: usize,
    /// The most bytes that a read takes while it looks for an end.
    limit: usize,
    after_timeout: AfterTimeout,
    /// An error of the stream that no read has returned yet.
    failure: Option<io::Error>,
}

/// What happens to reads after a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterTimeout {
    /// Reads go on.
    ReadOn,
    /// Reads will fail, but there has been no timeout yet.
    WillFail,
    /// There has been a timeout, and reads fail.
    Fails,
}

impl ReadBuffer {
    pub(super) fn new(options: &MakeFile) -> ReadBuffer {
        ReadBuffer {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            // A chunk of one byte reads nothing ahead.
            chunk: options.buffer.max(1),
            limit: options.limit,
            after_timeout: match options.refuse_after_timeout {
                true => AfterTimeout::WillFail,
                false => AfterTimeout::ReadOn,
            },
            failure: None,
        }
    }

    /// The unread bytes.
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
                // Frees the memory that a long record needed.
                self.bytes.truncate(self.chunk);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Takes the first `amount` unread bytes. There must be as many.
    pub(super) fn take(&mut self, amount: usize) -> Vec<u8> {
        let taken = self.bytes()[..amount].to_vec();
        self.consume(amount);
        taken
    }

    pub(super) fn take_all(&mut self) -> Vec<u8> {
        self.take(self.bytes().len())
    }

    /// Puts back bytes that were just taken.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.bytes.splice(..self.start, bytes.iter().copied());
        self.end = self.end - self.start + bytes.len();
        self.start = 0;
    }

    /// Reads once from `stream` into the buffer. Returns the number of bytes, which is 0 at the end.
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
        let read = self.after_timeout.read(stream, &mut self.bytes[room])?;
        self.end += read;
        Ok(read)
    }

    /// Reads once into `buf`. If the buffer is empty and `buf` is at least as large, bypasses the buffer.
    pub(super) fn read(&mut self, stream: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        if self.bytes().is_empty() && buf.len() >= self.chunk {
            self.tell_failure()?;
            return self.after_timeout.read(stream, buf);
        }
        if self.bytes().is_empty() && !buf.is_empty() {
            self.fill(stream)?;
        }
        let read = self.bytes().len().min(buf.len());
        buf[..read].copy_from_slice(&self.bytes()[..read]);
        self.consume(read);
        Ok(read)
    }

    /// Saves an error of [`find`](ReadBuffer::find) when the caller returns something else first. The next read
    /// from the stream returns the error. Errors that the next read would meet again are not saved.
    pub(super) fn put_off(&mut self, error: io::Error) {
        if is_error_of_interrupt(&error) {
            return tell_later(&error);
        }
        let too_long = self.bytes().len() > self.limit;
        if !too_long && !is_timeout(&error) {
            self.failure = Some(error);
        }
    }

    fn tell_failure(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Reads until `buf` is full or the stream ends. Returns the number of bytes. After an error, and if a read
    /// unwinds, the bytes that were read are put back.
    pub(super) fn read_full(
        &mut self,
        stream: &mut impl Read,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let mut taken = Taken {
            buffer: self,
            buf,
            filled: 0,
        };
        while taken.filled < taken.buf.len() {
            let rest = &mut taken.buf[taken.filled..];
            match taken.buffer.read(stream, rest)? {
                0 => break,
                read => taken.filled += read,
            }
        }
        Ok(mem::take(&mut taken.filled))
    }

    /// Reads until `find` finds an end within the first `limit` bytes. Returns the length up to that end,
    /// or `None` at the end of the stream.
    ///
    /// `find` gets the unread bytes, and the number of bytes that it has seen before.
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
                // The stream may end here.
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

impl AfterTimeout {
    fn read(&mut self, stream: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        if *self == AfterTimeout::Fails {
            return Err(io::Error::other(
                "cannot read from a file that has timed out",
            ));
        }
        loop {
            match stream.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && *self == AfterTimeout::WillFail => {
                    *self = AfterTimeout::Fails;
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

/// Bytes that were taken out of a buffer. They are put back when this is dropped.
struct Taken<'b> {
    buffer: &'b mut ReadBuffer,
    buf: &'b mut [u8],
    /// How many there are, at the front of `buf`.
    filled: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.filled > 0 {
            self.buffer.put_back(&self.buf[..self.filled]);
        }
    }
}
