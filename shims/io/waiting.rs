//! Reads and writes that may wait for others without a poll that tells for how long.
//!
//! They are jobs of the pool, of those that are waiting. So that who waits for one can be
//! interrupted, it has buffers and a descriptor of its own; it goes on then, and what it reads is
//! nobody's.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::blocking::unblock_waiting;

/// Reads at `offset`, or where the descriptor stands.
///
/// # Unwinding
///
/// An interruption point.
pub(super) fn read(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    offset: Option<u64>,
) -> io::Result<usize> {
    let fd = fd.try_clone_to_owned()?;
    let mut owned: Vec<_> = bufs.iter().map(|buf| vec![0; buf.len()]).collect();
    let (read, owned) = unblock_waiting(move || {
        let mut bufs: Vec<_> = owned.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        let read = match offset {
            Some(offset) => rustix::io::preadv(&fd, &mut bufs, offset),
            None => rustix::io::readv(&fd, &mut bufs),
        };
        (read, owned)
    });
    let mut left = read?;
    for (buf, owned) in bufs.iter_mut().zip(&owned) {
        let length = left.min(buf.len());
        buf[..length].copy_from_slice(&owned[..length]);
        left -= length;
    }
    Ok(read?)
}

/// Writes all, as a blocking write does, unless there is an error.
///
/// # Unwinding
///
/// An interruption point.
pub(super) fn write(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = fd.try_clone_to_owned()?;
    let owned: Vec<_> = bufs.iter().map(|buf| buf.to_vec()).collect();
    unblock_waiting(move || {
        let bufs: Vec<_> = owned.iter().map(|buf| IoSlice::new(buf)).collect();
        Ok(rustix::io::writev(&fd, &bufs)?)
    })
}
