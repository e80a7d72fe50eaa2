//! Files of bytes.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::MakeFile;
use super::input::{Input, too_long};
use super::options::invalid;
use super::output::Output;

/// A buffered two-way file over a stream: what `makefile` returns.
///
/// Reads and writes have a buffer each, and do not disturb each other: in particular, reading
/// does not flush what was written. [`flush`](Write::flush), a full buffer, and dropping the file
/// send it. What a timeout interrupts is kept: the next read goes on with it.
///
/// The file is a [`BufRead`]: `read_line`, `read_until`, `lines` and `split` are that trait's.
///
/// ```
/// use greenroom::shims as std;
/// use std::io::{BufRead, Write};
///
/// # fn main() -> std::io::Result<()> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
///
/// std::thread::spawn(move || {
///     let mut file = listener.accept().unwrap().0.makefile();
///     let mut line = String::new();
///     while file.read_line(&mut line).unwrap() > 0 {
///         file.write_all(line.to_uppercase().as_bytes()).unwrap();
///         file.flush().unwrap();
///         line.clear();
///     }
/// });
///
/// let mut file = std::net::TcpStream::connect(addr)?.makefile();
/// file.write_all(b"hello\nworld\n")?;
/// file.flush()?;
/// let replies: Vec<String> = file.lines().take(2).collect::<Result<_, _>>()?;
/// assert_eq!(replies, ["HELLO", "WORLD"]);
/// # Ok(())
/// # }
/// ```
pub struct SocketFile<S: Read + Write> {
    input: Input,
    output: Output<S>,
    can_read: bool,
    can_write: bool,
}

/// What a read up to a delimiter gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// All of it, with the delimiter at its end.
    Complete(Vec<u8>),
    /// What there was when the file ended: maybe nothing, and no delimiter.
    Incomplete(Vec<u8>),
}

impl Record {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Record::Complete(bytes) | Record::Incomplete(bytes) => bytes,
        }
    }
}

impl<S: Read + Write> SocketFile<S> {
    /// A file to read and write over `stream`, with empty buffers of 8 KiB.
    pub fn new(stream: S) -> SocketFile<S> {
        SocketFile::with_options(stream, &MakeFile::new())
    }

    pub(super) fn with_options(stream: S, options: &MakeFile) -> SocketFile<S> {
        SocketFile {
            input: Input::new(options),
            output: Output::new(stream, options),
            can_read: options.read,
            can_write: options.write,
        }
    }

    /// The stream. What it is asked to read directly comes after what this file has buffered.
    pub fn get_ref(&self) -> &S {
        self.output.stream()
    }

    /// The stream. As for [`get_ref`](SocketFile::get_ref); and what it is told to write goes before
    /// what this file has buffered.
    pub fn get_mut(&mut self) -> &mut S {
        self.output.stream_mut()
    }

    /// What was read from the stream, and not yet from this file.
    pub fn buffer(&self) -> &[u8] {
        self.input.bytes()
    }

    /// What was written to this file, and not yet to the stream.
    pub fn unflushed(&self) -> &[u8] {
        self.output.bytes()
    }

    /// The stream, what was read and not taken, and what was written and not flushed.
    pub fn into_parts(self) -> (S, Vec<u8>, Vec<u8>) {
        let (stream, unflushed) = self.output.into_parts();
        (stream, self.input.into_bytes(), unflushed)
    }

    /// Whether the file was made for reading.
    pub fn is_readable(&self) -> bool {
        self.can_read
    }

    /// Whether the file was made for writing.
    pub fn is_writable(&self) -> bool {
        self.can_write
    }

    /// Flushes, and drops the file. The connection lives on where the stream or another file over
    /// it does.
    ///
    /// # Errors
    ///
    /// The flush's, which dropping the file would keep to itself.
    pub fn close(mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Reads to `delimiter`, however it is cut by segments.
    ///
    /// # Errors
    ///
    /// The stream's; `InvalidData` where the delimiter does not end within the file's
    /// [limit](MakeFile::limit). What was read stays, and comes with the next read.
    /// `InvalidInput` for an empty delimiter.
    pub fn read_until_seq(&mut self, delimiter: &[u8]) -> io::Result<Record> {
        if delimiter.is_empty() {
            return Err(invalid("an empty delimiter delimits nothing"));
        }
        let finder = memchr::memmem::Finder::new(delimiter);
        self.read_record(|there, seen| {
            let from = seen.saturating_sub(delimiter.len() - 1);
            let found = finder.find(&there[from..])?;
            Some(from + found + delimiter.len())
        })
    }

    /// Reads to the end of the first match of `pattern` in what is there, looking again whenever
    /// more has come: a match is not made longer by what comes later.
    ///
    /// # Errors
    ///
    /// As [`read_until_seq`](SocketFile::read_until_seq).
    #[cfg(feature = "regex")]
    pub fn read_until_regex(&mut self, pattern: &regex::bytes::Regex) -> io::Result<Record> {
        self.read_record(|there, _| pattern.find(there).map(|found| found.end()))
    }

    fn read_record(
        &mut self,
        find: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> io::Result<Record> {
        let limit = self.input.limit();
        match self.find(limit, find)? {
            Some(length) => Ok(Record::Complete(self.input.take(length))),
            None => Ok(Record::Incomplete(self.input.take_all())),
        }
    }

    /// Reads a line, but no more than `limit` bytes of it: the rest stays. Like Python's
    /// `readline(n)`.
    ///
    /// # Errors
    ///
    /// The stream's. What was read stays.
    pub fn read_line_limit(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Its end, or that of what may be taken of it.
        let ends = |there: &[u8], seen: usize| {
            let newline = memchr::memchr(b'\n', &there[seen..]).map(|at| seen + at + 1);
            newline
                .map(|length| length.min(limit))
                .or_else(|| (there.len() >= limit).then_some(limit))
        };
        let length = self.find(limit, ends)?;
        Ok(match length {
            Some(length) => self.input.take(length),
            None => self.input.take_all(),
        })
    }

    /// Reads until `buf` is full or the file ends; returns how much that was. Like Python's
    /// `read(n)`.
    ///
    /// # Errors
    ///
    /// The stream's. What was read stays.
    pub fn read_full(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_readable()?;
        self.input.read_full(self.output.stream_mut(), buf)
    }

    /// Reads what is there, at least a byte; nothing at the end of the file.
    ///
    /// # Errors
    ///
    /// The stream's.
    pub fn read_available(&mut self) -> io::Result<Vec<u8>> {
        let length = self.fill_buf()?.len();
        Ok(self.input.take(length))
    }

    /// Reads lines, until they have `hint` bytes together or the file ends. Like Python's
    /// `readlines(hint)`.
    ///
    /// # Errors
    ///
    /// The stream's, and `InvalidData` for a line beyond the file's [limit](MakeFile::limit), unless
    /// there were lines before: then those, and the error the next time, whatever reads then (which
    /// waits anew after a timeout).
    pub fn read_lines(&mut self, hint: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while bytes < hint {
            let line = match self.read_until_seq(b"\n") {
                Ok(line) => line.into_bytes(),
                Err(error) if lines.is_empty() => return Err(error),
                Err(error) => {
                    self.input.put_off(error);
                    break;
                }
            };
            if line.is_empty() {
                break;
            }
            bytes += line.len();
            lines.push(line);
        }
        Ok(lines)
    }

    /// The rest of the file, `size` bytes at a time; the last of them may be fewer.
    ///
    /// # Panics
    ///
    /// If `size` is zero.
    pub fn chunks(&mut self, size: usize) -> Chunks<'_, S> {
        assert!(size > 0, "chunks have a size");
        Chunks { file: self, size }
    }

    fn find(
        &mut self,
        limit: usize,
        find: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> io::Result<Option<usize>> {
        self.check_readable()?;
        self.input.find(self.output.stream_mut(), limit, find)
    }

    /// Takes what ends where `find` says, or where the file does.
    pub(super) fn take_record(
        &mut self,
        find: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> io::Result<Vec<u8>> {
        self.read_record(find).map(Record::into_bytes)
    }

    /// Reads once more into the buffer; returns how much that gave.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        self.check_readable()?;
        self.input.fill(self.output.stream_mut())
    }

    fn check_readable(&self) -> io::Result<()> {
        if cfg!(debug_assertions) && self.buffer().is_empty() && !self.unflushed().is_empty() {
            hint_at_flush();
        }
        allowed(self.can_read, "the file was not made for reading")
    }

    fn check_writable(&self) -> io::Result<()> {
        allowed(self.can_write, "the file was not made for writing")
    }
}

/// Says, once, what those miss who expect a read to flush.
#[cold]
fn hint_at_flush() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        // Where stderr is gone there is nothing to do.
        let _ = writeln!(
            io::stderr(),
            "greenroom: a file is read before what was written to it is flushed, which the other \
             side may be waiting for (said once, in debug builds)"
        );
    }
}

fn allowed(allowed: bool, why: &'static str) -> io::Result<()> {
    match allowed {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::Unsupported, why)),
    }
}

impl<S: Read + Write> Read for SocketFile<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_readable()?;
        self.input.read(self.output.stream_mut(), buf)
    }

    /// # Errors
    ///
    /// As std, but that what was read before the error stays.
    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let read = self.read_full(buf)?;
        if read == buf.len() {
            return Ok(());
        }
        self.input.put_back(&buf[..read]);
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// # Errors
    ///
    /// As std; and `InvalidData` beyond the file's [limit](MakeFile::limit).
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let limit = self.input.limit();
        let mut read = 0;
        loop {
            let there = self.fill_buf()?;
            if there.is_empty() {
                return Ok(read);
            }
            if there.len() > limit - read {
                return Err(too_long(limit));
            }
            buf.extend_from_slice(there);
            let length = there.len();
            read += length;
            self.consume(length);
        }
    }

    /// # Errors
    ///
    /// As [`read_to_end`](Read::read_to_end), but that what was read before the error stays.
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let limit = self.input.limit();
        self.find(limit, |_, _| None)?;
        let rest = self.input.take_all();
        buf.push_str(utf8(&rest)?);
        Ok(rest.len())
    }
}

impl<S: Read + Write> BufRead for SocketFile<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffer().is_empty() {
            self.fill()?;
        }
        Ok(self.buffer())
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }

    fn read_until(&mut self, byte: u8, buf: &mut Vec<u8>) -> io::Result<usize> {
        let bytes = self.read_until_seq(&[byte])?.into_bytes();
        buf.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn read_line(&mut self, buf: &mut String) -> io::Result<usize> {
        let line = self.read_until_seq(b"\n")?.into_bytes();
        buf.push_str(utf8(&line)?);
        Ok(line.len())
    }
}

pub(super) fn utf8(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(|_| {
        let why = "stream did not contain valid UTF-8";
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

impl<S: Read + Write> Write for SocketFile<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.output.write_all(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_writable()?;
        self.output.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// What [`SocketFile::chunks`] returns. It ends with the file; after an error it goes on with what
/// was read.
#[derive(Debug)]
pub struct Chunks<'a, S: Read + Write> {
    file: &'a mut SocketFile<S>,
    size: usize,
}

impl<S: Read + Write> Iterator for Chunks<'_, S> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let mut chunk = vec![0; self.size];
        match self.file.read_full(&mut chunk) {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl<S: Read + Write + AsFd> AsFd for SocketFile<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get_ref().as_fd()
    }
}

impl<S: Read + Write + AsRawFd> AsRawFd for SocketFile<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.get_ref().as_raw_fd()
    }
}

impl<S: Read + Write + fmt::Debug> fmt::Debug for SocketFile<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketFile")
            .field("stream", self.get_ref())
            .field("unread", &self.buffer().len())
            .field("unflushed", &self.unflushed().len())
            .finish()
    }
}
