//! The stream of a file, with the write buffer.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, IoSlice, Read, Write};

use super::MakeFile;

/// A stream with a buffer for writes. Reads bypass the buffer.
#[derive(Debug)]
pub(super) struct BufferedStream<S: Write> {
    writer: BufWriter<S>,
    line_buffered: bool,
}

impl<S: Read + Write> BufferedStream<S> {
    pub(super) fn new(stream: S, options: &MakeFile) -> BufferedStream<S> {
        BufferedStream {
            writer: BufWriter::with_capacity(options.buffer, stream),
            line_buffered: options.line_buffered,
        }
    }

    pub(super) fn get_ref(&self) -> &S {
        self.writer.get_ref()
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        self.writer.get_mut()
    }

    /// The bytes that were written and not flushed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.writer.buffer()
    }

    /// The stream, and the bytes that were not flushed.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        let (stream, bytes) = self.writer.into_parts();
        // After a write of the stream has panicked, nothing tells which bytes the stream has taken.
        (stream, bytes.unwrap_or_default())
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.writer.write_vectored(bufs)?;
        if self.line_buffered && bufs.iter().any(|buf| memchr::memchr(b'\n', buf).is_some()) {
            // The bytes have been accepted, so this call must succeed. The next write or flush meets the
            // error again.
            let _ = self.writer.flush();
        }
        Ok(written)
    }

    pub(super) fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.writer.write_all(buf)?;
        if self.line_buffered && memchr::memchr(b'\n', buf).is_some() {
            self.writer.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
