//! Reads and writes that may wait for another process, on descriptors that cannot be polled.
//!
//! Each is a waiting job of the pool, with a descriptor and buffers of its own. The caller can therefore
//! be interrupted: the job then goes on, and what the job reads is lost. If no descriptor can be had, the
//! job borrows the caller's descriptor and buffers, and the caller is not interrupted.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use crate::pool::{unblock_borrowed, unblock_operation};

/// Reads at `offset`, or at the cursor if there is no `offset`.
///
/// # Unwinding
///
/// An interruption point.
pub(super) fn read(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    offset: Option<u64>,
) -> io::Result<usize> {
    let Ok(own) = fd.try_clone_to_owned() else {
        return unblock_borrowed(|| read_now(fd, bufs, offset));
    };
    let mut copies: Vec<_> = bufs.iter().map(|buf| vec![0; buf.len()]).collect();
    let (read, copies) = unblock_operation(move || {
        let mut bufs: Vec<_> = copies.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        (read_now(own.as_fd(), &mut bufs, offset), copies)
    })?;
    let read = read?;
    let mut left = read;
    for (buf, copy) in bufs.iter_mut().zip(&copies) {
        let length = left.min(buf.len());
        buf[..length].copy_from_slice(&copy[..length]);
        left -= length;
    }
    Ok(read)
}

/// Reads as `read` does, but blocks the calling thread.
pub(super) fn read_now(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    offset: Option<u64>,
) -> io::Result<usize> {
    Ok(match offset {
        Some(offset) => rustix::io::preadv(fd, bufs, offset)?,
        None => rustix::io::readv(fd, bufs)?,
    })
}

/// Writes all bytes, as a blocking write does, unless an error comes in between.
///
/// # Unwinding
///
/// An interruption point.
pub(super) fn write(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let Ok(own) = fd.try_clone_to_owned() else {
        return unblock_borrowed(|| Ok(rustix::io::writev(fd, bufs)?));
    };
    let copies: Vec<_> = bufs.iter().map(|buf| buf.to_vec()).collect();
    unblock_operation(move || {
        let bufs: Vec<_> = copies.iter().map(|buf| IoSlice::new(buf)).collect();
        Ok(rustix::io::writev(&own, &bufs)?)
    })?
}
