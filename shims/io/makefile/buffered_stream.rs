//! The stream of a file, with the write buffer.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, IoSlice, Read, Write};

use super::MakeFile;
use crate::park::{Untold, tell_later};

/// A stream with a buffer for writes. Reads bypass the buffer.
#[derive(Debug)]
pub(super) struct BufferedStream<S: Write> {
    writer: BufWriter<Noting<S>>,
    line_buffered: bool,
}

impl<S: Read + Write> BufferedStream<S> {
    pub(super) fn new(stream: S, options: &MakeFile) -> BufferedStream<S> {
        let stream = Noting {
            stream,
            untold: Untold::default(),
        };
        BufferedStream {
            writer: BufWriter::with_capacity(options.buffer, stream),
            line_buffered: options.line_buffered,
        }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.writer.get_ref().stream
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.writer.get_mut().stream
    }

    /// The bytes that were written and not flushed.
    pub(super) fn bytes(&self) -> &[u8] {
        self.writer.buffer()
    }

    /// The stream, and the bytes that were not flushed.
    pub(super) fn into_parts(self) -> (S, Vec<u8>) {
        let (writer, bytes) = self.writer.into_parts();
        let bytes = bytes.unwrap_or_else(|unwound| unwound.into_inner());
        (writer.stream, bytes)
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.with(|writer| writer.write_vectored(bufs))?;
        if self.line_buffered
            && bufs.iter().any(|buf| memchr::memchr(b'\n', buf).is_some())
            && let Err(error) = self.flush()
        {
            // The bytes have been accepted, so this call must succeed. The next write or flush meets the
            // error again.
            tell_later(&error);
        }
        Ok(written)
    }

    pub(super) fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.with(|writer| writer.write_all(buf))?;
        if self.line_buffered && memchr::memchr(b'\n', buf).is_some() {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.with(BufWriter::flush)
    }

    /// Calls `write`, whose error the caller returns.
    fn with<R>(
        &mut self,
        write: impl FnOnce(&mut BufWriter<Noting<S>>) -> io::Result<R>,
    ) -> io::Result<R> {
        let written = write(&mut self.writer);
        self.writer.get_mut().untold.clear();
        written
    }
}

/// A stream that notes the cancellation of a write. The drop of a [`BufWriter`] writes, too, and ignores the error.
#[derive(Debug)]
struct Noting<S> {
    stream: S,
    untold: Untold,
}

impl<S: Write> Write for Noting<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.untold.note(self.stream.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.untold.note(self.stream.write_vectored(bufs))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.untold.note(self.stream.write_all(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
