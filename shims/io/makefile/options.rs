//! The options of files.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use super::{SocketFile, TextFile};

/// The default size of a buffer.
pub(super) const BUFFER: usize = 8 << 10;

/// The options of a file over a stream, which are the arguments of Python's `makefile`.
///
/// ```
/// use greenroom::shims as std;
/// use std::io::makefile::{MakeFile, Newline, Record};
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// let (near, far) = UnixStream::pair()?;
/// let mut near = near.maketext(&MakeFile::new().newline(Newline::CrLf))?;
/// near.write_str("hello\n")?;
/// near.flush()?;
///
/// let line = far.makefile().read_until_seq(b"\n")?;
/// assert_eq!(line, Record::Complete(b"hello\r\n".to_vec()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `file` or `text`"]
pub struct MakeFile {
    pub(super) read: bool,
    pub(super) write: bool,
    binary: Option<bool>,
    pub(super) buffer: usize,
    pub(super) line_buffered: bool,
    pub(super) limit: usize,
    pub(super) refuse_after_timeout: bool,
    pub(super) encoding: Encoding,
    pub(super) newline: Newline,
}

/// The encoding of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8. Reading other bytes fails with `InvalidData`.
    #[default]
    Utf8,
    /// UTF-8. Other bytes are read as U+FFFD.
    Utf8Lossy,
    /// Latin-1: each byte is the character with that number. Writing other characters fails with
    /// `InvalidInput`.
    Latin1,
}

/// Which bytes end a line of text, and which bytes a written `\n` becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newline {
    /// Python's `None`: `\n`, `\r` and `\r\n` end a line, and each is read as `\n`. A `\n` is written
    /// unchanged.
    #[default]
    Universal,
    /// Python's `''`: `\n`, `\r` and `\r\n` end a line, and each is read unchanged. A line that ends in
    /// `\r` is returned only when the next byte or the end has come, because a `\n` may follow. A `\n` is
    /// written unchanged.
    Untranslated,
    /// Python's `'\n'`: only `\n` ends a line.
    Lf,
    /// Python's `'\r'`: only `\r` ends a line. A `\n` is written as `\r`.
    Cr,
    /// Python's `'\r\n'`: only `\r\n` ends a line. A `\n` is written as `\r\n`.
    CrLf,
}

impl Default for MakeFile {
    fn default() -> MakeFile {
        MakeFile::new()
    }
}

impl MakeFile {
    /// The default options: for reading and writing, with buffers of 8 KiB and without a limit. The text
    /// options are UTF-8 and universal newlines.
    pub fn new() -> MakeFile {
        MakeFile {
            read: true,
            write: true,
            binary: None,
            buffer: BUFFER,
            line_buffered: false,
            limit: usize::MAX,
            refuse_after_timeout: false,
            encoding: Encoding::default(),
            newline: Newline::default(),
        }
    }

    /// Sets options by a mode string of Python's.
    ///
    /// The string has the letters `r`, `w` and `b`, each at most once. Without `r` and `w`, the file is for
    /// reading. With `b`, only [`file`](MakeFile::file) succeeds; without `b`, only
    /// [`text`](MakeFile::text) does.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for any other string.
    pub fn mode(mut self, mode: &str) -> io::Result<MakeFile> {
        let count = |wanted| mode.chars().filter(|&letter| letter == wanted).count();
        let (read, write, binary) = (count('r'), count('w'), count('b'));
        if read.max(write).max(binary) > 1 || read + write + binary < mode.chars().count() {
            return Err(invalid(format!(
                "invalid mode {mode:?}: only r, w and b are allowed"
            )));
        }
        self.read = read == 1 || write == 0;
        self.write = write == 1;
        self.binary = Some(binary == 1);
        Ok(self)
    }

    /// Sets whether the file can be read.
    pub fn read(mut self, read: bool) -> MakeFile {
        self.read = read;
        self
    }

    /// Sets whether the file can be written.
    pub fn write(mut self, write: bool) -> MakeFile {
        self.write = write;
        self
    }

    /// Sets the size of each of the two buffers, in bytes. With a size of 0, each operation on the file is
    /// one on the stream. A text file needs a buffer.
    pub fn buffer(mut self, size: usize) -> MakeFile {
        self.buffer = size;
        self
    }

    /// Makes the file flush after each line that is written.
    pub fn line_buffered(mut self) -> MakeFile {
        self.line_buffered = true;
        self
    }

    /// Limits each read that looks for an end (a delimiter, a newline, a match or the end of the file) to
    /// `bytes`.
    ///
    /// If the end does not come within the limit, the read fails with `InvalidData`. The bytes that were
    /// read stay, and other reads can return them.
    pub fn limit(mut self, bytes: usize) -> MakeFile {
        self.limit = bytes;
        self
    }

    /// Makes all reads fail after a read has timed out, as Python's files do.
    pub fn refuse_after_timeout(mut self) -> MakeFile {
        self.refuse_after_timeout = true;
        self
    }

    /// Sets the encoding of text.
    pub fn encoding(mut self, encoding: Encoding) -> MakeFile {
        self.encoding = encoding;
        self
    }

    /// Sets the newlines of text.
    pub fn newline(mut self, newline: Newline) -> MakeFile {
        self.newline = newline;
        self
    }

    /// Makes a file of bytes over `stream`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a [`mode`](MakeFile::mode) without `b` was set.
    pub fn file<S: Read + Write>(&self, stream: S) -> io::Result<SocketFile<S>> {
        match self.binary {
            Some(false) => Err(invalid("the mode of a file of bytes has a b")),
            _ => Ok(SocketFile::with_options(stream, self)),
        }
    }

    /// Makes a file of text over `stream`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a [`mode`](MakeFile::mode) with `b` was set, or a [`buffer`](MakeFile::buffer) of
    /// size 0.
    pub fn text<S: Read + Write>(&self, stream: S) -> io::Result<TextFile<S>> {
        if self.binary == Some(true) {
            return Err(invalid("the mode of a text file has no b"));
        }
        if self.buffer == 0 {
            return Err(invalid("a text file needs a buffer"));
        }
        Ok(TextFile::with_options(stream, self))
    }
}

pub(super) fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}
