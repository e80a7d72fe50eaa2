//! Files of bytes.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::MakeFile;
use super::buffered_stream::BufferedStream;
use super::options::invalid;
use super::read_buffer::{ReadBuffer, too_long};

/// A buffered two-way file over a stream, which `makefile` returns.
///
/// Reads and writes have separate buffers. Reading does not flush what was written;
/// [`flush`](Write::flush), a full buffer, and dropping the file do. After a timeout, the bytes that were
/// read are kept, and the next read goes on with them. What a flush has not written, because it has failed or was
/// interrupted, is kept, too, and the next flush writes it. Dropping the file does not, if a write of the stream has
/// unwound.
///
/// The trait [`BufRead`] provides `read_line`, `read_until`, `lines` and `split`.
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
    read_buffer: ReadBuffer,
    stream: BufferedStream<S>,
    can_read: bool,
    can_write: bool,
}

/// The result of a read up to a delimiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The bytes up to the delimiter, including the delimiter.
    Complete(Vec<u8>),
    /// The remaining bytes, without a delimiter: the file has ended. May be empty.
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
    /// Makes a file over `stream` for reading and writing, with buffers of 8 KiB.
    pub fn new(stream: S) -> SocketFile<S> {
        SocketFile::with_options(stream, &MakeFile::new())
    }

    pub(super) fn with_options(stream: S, options: &MakeFile) -> SocketFile<S> {
        SocketFile {
            read_buffer: ReadBuffer::new(options),
            stream: BufferedStream::new(stream, options),
            can_read: options.read,
            can_write: options.write,
        }
    }

    /// The stream. A direct read of the stream skips the bytes that this file has read ahead.
    pub fn get_ref(&self) -> &S {
        self.stream.get_ref()
    }

    /// The stream. A direct read of the stream skips the bytes that this file has read ahead. A direct
    /// write overtakes the bytes that this file has not flushed.
    pub fn get_mut(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// The bytes that were read from the stream and not yet from this file.
    pub fn buffer(&self) -> &[u8] {
        self.read_buffer.bytes()
    }

    /// The bytes that were written to this file and not yet to the stream.
    pub fn unflushed(&self) -> &[u8] {
        self.stream.bytes()
    }

    /// The stream, the bytes that were read ahead, and the bytes that were not flushed. If a write of the stream has
    /// unwound, nothing tells whether the stream has taken some of the latter.
    pub fn into_parts(self) -> (S, Vec<u8>, Vec<u8>) {
        let (stream, unflushed) = self.stream.into_parts();
        (stream, self.read_buffer.into_bytes(), unflushed)
    }

    /// Whether the file was made for reading.
    pub fn is_readable(&self) -> bool {
        self.can_read
    }

    /// Whether the file was made for writing.
    pub fn is_writable(&self) -> bool {
        self.can_write
    }

    /// Flushes and drops the file. The connection stays open while the stream or another file over the
    /// stream exists.
    ///
    /// # Errors
    ///
    /// The error of the flush. Dropping the file flushes, too, but ignores the error.
    pub fn close(mut self) -> io::Result<()> {
        self.stream.flush()
    }

    /// Reads up to and including `delimiter`, which may arrive in pieces.
    ///
    /// # Errors
    ///
    /// The stream's. `InvalidData` if the delimiter does not end within the file's
    /// [limit](MakeFile::limit). The bytes that were read stay for the next read. `InvalidInput` for an
    /// empty delimiter.
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

    /// Reads up to the end of the first match of `pattern`.
    ///
    /// Searches the bytes that have arrived, and again whenever more have come. A match therefore ends
    /// where it ends in the bytes at hand, even if further bytes would make the match longer.
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
        let limit = self.read_buffer.limit();
        match self.find(limit, find)? {
            Some(length) => Ok(Record::Complete(self.read_buffer.take(length))),
            None => Ok(Record::Incomplete(self.read_buffer.take_all())),
        }
    }

    /// Reads a line, but at most `limit` bytes of the line. The rest stays for the next read. Like Python's
    /// `readline(n)`.
    ///
    /// # Errors
    ///
    /// The stream's. The bytes that were read stay for the next read.
    pub fn read_line_limit(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Finds the end of the line, or the limit.
        let ends = |there: &[u8], seen: usize| {
            let newline = memchr::memchr(b'\n', &there[seen..]).map(|at| seen + at + 1);
            newline
                .map(|length| length.min(limit))
                .or_else(|| (there.len() >= limit).then_some(limit))
        };
        let length = self.find(limit, ends)?;
        Ok(match length {
            Some(length) => self.read_buffer.take(length),
            None => self.read_buffer.take_all(),
        })
    }

    /// Reads until `buf` is full or the file ends. Returns the number of bytes. Like Python's `read(n)`.
    ///
    /// # Errors
    ///
    /// The stream's. The bytes that were read stay for the next read.
    pub fn read_full(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_readable()?;
        self.read_buffer.read_full(self.stream.get_mut(), buf)
    }

    /// Reads the bytes that are there. Waits for at least one byte; returns no bytes at the end of the
    /// file.
    ///
    /// # Errors
    ///
    /// The stream's.
    pub fn read_available(&mut self) -> io::Result<Vec<u8>> {
        let length = self.fill_buf()?.len();
        Ok(self.read_buffer.take(length))
    }

    /// Reads lines until the lines have `hint` bytes in total or the file ends. Like Python's
    /// `readlines(hint)`.
    ///
    /// # Errors
    ///
    /// The stream's. `InvalidData` for a line longer than the file's [limit](MakeFile::limit). If lines
    /// were read before the error, returns the lines, and the next read of any kind returns the error. A
    /// timeout is not returned: the next read waits again.
    pub fn read_lines(&mut self, hint: usize) -> io::Result<Vec<Vec<u8>>> {
        /// Lines that are put back if a read unwinds.
        struct Taken<'f, S: Read + Write> {
            file: &'f mut SocketFile<S>,
            lines: Vec<Vec<u8>>,
        }
        impl<S: Read + Write> Drop for Taken<'_, S> {
            fn drop(&mut self) {
                if !self.lines.is_empty() {
                    self.file.read_buffer.put_back(&self.lines.concat());
                }
            }
        }

        let mut taken = Taken {
            file: self,
            lines: Vec::new(),
        };
        let mut bytes = 0;
        while bytes < hint {
            let line = match taken.file.read_until_seq(b"\n") {
                Ok(line) => line.into_bytes(),
                Err(error) if taken.lines.is_empty() => return Err(error),
                Err(error) => {
                    taken.file.read_buffer.put_off(error);
                    break;
                }
            };
            if line.is_empty() {
                break;
            }
            bytes += line.len();
            taken.lines.push(line);
        }
        Ok(mem::take(&mut taken.lines))
    }

    /// Iterates over the rest of the file in chunks of `size` bytes. The last chunk may be shorter.
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
        self.read_buffer.find(self.stream.get_mut(), limit, find)
    }

    /// Takes the bytes up to the end that `find` finds, or up to the end of the file.
    pub(super) fn take_record(
        &mut self,
        find: impl FnMut(&[u8], usize) -> Option<usize>,
    ) -> io::Result<Vec<u8>> {
        self.read_record(find).map(Record::into_bytes)
    }

    /// Reads once from the stream into the buffer. Returns the number of bytes.
    pub(super) fn fill(&mut self) -> io::Result<usize> {
        self.check_readable()?;
        self.read_buffer.fill(self.stream.get_mut())
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

/// Prints a hint, once, for programs that expect a read to flush.
#[cold]
fn hint_at_flush() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        // If stderr is gone, the hint is lost.
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
        self.read_buffer.read(self.stream.get_mut(), buf)
    }

    /// # Errors
    ///
    /// As std, but the bytes that were read before the error stay for the next read.
    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let read = self.read_full(buf)?;
        if read == buf.len() {
            return Ok(());
        }
        self.read_buffer.put_back(&buf[..read]);
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// # Errors
    ///
    /// As std. `InvalidData` if the file does not end within its [limit](MakeFile::limit).
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let limit = self.read_buffer.limit();
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
    /// The errors of [`read_to_end`](Read::read_to_end), but the bytes that were read before the error stay
    /// for the next read.
    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let limit = self.read_buffer.limit();
        self.find(limit, |_, _| None)?;
        let rest = utf8(self.buffer())?;
        buf.push_str(rest);
        let length = rest.len();
        self.consume(length);
        Ok(length)
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
        self.read_buffer.consume(amount);
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
        self.stream.write_all(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_writable()?;
        self.stream.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The iterator of [`SocketFile::chunks`]. Ends with the file. After an error, the next item goes on with
/// the bytes that were read.
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
