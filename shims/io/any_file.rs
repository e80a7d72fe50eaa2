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
/// What can be read without blocking, is. Else a regular file, which cannot be polled, is left to the
/// pool; the caller is not interrupted then, as that uses its buffers.
pub(crate) struct AnyFile<'a, T: AsFd + Sync>(pub(crate) &'a Descriptor<T>);

impl<T: AsFd + Sync> AnyFile<'_, T> {
    /// Whether to wait for it by the poll.
    pub(crate) fn polls(&self) -> bool {
        file::polls(self.0.get().as_fd())
    }

    /// Reads at `offset`, or where the descriptor stands.
    pub(crate) fn read_from(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        offset: Option<u64>,
    ) -> io::Result<usize> {
        park::spend_operation();
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        match self.try_read(bufs, offset) {
            Err(error) if file::would_block(&error) => self.read_blocking(bufs, offset),
            Ok(read) if 0 < read && read < wanted && !self.polls() => {
                // Either it ends here, or the rest was not in memory.
                let mut rest: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                let mut rest = &mut rest[..];
                IoSliceMut::advance_slices(&mut rest, read);
                let offset = offset.map(|offset| offset + read as u64);
                let more = match self.try_read(rest, offset) {
                    Err(error) if file::would_block(&error) => self.read_blocking(rest, offset),
                    done => done,
                };
                Ok(read + more.unwrap_or(0))
            }
            done => done,
        }
    }

    fn try_read(&self, bufs: &mut [IoSliceMut<'_>], offset: Option<u64>) -> io::Result<usize> {
        file::read(self.0.get().as_fd(), bufs, offset)
    }

    fn read_blocking(&self, bufs: &mut [IoSliceMut<'_>], offset: Option<u64>) -> io::Result<usize> {
        let fd = self.0.get().as_fd();
        match offset {
            Some(offset) => unblock_borrowed(|| Ok(rustix::io::preadv(fd, bufs, offset)?)),
            None if self.polls() => Pipe(self.0).read_vectored(bufs),
            None => unblock_borrowed(|| Ok(rustix::io::readv(fd, bufs)?)),
        }
    }
}

impl<T: AsFd + Sync> Read for AnyFile<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_from(bufs, None)
    }
}

impl<T: AsFd + Sync> Write for AnyFile<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        park::spend_operation();
        if self.polls() {
            return Pipe(self.0).write_vectored(bufs);
        }
        // Without an attempt before: what that took of an append would stand alone, and others
        // could come between it and the rest.
        let fd = self.0.get().as_fd();
        unblock_borrowed(|| Ok(rustix::io::writev(fd, bufs)?))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
