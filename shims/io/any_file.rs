//! Reading and writing descriptors of any kind.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::pipe::Pipe;
use super::waiting;
use crate::park;
use crate::pool::unblock_borrowed;
use crate::reactor::Descriptor;
use crate::shims::fs::file_system::{AT_ONCE, FileSystem, Nature};
use crate::sys::{file, poll};

/// A descriptor that may lead to a regular file, a pipe, a terminal or a device, for a coroutine.
///
/// The coroutine itself reads what is in memory, and does most writes to a local file system. Other
/// operations on regular files, which cannot be polled, are jobs of the pool. Such a job borrows the
/// caller's buffers, so the caller is not interrupted meanwhile. A read that may wait for another process
/// has buffers of its own, and its caller can be interrupted.
pub(crate) struct AnyFile<'a, T: AsFd + Sync> {
    io: &'a Descriptor<T>,
    nature: Nature,
    /// Whether other readers may use the same cursor at the same time. Each reader must then get bytes
    /// that no other reader gets.
    shared: bool,
}

impl<'a, T: AsFd + Sync> AnyFile<'a, T> {
    pub(crate) fn new(io: &'a Descriptor<T>, nature: Nature, shared: bool) -> AnyFile<'a, T> {
        AnyFile { io, nature, shared }
    }

    /// Reads at `offset`, or at the cursor if there is no `offset`. From a regular file, reads as many
    /// bytes as asked for, or up to the end of the file.
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
        // The file system answers `may_wait`, which can take long, too.
        let read = unblock_borrowed(|| match may_wait(fd) {
            true => None,
            false => Some(waiting::read_now(fd, bufs, offset)),
        });
        read.unwrap_or_else(|| waiting::read(fd, bufs, offset))
    }

    /// Reads a file of a local file system.
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
        // An attempt that gets a part moves the cursor. If the cursor is shared, another reader could
        // then read the rest. An attempt at the cursor's offset does not move the cursor, and shows
        // whether all bytes are in memory.
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

    /// Calls `write` where that may block: here if the file system is quick, otherwise on the pool.
    pub(crate) fn write_bytes<R: Send>(
        &self,
        length: usize,
        write: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<R> + Send,
    ) -> io::Result<R> {
        park::spend_operation();
        let fd = self.fd();
        // Writes in one call. After an attempt that took a part of an append, another writer could write
        // before the rest.
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

/// Whether a read may wait for another process, and not only for a disk. The kernel or another process may
/// make up the content of an apparently regular file on each read.
///
/// May wait for the file system, so must not be called on a worker.
pub(crate) fn may_wait(fd: BorrowedFd<'_>) -> bool {
    poll::can_change(fd).unwrap_or(false)
}

/// The result of a read that did not wait for the disk.
struct Attempt {
    read: usize,
    /// Whether waiting would give no more bytes.
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
        // Either the file ends here, or the rest is not in memory.
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
