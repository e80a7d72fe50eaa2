//! Pipes.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::waiting;
use crate::reactor::{Descriptor, Direction};
use crate::shims::descriptor::{descriptor_conversions, into_stdio};
use crate::sys::file;
use crate::task;

/// Like [`std::io::pipe`].
///
/// # Errors
///
/// As std: when no descriptors can be had.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((
        PipeReader {
            io: Descriptor::fresh(reader),
        },
        PipeWriter {
            io: Descriptor::fresh(writer),
        },
    ))
}

/// Like [`std::io::PipeReader`], but waits park the coroutine.
pub struct PipeReader {
    io: Descriptor<io::PipeReader>,
}

/// Like [`std::io::PipeWriter`], but waits park the coroutine.
///
/// In a coroutine, a write to a pipe that has room for a part takes that part.
pub struct PipeWriter {
    io: Descriptor<io::PipeWriter>,
}

impl PipeReader {
    /// Like [`std::io::PipeReader::try_clone`].
    ///
    /// # Errors
    ///
    /// As std: when no descriptor can be had.
    pub fn try_clone(&self) -> io::Result<PipeReader> {
        let duplicate = self.io.get().try_clone()?;
        Ok(PipeReader {
            io: self.io.share(duplicate),
        })
    }
}

impl PipeWriter {
    /// Like [`std::io::PipeWriter::try_clone`].
    ///
    /// # Errors
    ///
    /// As std: when no descriptor can be had.
    pub fn try_clone(&self) -> io::Result<PipeWriter> {
        let duplicate = self.io.get().try_clone()?;
        Ok(PipeWriter {
            io: self.io.share(duplicate),
        })
    }
}

/// A descriptor that is used as a pipe: one of a pipe, a terminal, a device.
pub(crate) struct Pipe<'a, T: AsFd>(pub(crate) &'a Descriptor<T>);

impl<T: AsFd> Read for Pipe<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // Nothing is read at once, also where there is nothing.
        if !task::on_coroutine() || bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(rustix::io::readv(self.0.get(), bufs)?);
        }
        let operation = self.0.operation(Direction::Read);
        match operation.run(|fd| read_some(fd.as_fd(), bufs)) {
            Err(error) if cannot_be_polled(&error) => {
                waiting::read(self.0.get().as_fd(), bufs, None)
            }
            done => done,
        }
    }
}

impl<T: AsFd> Write for Pipe<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !task::on_coroutine() || bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(rustix::io::writev(self.0.get(), bufs)?);
        }
        let operation = self.0.operation(Direction::Write);
        match operation.run(|fd| write_some(fd.as_fd(), bufs)) {
            Err(error) if cannot_be_polled(&error) => waiting::write(self.0.get().as_fd(), bufs),
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what there is.
fn read_some(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match file::read_pipe(fd, bufs) {
        Err(error) if file::is_unsupported(&error) => {
            file::check_readable(fd)?;
            // Another reader may have been faster; and a terminal waits for more in some modes.
            waiting::read(fd, bufs, None)
        }
        done => done,
    }
}

/// Writes what there is room for, or all.
fn write_some(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    match file::write_pipe(fd, bufs) {
        Err(error) if file::is_unsupported(&error) => {
            file::check_writable(fd)?;
            // There need not be room for all. A part would not do: a pipe keeps a short write whole,
            // and to a device each is a message.
            waiting::write(fd, bufs)
        }
        done => done,
    }
}

/// Whether a descriptor that passes for a pipe is a regular file's, which nothing can wait for.
fn cannot_be_polled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Reads from a type whose pipe is in its field `io`.
macro_rules! reads_from_its_pipe {
    ($($type:ty),*) => {$(
        impl ::std::io::Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                self.read_vectored(&mut [::std::io::IoSliceMut::new(buf)])
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                ::std::io::Read::read_vectored(
                    &mut $crate::shims::io::pipe::Pipe(&self.io),
                    bufs,
                )
            }
        }
    )*};
}

/// Writes to a type whose pipe is in its field `io`.
macro_rules! writes_to_its_pipe {
    ($($type:ty),*) => {$(
        impl ::std::io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> ::std::io::Result<usize> {
                self.write_vectored(&[::std::io::IoSlice::new(buf)])
            }

            fn write_vectored(
                &mut self,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                ::std::io::Write::write_vectored(
                    &mut $crate::shims::io::pipe::Pipe(&self.io),
                    bufs,
                )
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                Ok(())
            }
        }
    )*};
}

pub(crate) use {reads_from_its_pipe, writes_to_its_pipe};

descriptor_conversions!(PipeReader: io::PipeReader, PipeWriter: io::PipeWriter);
into_stdio!(PipeReader: io::PipeReader, PipeWriter: io::PipeWriter);
reads_from_its_pipe!(PipeReader, &PipeReader);
writes_to_its_pipe!(PipeWriter, &PipeWriter);
