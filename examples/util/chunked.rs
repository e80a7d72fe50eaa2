//! The body of an HTTP message in chunks, as a [`Read`].
//!
//! This is the "read loop" of a length, as many bytes, and again. It calls nothing but `read` below it, so its
//! stack does not depend on the number of chunks, nor on whether they are there already.

#![allow(dead_code, reason = "each example uses its part")]

use std::io::{self, BufRead, ErrorKind, Read};

/// The longest line with the size of a chunk and its extensions, which are skipped.
const MAX_SIZE_LINE: usize = 4 * 1024;

/// The longest block of trailers, and how many there may be.
const MAX_TRAILERS_LENGTH: usize = 8 * 1024;
const MAX_TRAILERS: usize = 32;

/// Decodes a body in chunks, and reads not a byte beyond its end.
///
/// After an error, such as a timeout, the next read goes on where that one ended. A malformed body is an
/// error of the kind `InvalidData`, now and in all later reads.
pub(crate) struct Chunked<R> {
    reader: R,
    state: State,
    /// What has come of the line, or of the trailers, that is being read.
    partial: Vec<u8>,
    trailers: Vec<(String, String)>,
}

enum State {
    /// Before the line with a chunk's size.
    Size,
    /// In a chunk, of which so many bytes are left. It is not empty.
    Data(u64),
    /// After a chunk's bytes, before their line break.
    DataEnd,
    /// After the last chunk.
    Trailers,
    Ended,
    Malformed(&'static str),
}

impl<R: BufRead> Chunked<R> {
    pub(crate) fn new(reader: R) -> Chunked<R> {
        Chunked {
            reader,
            state: State::Size,
            partial: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// The fields after the last chunk, once `read` has returned 0.
    pub(crate) fn trailers(&self) -> &[(String, String)] {
        &self.trailers
    }

    /// Reads up to the next byte of a chunk. Returns how many bytes are left of the chunk, 0 at the end of the
    /// body.
    fn left_of_chunk(&mut self) -> io::Result<u64> {
        loop {
            self.state = match self.state {
                State::Data(left) => return Ok(left),
                State::Ended => return Ok(0),
                State::Malformed(why) => return Err(io::Error::new(ErrorKind::InvalidData, why)),
                State::Size => {
                    self.read_line(MAX_SIZE_LINE)?;
                    let state = match size(&self.partial) {
                        Some(0) => State::Trailers,
                        Some(size) => State::Data(size),
                        None => State::Malformed("malformed size of a chunk"),
                    };
                    self.partial.clear();
                    state
                }
                State::DataEnd => {
                    self.read_line(2)?;
                    let ends = self.partial == b"\r\n";
                    self.partial.clear();
                    match ends {
                        true => State::Size,
                        false => State::Malformed("a chunk is longer than its size"),
                    }
                }
                State::Trailers => {
                    self.read_line(MAX_TRAILERS_LENGTH)?;
                    if self.partial == b"\r\n" || self.partial.ends_with(b"\r\n\r\n") {
                        match trailers(&self.partial) {
                            Some(trailers) => {
                                self.trailers = trailers;
                                State::Ended
                            }
                            None => State::Malformed("malformed trailers"),
                        }
                    } else if self.partial.ends_with(b"\r\n") {
                        State::Trailers
                    } else {
                        State::Malformed("malformed trailers, or too long ones")
                    }
                }
            }
        }
    }

    /// Appends the rest of a line to `partial`, up to `limit` bytes in all. A line without its end was too long.
    fn read_line(&mut self, limit: usize) -> io::Result<()> {
        let room = limit.saturating_sub(self.partial.len());
        let mut line = (&mut self.reader).take(room as u64);
        let read = line.read_until(b'\n', &mut self.partial)?;
        let is_line = read > 0 && self.partial.ends_with(b"\n");
        if !is_line && self.partial.len() < limit {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let left = self.left_of_chunk()?;
        if left == 0 {
            return Ok(0);
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let read = self.reader.read(&mut buf[..wanted])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.state = match left - read as u64 {
            0 => State::DataEnd,
            left => State::Data(left),
        };
        Ok(read)
    }
}

fn size(line: &[u8]) -> Option<u64> {
    // The parser takes no digits for zero.
    if !line.first()?.is_ascii_hexdigit() {
        return None;
    }
    match httparse::parse_chunk_size(line) {
        Ok(httparse::Status::Complete((length, size))) if length == line.len() => Some(size),
        _ => None,
    }
}

fn trailers(block: &[u8]) -> Option<Vec<(String, String)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(block, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == block.len() => {
            let owned = |field: &httparse::Header<'_>| {
                let value = String::from_utf8_lossy(field.value);
                (field.name.to_owned(), value.into_owned())
            };
            Some(fields.iter().map(owned).collect())
        }
        _ => None,
    }
}
