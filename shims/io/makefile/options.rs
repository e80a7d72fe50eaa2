//! What kind of file to make.

use std::io::{self, Read, Write};

use super::{SocketFile, TextFile};

/// The size of a buffer, unless another is asked for.
pub(super) const BUFFER: usize = 8 << 10;

/// The settings of a file over a stream: what Python's `makefile` takes.
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
#[must_use = "settings make a file by `file` or `text`"]
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

/// How text is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; what is not is an error of kind `InvalidData`.
    #[default]
    Utf8,
    /// UTF-8; what is not is read as U+FFFD.
    Utf8Lossy,
    /// Latin-1: each byte is the character of its number. Others cannot be written: an error of
    /// kind `InvalidInput`.
    Latin1,
}

/// What ends a line of text, and what a written `\n` becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newline {
    /// Python's `None`: `\n`, `\r` and `\r\n` end a line, and are read as `\n`.
    #[default]
    Universal,
    /// Python's `''`: the same, but they are read as they are. (So a `\r` must be followed by
    /// something, or by the end, before it is known to be all.)
    Untranslated,
    /// Python's `'\n'`: that alone.
    Lf,
    /// Python's `'\r'`: that alone; `\n` is written as that.
    Cr,
    /// Python's `'\r\n'`: that alone; `\n` is written as that.
    CrLf,
}

impl Default for MakeFile {
    fn default() -> MakeFile {
        MakeFile::new()
    }
}

impl MakeFile {
    /// A file to read and to write, with buffers of 8 KiB, without a limit; as text, in UTF-8 with
    /// universal newlines.
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

    /// Takes a mode of Python's: a combination of `r`, `w` and `b`, each at most once; without `r`
    /// and `w`, it is for reading. With `b` it makes no text, and without it nothing but text.
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

    /// Whether the file can be read.
    pub fn read(mut self, read: bool) -> MakeFile {
        self.read = read;
        self
    }

    /// Whether the file can be written to.
    pub fn write(mut self, write: bool) -> MakeFile {
        self.write = write;
        self
    }

    /// The size of each of the two buffers in bytes. With none, each operation on the file is one on
    /// the stream; text cannot do without.
    pub fn buffer(mut self, size: usize) -> MakeFile {
        self.buffer = size;
        self
    }

    /// Has the file flush what was written after each line.
    pub fn line_buffered(mut self) -> MakeFile {
        self.line_buffered = true;
        self
    }

    /// The most bytes that a read takes which looks for an end: a delimiter, a newline, a match, the
    /// end of the file. Where that does not come in time, it fails with `InvalidData`, and what
    /// was read so far can still be read otherwise.
    pub fn limit(mut self, bytes: usize) -> MakeFile {
        self.limit = bytes;
        self
    }

    /// As Python's files: once a read has timed out, so that part of what was asked for may be here,
    /// all later ones fail.
    pub fn refuse_after_timeout(mut self) -> MakeFile {
        self.refuse_after_timeout = true;
        self
    }

    /// The encoding of text.
    pub fn encoding(mut self, encoding: Encoding) -> MakeFile {
        self.encoding = encoding;
        self
    }

    /// The newlines of text.
    pub fn newline(mut self, newline: Newline) -> MakeFile {
        self.newline = newline;
        self
    }

    /// A file of bytes over `stream`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if a [`mode`](MakeFile::mode) has said that it is for text.
    pub fn file<S: Read + Write>(&self, stream: S) -> io::Result<SocketFile<S>> {
        match self.binary {
            Some(false) => Err(invalid("the mode of a file of bytes has a b")),
            _ => Ok(SocketFile::with_options(stream, self)),
        }
    }

    /// A file of text over `stream`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if a [`mode`](MakeFile::mode) has said that it is for bytes, and without a
    /// buffer.
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
