//! What has come on a connection and was not used so far.

use std::io::{self, BufRead, Read};

use greenroom::shims::net::TcpStream;
use memchr::memchr_iter;

use super::request::MAX_HEAD;

/// A body in chunks has at least half of it.
const BUFFER: usize = 2 * MAX_HEAD;

/// The buffer of a connection. A head stays here while its request is answered.
pub(crate) struct Input {
    buf: Box<[u8]>,
    /// What has come is `buf[start..end]`.
    start: usize,
    end: usize,
    /// No head ends in `buf[start..searched]`.
    searched: usize,
}

impl Input {
    pub(crate) fn new() -> Input {
        Input {
            buf: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            searched: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Appends what `read` reads.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        self.move_to_front();
        let read = read(&mut self.buf[self.end..])?;
        self.end += read.unwrap_or(0);
        Ok(read)
    }

    fn move_to_front(&mut self) {
        self.buf.copy_within(self.start..self.end, 0);
        self.searched -= self.start;
        self.end -= self.start;
        self.start = 0;
    }

    /// The length of the head at the front, if all of it has come: up to an empty line.
    pub(crate) fn find_head(&mut self) -> Option<usize> {
        // A line that ended there, before an empty one of two bytes, is looked at again.
        let from = self.searched.saturating_sub(2).max(self.start);
        let present = &self.buf[from..self.end];
        let end = memchr_iter(b'\n', present).find_map(|at| match present[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        });
        self.searched = self.end;
        end.map(|end| from + end - self.start)
    }

    /// Splits the head at the front from what has come behind it, and is still to come.
    pub(crate) fn split<'c>(
        &'c mut self,
        head: usize,
        stream: &'c TcpStream,
    ) -> (&'c [u8], Rest<'c>) {
        if self.start + head > MAX_HEAD {
            self.move_to_front();
        }
        let (before, buf) = self.buf.split_at_mut(self.start + head);
        let rest = Rest {
            stream,
            buf,
            start: 0,
            end: self.end - self.start - head,
        };
        (&before[self.start..], rest)
    }

    /// Goes on with what the last request has left.
    pub(crate) fn keep(&mut self, (from_end, length): (usize, usize)) {
        self.start = self.buf.len() - from_end;
        self.end = self.start + length;
        self.searched = self.start;
    }
}

/// What comes behind a head, read through the part of the buffer behind it.
pub(crate) struct Rest<'c> {
    stream: &'c TcpStream,
    buf: &'c mut [u8],
    start: usize,
    end: usize,
}

impl Rest<'_> {
    /// What has come and was not read.
    pub(crate) fn present(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Where what was not read begins, counted from the end of the buffer, and how many bytes that are.
    pub(crate) fn left(&self) -> (usize, usize) {
        (self.buf.len() - self.start, self.end - self.start)
    }
}

impl BufRead for Rest<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = self.stream.read(self.buf)?;
        }
        Ok(&self.buf[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.start += amount;
    }
}

impl Read for Rest<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buf.len() >= self.buf.len() {
            return self.stream.read(buf);
        }
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}
