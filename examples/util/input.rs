//! What has come on a connection and was not used so far.

use std::io::{self, BufRead, Read};

use greenroom::shims::net::TcpStream;

/// The size of a buffer, which is also the longest head.
const BUFFER: usize = 16 * 1024;

/// A buffer of a connection. A head stays here while its request is answered.
#[derive(Default)]
pub(crate) struct Input {
    /// Empty until there is something to read.
    buf: Box<[u8]>,
    /// What has come is `buf[start..end]`.
    start: usize,
    end: usize,
}

impl Input {
    /// What has come.
    pub(crate) fn present(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start == BUFFER
    }

    /// Appends what `read` reads.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.buf.is_empty() {
            self.buf = vec![0; BUFFER].into();
        }
        self.buf.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let read = read(&mut self.buf[self.end..])?;
        self.end += read;
        Ok(read)
    }

    fn consume(&mut self, amount: usize) {
        self.start += amount;
    }

    /// Goes on behind a request. So many bytes have come behind it, here or, if these are used up, in `spare`.
    pub(crate) fn go_on(&mut self, behind: usize, spare: &mut Input) {
        self.start = self.end - behind;
        if !spare.is_empty() {
            std::mem::swap(self, spare);
        }
    }
}

/// What comes behind a head.
pub(crate) struct Rest<'c> {
    stream: &'c TcpStream,
    /// What has come with the head.
    present: &'c [u8],
    /// What has come later.
    later: &'c mut Input,
}

impl<'c> Rest<'c> {
    pub(crate) fn new(stream: &'c TcpStream, present: &'c [u8], later: &'c mut Input) -> Rest<'c> {
        Rest {
            stream,
            present,
            later,
        }
    }

    /// What has come and was not read.
    pub(crate) fn present(&self) -> &[u8] {
        match self.present {
            [] => self.later.present(),
            present => present,
        }
    }

    /// How much of what has come with the head is left.
    pub(crate) fn left(&self) -> usize {
        self.present.len()
    }
}

impl BufRead for Rest<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.present.is_empty() {
            return Ok(self.present);
        }
        if self.later.is_empty() {
            self.later.fill(|buf| self.stream.read(buf))?;
        }
        Ok(self.later.present())
    }

    fn consume(&mut self, amount: usize) {
        match self.present {
            [] => self.later.consume(amount),
            present => self.present = &present[amount..],
        }
    }
}

impl Read for Rest<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.present.is_empty() && self.later.is_empty() && buf.len() >= BUFFER {
            return self.stream.read(buf);
        }
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}
