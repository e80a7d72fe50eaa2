//! Descriptors of which nobody knows what they lead to.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::pipe::Pipe;
use super::waiting;
use crate::park;
use crate::pool::unblock_borrowed;
use crate::reactor::Descriptor;
use crate::shims::fs::file_system::{AT_ONCE, FileSystem, Nature};
use crate::sys::{file, poll};

/// Reads and writes in a coroutine what may be a regular file, a pipe, a terminal or a device.
///
/// What is in memory is read where the caller is, and what is written to a local file system mostly
/// written there. Else a regular file, which cannot be polled, is left to the pool; the caller is not
/// interrupted then, as that uses its buffers, unless that may take for ever.
pub(crate) struct AnyFile<'a, T: AsFd + Sync> {
    io: &'a Descriptor<T>,
    nature: Nature,
    /// Others may read at the same cursor at the same time: each what follows on what another has
    /// read.
    shared: bool,
}

impl<'a, T: AsFd + Sync> AnyFile<'a, T> {
    pub(crate) fn new(io: &'a Descriptor<T>, nature: Nature, shared: bool) -> AnyFile<'a, T> {
        AnyFile { io, nature, shared }
    }

    /// Reads at `offset`, or at the cursor: of a regular file all that was asked for, unless that ends
    /// before.
    pub(crate) fn read_at(
        &self,
        offset: Option<u64>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        match (self.nature, offset) {
            (Nature::Pipe, None) => return Pipe(self.io).read_vectored(bufs),
            (Nature::Pipe, Some(_)) => {
                park::spend_operation();
                match file::read(self.fd(), bufs, offset) {
                    Err(error) if file::would_block(&error) => {}
                    done => return done,
                }
            }
            (Nature::Local(file_system), _) => {
                park::spend_operation();
                return self.read_local(file_system, offset, bufs);
            }
            (Nature::Elsewhere, _) => park::spend_operation(),
        }
        let fd = self.fd();
        // To ask whether it may wait for others is up to the file system, too.
        let read = unblock_borrowed(|| match may_wait(fd) {
            true => None,
            false => Some(waiting::read_now(fd, bufs, offset)),
        });
        read.unwrap_or_else(|| waiting::read(fd, bufs, offset))
    }

    fn read_local(
        &self,
        file_system: &FileSystem,
        offset: Option<u64>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        let fd = self.fd();
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if wanted > AT_ONCE {
            return unblock_borrowed(|| waiting::read_now(fd, bufs, offset));
        }
        let shares = offset.is_none() && self.shared;
        // An attempt at a shared cursor would move that by what it has got, and others could read the
        // rest. One beside it tells whether all is in memory.
        let attempt = match shares {
            true => Attempt::make(fd, bufs, Some(rustix::fs::tell(fd)?)),
            false => Attempt::make(fd, bufs, offset),
        };
        match attempt {
            Ok(Attempt { whole: true, .. }) if shares => waiting::read_now(fd, bufs, offset),
            Ok(Attempt { read, whole: true }) => Ok(read),
            Ok(Attempt { read, whole: false }) if read > 0 && !shares => {
                let mut rest = slices(bufs);
                let mut rest = &mut rest[..];
                IoSliceMut::advance_slices(&mut rest, read);
                let offset = offset.map(|offset| offset + read as u64);
                let more = unblock_borrowed(|| waiting::read_now(fd, rest, offset));
                Ok(read + more.unwrap_or(0))
            }
            Ok(Attempt { .. }) => unblock_borrowed(|| waiting::read_now(fd, bufs, offset)),
            Err(error) if file::is_unsupported(&error) => {
                file_system.use_it(wanted, || waiting::read_now(fd, bufs, offset))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes all, as a blocking write does to a file, or what there is room for.
    fn write_bytes(
        &self,
        length: usize,
        write: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<usize> + Send,
    ) -> io::Result<usize> {
        park::spend_operation();
        let fd = self.fd();
        // In one piece: what an attempt took of an append would stand alone, and others could come
        // between it and the rest.
        let written = match self.nature {
            Nature::Local(file_system) => file_system.use_it(length, || write(fd)),
            Nature::Pipe | Nature::Elsewhere => unblock_borrowed(|| write(fd)),
        };
        Ok(written?)
    }

    /// Writes at `offset`.
    pub(crate) fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.write_bytes(buf.len(), |fd| rustix::io::pwrite(fd, buf, offset))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.io.get().as_fd()
    }
}

/// Whether a read may wait for others, rather than for a disk alone. What seems to be a regular file
/// may be one that the system, or another process, makes up as it goes.
///
/// May wait for the file system.
pub(crate) fn may_wait(fd: BorrowedFd<'_>) -> bool {
    poll::can_change(fd).unwrap_or(false)
}

/// What a read of a file has got without waiting.
struct Attempt {
    read: usize,
    /// There is nothing more to be had by waiting.
    whole: bool,
}

impl Attempt {
    fn make(
        fd: BorrowedFd<'_>,
        bufs: &mut [IoSliceMut<'_>],
        offset: Option<u64>,
    ) -> io::Result<Attempt> {
        let some = |read| Attempt { read, whole: false };
        let all = |read| Attempt { read, whole: true };
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        let read = match file::read(fd, bufs, offset) {
            Err(error) if file::is_not_cached(&error) => return Ok(some(0)),
            read => read?,
        };
        if read == 0 || read == wanted {
            return Ok(all(read));
        }
        // Either it ends here, or the rest is not in memory.
        let mut rest = slices(bufs);
        let mut rest = &mut rest[..];
        IoSliceMut::advance_slices(&mut rest, read);
        let offset = offset.map(|offset| offset + read as u64);
        match file::read(fd, rest, offset) {
            Err(error) if file::is_not_cached(&error) => Ok(some(read)),
            more => Ok(all(read + more.unwrap_or(0))),
        }
    }
}

fn slices<'a>(bufs: &'a mut [IoSliceMut<'_>]) -> Vec<IoSliceMut<'a>> {
    bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect()
}

impl<T: AsFd + Sync> Read for AnyFile<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_at(None, bufs)
    }
}

impl<T: AsFd + Sync> Write for AnyFile<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.nature {
            Nature::Pipe => Pipe(self.io).write(buf),
            _ => self.write_bytes(buf.len(), |fd| rustix::io::write(fd, buf)),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.nature {
            Nature::Pipe => Pipe(self.io).write_vectored(bufs),
            _ => {
                let length = bufs.iter().map(|buf| buf.len()).sum();
                self.write_bytes(length, |fd| rustix::io::writev(fd, bufs))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
