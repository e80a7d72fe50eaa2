//! Files of text.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use super::options::invalid;
use super::socket_file::utf8;
use super::{Encoding, MakeFile, Newline, SocketFile};

/// A buffered two-way file of text over a stream. Decodes on reading and encodes on writing.
///
/// After a timeout, the bytes that were read are kept, and the next read goes on with them.
pub struct TextFile<S: Read + Write> {
    file: SocketFile<S>,
    encoding: Encoding,
    newline: Newline,
    /// The last read ended with a `\r` that ended a line. If a `\n` comes next, the `\n` belongs to the same
    /// end of line and is skipped.
    skips_lf: bool,
}

impl<S: Read + Write> TextFile<S> {
    pub(super) fn with_options(stream: S, options: &MakeFile) -> TextFile<S> {
        TextFile {
            file: SocketFile::with_options(stream, options),
            encoding: options.encoding,
            newline: options.newline,
            skips_lf: false,
        }
    }

    /// The underlying file of bytes.
    pub fn get_ref(&self) -> &SocketFile<S> {
        &self.file
    }

    /// The underlying file of bytes, for reading and writing bytes.
    pub fn get_mut(&mut self) -> &mut SocketFile<S> {
        &mut self.file
    }

    /// Reads a line, including its newline, and appends the line to `line`. Returns the number of bytes
    /// that were appended, which is 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// The stream's. `InvalidData` if no newline comes within the file's [limit](MakeFile::limit); the
    /// bytes that were read then stay for the next read. `InvalidData` for bytes that are not text.
    pub fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let newline = self.newline;
        let raw = self.read_raw(|there, seen| newline.end_of_line(there, seen))?;
        self.append(line, &raw)
    }

    /// Reads `count` characters, or fewer at the end of the file. Like Python's `read(n)`.
    ///
    /// # Errors
    ///
    /// As [`read_line`](TextFile::read_line).
    pub fn read_chars(&mut self, count: usize) -> io::Result<String> {
        let mut text = String::new();
        if count > 0 {
            let (encoding, newline) = (self.encoding, self.newline);
            let raw = self.read_raw(|there, _| prefix(there, count, encoding, newline))?;
            self.append(&mut text, &raw)?;
        }
        Ok(text)
    }

    /// Reads to the end of the file and appends the text to `text`. Returns the number of bytes that were
    /// appended.
    ///
    /// # Errors
    ///
    /// As [`read_line`](TextFile::read_line).
    pub fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let raw = self.read_raw(|_, _| None)?;
        self.append(text, &raw)
    }

    /// Iterates over the lines of the file, without their newlines.
    pub fn lines(self) -> TextLines<S> {
        TextLines { file: self }
    }

    /// Writes text.
    ///
    /// # Errors
    ///
    /// The stream's. `InvalidInput` if the encoding lacks one of the characters; nothing is written then.
    pub fn write_str(&mut self, text: &str) -> io::Result<()> {
        let text = match self.newline {
            Newline::Universal | Newline::Untranslated | Newline::Lf => Cow::Borrowed(text),
            Newline::Cr => Cow::Owned(text.replace('\n', "\r")),
            Newline::CrLf => Cow::Owned(text.replace('\n', "\r\n")),
        };
        match self.encoding {
            Encoding::Utf8 | Encoding::Utf8Lossy => self.file.write_all(text.as_bytes()),
            Encoding::Latin1 => self.file.write_all(&latin1(&text)?),
        }
    }

    /// Writes formatted text. `write!` calls this method.
    ///
    /// # Errors
    ///
    /// As [`write_str`](TextFile::write_str).
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        match text.as_str() {
            Some(text) => self.write_str(text),
            None => self.write_str(&text.to_string()),
        }
    }

    /// Sends the text that was written.
    ///
    /// # Errors
    ///
    /// The stream's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Flushes and drops the file. See [`SocketFile::close`].
    ///
    /// # Errors
    ///
    /// The error of the flush.
    pub fn close(self) -> io::Result<()> {
        self.file.close()
    }

    fn read_raw(&mut self, find: impl FnMut(&[u8], usize) -> Option<usize>) -> io::Result<Vec<u8>> {
        self.skip_lf()?;
        let raw = self.file.take_record(find)?;
        let universal = self.newline == Newline::Universal;
        self.skips_lf = universal && raw.ends_with(b"\r");
        Ok(raw)
    }

    /// Skips a `\n` that belongs to the `\r` before it.
    fn skip_lf(&mut self) -> io::Result<()> {
        if !self.skips_lf {
            return Ok(());
        }
        if self.file.buffer().is_empty() {
            self.file.fill()?;
        }
        if self.file.buffer().first() == Some(&b'\n') {
            io::BufRead::consume(&mut self.file, 1);
        }
        self.skips_lf = false;
        Ok(())
    }

    fn append(&self, text: &mut String, raw: &[u8]) -> io::Result<usize> {
        let before = text.len();
        let decoded = match self.encoding {
            Encoding::Utf8 => Cow::Borrowed(utf8(raw)?),
            Encoding::Utf8Lossy => String::from_utf8_lossy(raw),
            Encoding::Latin1 => raw.iter().map(|&byte| char::from(byte)).collect(),
        };
        if self.newline == Newline::Universal && decoded.contains('\r') {
            text.push_str(&decoded.replace("\r\n", "\n").replace('\r', "\n"));
        } else {
            text.push_str(&decoded);
        }
        Ok(text.len() - before)
    }
}

impl Newline {
    /// The length of the first line of `there`, including its newline. The first `seen` bytes contain no
    /// newline, except possibly a `\r` as the last of them.
    fn end_of_line(self, there: &[u8], seen: usize) -> Option<usize> {
        let from = seen.saturating_sub(1);
        let rest = &there[from..];
        let length = match self {
            Newline::Lf => memchr::memchr(b'\n', rest)? + 1,
            Newline::Cr => memchr::memchr(b'\r', rest)? + 1,
            Newline::CrLf => memchr::memmem::find(rest, b"\r\n")? + 2,
            Newline::Universal | Newline::Untranslated => {
                let at = memchr::memchr2(b'\n', b'\r', rest)?;
                match (rest[at], rest.get(at + 1)) {
                    (b'\r', Some(b'\n')) => at + 2,
                    (b'\r', None) if self == Newline::Untranslated => return None,
                    _ => at + 1,
                }
            }
        };
        Some(from + length)
    }
}

/// The length in bytes of the first `count` characters of `there`, if there are as many.
fn prefix(there: &[u8], count: usize, encoding: Encoding, newline: Newline) -> Option<usize> {
    let mut at = 0;
    for left in (1..=count).rev() {
        let rest = &there[at..];
        at += match *rest.first()? {
            b'\r' if newline == Newline::Universal => match rest.get(1) {
                Some(b'\n') => 2,
                // A `\r` is enough for the last character: `skip_lf` skips a `\n` that comes next.
                None if left > 1 => return None,
                _ => 1,
            },
            _ if encoding == Encoding::Latin1 => 1,
            _ => width(rest)?,
        };
    }
    Some(at)
}

/// The length in bytes of the first character of `text` in UTF-8, or of the invalid sequence in its place.
/// `None` if more bytes must come to tell.
fn width(text: &[u8]) -> Option<usize> {
    let four = &text[..text.len().min(4)];
    let valid = match str::from_utf8(four) {
        Ok(valid) => valid,
        Err(error) if error.valid_up_to() == 0 => return error.error_len(),
        Err(error) => str::from_utf8(&four[..error.valid_up_to()]).ok()?,
    };
    valid.chars().next().map(char::len_utf8)
}

fn latin1(text: &str) -> io::Result<Vec<u8>> {
    let bytes = text.chars().map(|letter| {
        u8::try_from(letter).map_err(|_| invalid(format!("{letter:?} is not in Latin-1")))
    });
    bytes.collect()
}

/// The iterator of [`TextFile::lines`]. Ends with the file.
#[derive(Debug)]
pub struct TextLines<S: Read + Write> {
    file: TextFile<S>,
}

impl<S: Read + Write> Iterator for TextLines<S> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<io::Result<String>> {
        let mut line = String::new();
        match self.file.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => {
                let ends: &[&str] = match self.file.newline {
                    Newline::Universal | Newline::Lf => &["\n"],
                    Newline::Untranslated => &["\r\n", "\n", "\r"],
                    Newline::Cr => &["\r"],
                    Newline::CrLf => &["\r\n"],
                };
                let end = ends.iter().find(|end| line.ends_with(**end));
                line.truncate(line.len() - end.map_or(0, |end| end.len()));
                Some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl<S: Read + Write + fmt::Debug> fmt::Debug for TextFile<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextFile")
            .field("file", &self.file)
            .field("encoding", &self.encoding)
            .field("newline", &self.newline)
            .finish_non_exhaustive()
    }
}
