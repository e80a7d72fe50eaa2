//! Descriptors of which nobody knows what they lead to.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsFd;

use super::pipe::Pipe;
use super::waiting;
use crate::blocking::unblock_borrowed;
use crate::park;
use crate::reactor::Descriptor;
use crate::sys::{file, poll};

/// Reads and writes in a coroutine what may be a regular file, a pipe, a terminal or a device.
///
/// What can be read without blocking, is. Else a regular file, which cannot be polled, is left to the
/// pool; the caller is not interrupted then, as that uses its buffers, unless that may take for ever.
pub(crate) struct AnyFile<'a, T: AsFd + Sync>(pub(crate) &'a Descriptor<T>);

impl<T: AsFd + Sync> AnyFile<'_, T> {
    /// Whether to wait for it by the poll.
    pub(crate) fn polls(&self) -> bool {
        file::polls(self.0.get().as_fd())
    }

    /// Whether a read may wait for others, rather than for a disk alone. What seems to be a regular
    /// file may be one that the system, or another process, makes up as it goes.
    pub(crate) fn may_wait(&self) -> bool {
        poll::can_change(self.0.get().as_fd()).unwrap_or(false)
    }

    /// Reads at `place`: of a regular file all that was asked for, unless that ends before.
    pub(crate) fn read_at(&self, place: Place, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        park::spend_operation();
        if place == Place::SharedCursor && !self.polls() {
            // An attempt would move the cursor by what it has got, and others could read the rest.
            return self.read_blocking(place, bufs);
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        match self.try_read(place, bufs) {
            Err(error) if file::would_block(&error) => self.read_blocking(place, bufs),
            Ok(read) if 0 < read && read < wanted && !self.polls() => {
                // Either it ends here, or the rest was not in memory.
                let mut rest: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                let mut rest = &mut rest[..];
                IoSliceMut::advance_slices(&mut rest, read);
                let place = place.after(read);
                let more = match self.try_read(place, rest) {
                    Err(error) if file::would_block(&error) => self.read_blocking(place, rest),
                    done => done,
                };
                Ok(read + more.unwrap_or(0))
            }
            done => done,
        }
    }

    fn try_read(&self, place: Place, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        file::read(self.0.get().as_fd(), bufs, place.offset())
    }

    fn read_blocking(&self, place: Place, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let fd = self.0.get().as_fd();
        match place.offset() {
            None if self.polls() => Pipe(self.0).read_vectored(bufs),
            offset if self.may_wait() => waiting::read(fd, bufs, offset),
            offset => unblock_borrowed(|| waiting::read_now(fd, bufs, offset)),
        }
    }
}

/// Where in a file to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Offset(u64),
    /// Where the descriptor stands, which nobody else moves meanwhile.
    Cursor,
    /// Where the descriptor stands, and others may read at the same time: each what follows on what
    /// another has read.
    SharedCursor,
}

impl Place {
    fn offset(self) -> Option<u64> {
        match self {
            Place::Offset(offset) => Some(offset),
            Place::Cursor | Place::SharedCursor => None,
        }
    }

    /// The place once so much was read.
    fn after(self, read: usize) -> Place {
        match self {
            Place::Offset(offset) => Place::Offset(offset + read as u64),
            cursor => cursor,
        }
    }
}

/// Reads at a cursor that is the caller's own.
impl<T: AsFd + Sync> Read for AnyFile<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_at(Place::Cursor, bufs)
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
