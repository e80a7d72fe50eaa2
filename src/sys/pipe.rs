//! One attempt at an operation on a pipe, that never blocks.
//!
//! Pipes know no `MSG_DONTWAIT`, but since Linux 6.4 `RWF_NOWAIT`. Before that, one that a poll finds
//! ready takes or gives a page without blocking; unless others use it at the same time.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, ReadWriteFlags};

use super::socket::IOV_MAX;

/// Not at an offset, but where the descriptor stands.
const HERE: u64 = u64::MAX;

pub(crate) fn read(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let len = bufs.len().min(IOV_MAX);
    let bufs = &mut bufs[..len];
    match rustix::io::preadv2(fd, bufs, HERE, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            check_ready(fd, PollFlags::IN)?;
            Ok(rustix::io::readv(fd, bufs)?)
        }
        done => Ok(done?),
    }
}

pub(crate) fn write(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(IOV_MAX)];
    match rustix::io::pwritev2(fd, bufs, HERE, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            check_ready(fd, PollFlags::OUT)?;
            let first = bufs.iter().find(|buf| !buf.is_empty());
            let first = first.map_or(&[][..], |buf| &buf[..buf.len().min(libc::PIPE_BUF)]);
            Ok(rustix::io::write(fd, first)?)
        }
        done => Ok(done?),
    }
}

fn check_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> io::Result<()> {
    match rustix::event::poll(
        &mut [PollFd::from_borrowed_fd(fd, interest)],
        Some(&Timespec::default()),
    )? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
