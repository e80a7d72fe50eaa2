//! Descriptors of which nobody knows what they lead to.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsFd;

use super::pipe::Pipe;
use crate::blocking::unblock_borrowed;
use crate::park;
use crate::reactor::Descriptor;
use crate::sys::file;

/// Reads and writes in a coroutine what may be a regular file, a pipe, a terminal or a device.
///
/// What can be done without blocking, is. Else a regular file, which cannot be polled, is left to the
/// pool; the caller is not interrupted then, as that uses its buffers.
pub(crate) struct AnyFile<'a, T: AsFd + Sync>(pub(crate) &'a Descriptor<T>);

impl<T: AsFd + Sync> AnyFile<'_, T> {
    /// Whether to wait for it by the poll.
    pub(crate) fn polls(&self) -> bool {
        file::polls(self.0.get().as_fd())
    }
}

impl<T: AsFd + Sync> Read for AnyFile<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let fd = self.0.get().as_fd();
        park::spend_operation();
        match file::read(fd, bufs, None) {
            Err(error) if file::would_block(&error) => match self.polls() {
                true => Pipe(self.0).read_vectored(bufs),
                false => unblock_borrowed(|| Ok(rustix::io::readv(fd, bufs)?)),
            },
            done => done,
        }
    }
}

impl<T: AsFd + Sync> Write for AnyFile<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = self.0.get().as_fd();
        park::spend_operation();
        match file::write(fd, bufs, None) {
            Err(error) if file::would_block(&error) => match self.polls() {
                true => Pipe(self.0).write_vectored(bufs),
                false => unblock_borrowed(|| Ok(rustix::io::writev(fd, bufs)?)),
            },
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
