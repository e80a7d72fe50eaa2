//! Pipes.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::copy::Part;
use super::waiting;
use crate::reactor::{Descriptor, Direction};
use crate::shims::descriptor::{descriptor_conversions, into_stdio};
use crate::shims::park_or_block::park_or_block;
use crate::sys::file;

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
/// In a coroutine, a write takes as many bytes as the pipe has room for. std's write takes all.
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

/// A descriptor that can be polled: of a pipe, a terminal or a device.
pub(crate) struct Pipe<'a, T: AsFd>(pub(crate) &'a Descriptor<T>);

impl<T: AsFd> Read for Pipe<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let block = |bufs: &mut [IoSliceMut<'_>]| Ok(rustix::io::readv(self.0.get(), bufs)?);
        if bufs.iter().all(|buf| buf.is_empty()) {
            // A read of no bytes never waits, even if the pipe is empty.
            return block(bufs);
        }
        park_or_block(
            bufs,
            |bufs| {
                let operation = self.0.operation(Direction::Read);
                match operation.run(|fd| read_some(fd.as_fd(), bufs)) {
                    Err(error) if cannot_be_polled(&error) => {
                        waiting::read(self.0.get().as_fd(), bufs, None)
                    }
                    done => done,
                }
            },
            block,
        )
    }
}

impl<T: AsFd> Pipe<'_, T> {
    /// Reads for a copy.
    pub(crate) fn fill(&self, most: usize) -> io::Result<Part> {
        let block = || Part::fill(most, |buf| Ok(rustix::io::read(self.0.get(), buf)?));
        let park = || {
            let operation = self.0.operation(Direction::Read);
            let filled = operation.run(|fd| {
                Part::fill(most, |buf| {
                    read_some(fd.as_fd(), &mut [IoSliceMut::new(buf)])
                })
            });
            match filled {
                Err(error) if cannot_be_polled(&error) => Part::fill(most, |buf| {
                    waiting::read(self.0.get().as_fd(), &mut [IoSliceMut::new(buf)], None)
                }),
                done => done,
            }
        };
        park_or_block((), |()| park(), |()| block())
    }
}

impl<T: AsFd> Write for Pipe<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let block = |bufs: &[IoSlice<'_>]| Ok(rustix::io::writev(self.0.get(), bufs)?);
        if bufs.iter().all(|buf| buf.is_empty()) {
            // A write of no bytes never waits, even if the pipe is full.
            return block(bufs);
        }
        park_or_block(
            bufs,
            |bufs| {
                let operation = self.0.operation(Direction::Write);
                match operation.run(|fd| write_some(fd.as_fd(), bufs)) {
                    Err(error) if cannot_be_polled(&error) => {
                        waiting::write(self.0.get().as_fd(), bufs)
                    }
                    done => done,
                }
            },
            block,
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the bytes that are there.
fn read_some(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match file::read_pipe(fd, bufs) {
        Err(error) if file::is_unsupported(&error) => {
            file::check_readable(fd)?;
            // The read can still wait: another reader may take the bytes, and in some modes a terminal
            // waits for more.
            waiting::read(fd, bufs, None)
        }
        done => done,
    }
}

/// Writes as many bytes as there is room for, or all.
fn write_some(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    match file::write_pipe(fd, bufs) {
        Err(error) if file::is_unsupported(&error) => {
            file::check_writable(fd)?;
            // The write can still wait for room. Writing only a part would be wrong: a pipe keeps a short
            // write in one piece, and a device takes each write as a message.
            waiting::write(fd, bufs)
        }
        done => done,
    }
}

/// Whether the error says that the descriptor cannot be polled: it leads to a regular file.
fn cannot_be_polled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Implements `Read` for types that have the descriptor of a pipe in the field `io`.
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

/// Lets `copy` read from types that have the descriptor of a pipe in the field `io`.
macro_rules! is_copied_from {
    ($($type:ty),*) => {$(
        impl $crate::shims::io::copy::Source for $type {
            fn fill(&self, most: usize) -> ::std::io::Result<$crate::shims::io::copy::Part> {
                $crate::shims::io::pipe::Pipe(&self.io).fill(most)
            }

            fn end(&self) -> $crate::shims::io::copy::End<'_> {
                $crate::shims::io::copy::End::Pipe(&self.io)
            }
        }
    )*};
}

/// Lets `copy` write to types that have the descriptor of a pipe in the field `io`.
macro_rules! is_copied_to {
    ($($type:ty),*) => {$(
        impl $crate::shims::io::copy::Sink for $type {
            fn end(&self) -> $crate::shims::io::copy::End<'_> {
                $crate::shims::io::copy::End::Pipe(&self.io)
            }
        }
    )*};
}

/// Implements `Write` for types that have the descriptor of a pipe in the field `io`.
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

pub(crate) use {is_copied_from, is_copied_to, reads_from_its_pipe, writes_to_its_pipe};

descriptor_conversions!(PipeReader: io::PipeReader, PipeWriter: io::PipeWriter);
into_stdio!(PipeReader: io::PipeReader, PipeWriter: io::PipeWriter);
reads_from_its_pipe!(PipeReader, &PipeReader);
writes_to_its_pipe!(PipeWriter, &PipeWriter);
is_copied_from!(PipeReader);
is_copied_to!(PipeWriter);
