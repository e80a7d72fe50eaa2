//! The stream of a file, with the write buffer.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, IoSlice, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::MakeFile;
use crate::park::{Unwind, is_error_of_interrupt, tell_later};

/// A stream with a buffer for writes. Reads bypass the buffer.
#[derive(Debug)]
pub(super) struct BufferedStream<S: Write> {
    writer: BufWriter<Interruptible<S>>,
    line_buffered: bool,
}

impl<S: Read + Write> BufferedStream<S> {
    pub(super) fn new(stream: S, options: &MakeFile) -> BufferedStream<S> {
        BufferedStream {
            writer: BufWriter::with_capacity(options.buffer, Interruptible::new(stream)),
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
        // After a write of the stream has panicked, nothing tells which bytes the stream has taken.
        (writer.stream, bytes.unwrap_or_default())
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

    /// Calls `write`, and delivers the interrupt that the stream has met in it.
    fn with<R>(
        &mut self,
        write: impl FnOnce(&mut BufWriter<Interruptible<S>>) -> io::Result<R>,
    ) -> io::Result<R> {
        let written = write(&mut self.writer);
        match self.writer.get_mut().met.0.take() {
            None => written,
            Some(Met::Error(error)) => Err(error),
            Some(Met::Unwind(unwind)) => unwind.resume(),
        }
    }
}

/// A stream for a [`BufWriter`]. Its writes fail instead of unwinding when they are interrupted.
///
/// A `BufWriter` takes every unwind for a panic, after which it cannot know which bytes the stream has taken, and
/// never writes its buffer when it is dropped. After an error it does.
#[derive(Debug)]
struct Interruptible<S> {
    stream: S,
    met: Undelivered,
}

/// The interrupt that the last write has met.
#[derive(Debug)]
enum Met {
    Error(io::Error),
    Unwind(Unwind),
}

/// An interrupt, until it is delivered. The drop of a `BufWriter` ignores errors, so its stream delivers the
/// interrupt after that.
#[derive(Debug)]
struct Undelivered(Option<Met>);

impl<S> Interruptible<S> {
    fn new(stream: S) -> Interruptible<S> {
        Interruptible {
            stream,
            met: Undelivered(None),
        }
    }

    /// Calls `write`, and keeps the interrupt that it meets.
    fn keep_interrupt<R>(&mut self, write: impl FnOnce(&mut S) -> io::Result<R>) -> io::Result<R> {
        // The unwind goes on, either here or once the `BufWriter` has returned.
        let written = catch_unwind(AssertUnwindSafe(|| write(&mut self.stream)));
        let met = match written.map_err(Unwind::of) {
            Ok(Err(error)) if is_error_of_interrupt(&error) => Met::Error(error),
            Ok(written) => return written,
            Err(Ok(unwind)) => Met::Unwind(unwind),
            Err(Err(panic)) => resume_unwind(panic),
        };
        self.met.0 = Some(met);
        // Only a sign for the `BufWriter`.
        Err(io::ErrorKind::Other.into())
    }
}

impl<S: Write> Write for Interruptible<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.keep_interrupt(|stream| stream.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.keep_interrupt(|stream| stream.write_vectored(bufs))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.keep_interrupt(|stream| stream.write_all(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.keep_interrupt(S::flush)
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        match self.0.take() {
            None => {}
            Some(Met::Error(error)) => tell_later(&error),
            // It was met in the drop of the `BufWriter`, so the caller does not unwind already.
            Some(Met::Unwind(unwind)) => unwind.resume(),
        }
    }
}
