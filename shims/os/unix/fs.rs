//! [`std::os::unix::fs`], but functions that may wait for a disk park the coroutine.
//!
//! The traits are std's own. The types of the shims implement them.
#![forbid(unsafe_code)]

pub use ::std::os::unix::fs::*;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs;
use std::path::Path;

use crate::pool::unblock_borrowed;

/// Like [`std::os::unix::fs::symlink`].
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    let (original, link) = (original.as_ref(), link.as_ref());
    unblock_borrowed(|| fs::symlink(original, link))
}

/// Like [`std::os::unix::fs::chown`].
pub fn chown<P: AsRef<Path>>(dir: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let dir = dir.as_ref();
    unblock_borrowed(|| fs::chown(dir, uid, gid))
}

/// Like [`std::os::unix::fs::fchown`].
pub fn fchown<F: AsFd>(fd: F, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let fd = fd.as_fd();
    unblock_borrowed(|| fs::fchown(fd, uid, gid))
}

/// Like [`std::os::unix::fs::lchown`].
pub fn lchown<P: AsRef<Path>>(dir: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let dir = dir.as_ref();
    unblock_borrowed(|| fs::lchown(dir, uid, gid))
}
