//! Looking up paths that the kernel has in memory.
//!
//! Each function returns `None` if it cannot tell without waiting. The caller then asks on the pool.
//!
//! A lookup first opens the path with `O_PATH`, which gives no access to the file and does not involve its
//! file system. The file is used further only if its file system is local.
#![forbid(unsafe_code)]

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::file_system::{FileSystem, Nature};
use crate::park;
use crate::pool::unblock_borrowed;
use crate::sys::file::{Identity, open_cached};
use crate::task;

/// Like [`std::fs::exists`].
pub(super) fn exists(path: &Path) -> Option<io::Result<bool>> {
    match look(path, OFlags::empty())? {
        Ok(_) => Some(Ok(true)),
        Err(Errno::NOENT) => Some(Ok(false)),
        Err(_) => None,
    }
}

/// Like [`std::fs::metadata`], or with `NOFOLLOW`, [`std::fs::symlink_metadata`].
pub(super) fn metadata(path: &Path, flags: OFlags) -> Option<io::Result<Metadata>> {
    let found = match look(path, flags)? {
        Ok(found) => found,
        Err(error) => return absent(error),
    };
    local(&found, &Identity::of(found.as_fd()).ok()?)?;
    Some(fs::File::from(found).metadata())
}

/// Opens an existing regular file. `flags` must not change the file.
pub(super) fn open(path: &Path, flags: OFlags) -> Option<io::Result<(fs::File, Nature)>> {
    // Opening anything but a regular file may have side effects, so the kind is looked up first.
    let found = match look(path, OFlags::empty())? {
        Ok(found) => found,
        Err(error) => return absent(error),
    };
    let identity = Identity::of(found.as_fd()).ok()?;
    let file_system = local(&found, &identity)?;
    if identity.kind != FileType::RegularFile {
        return None;
    }
    // Another process may have a lease on the file. With `NONBLOCK`, the open fails instead of waiting for
    // the lease to be given back.
    let attempt = flags | OFlags::NONBLOCK;
    let file = match file_system.is_beyond_mounts() {
        true => reopen(&found, attempt)?,
        // Opening the path again costs half as much as reopening the descriptor, but fails if the path
        // crosses mounts. The path may lead to another file by now, perhaps to a pipe: see `tell` below.
        false => match open_cached(path, attempt, true) {
            // `XDEV` says that the path crosses a mount. `AGAIN` says that the kernel would have to wait to
            // find out.
            Err(Errno::XDEV | Errno::AGAIN) => {
                file_system.note_beyond_mounts();
                reopen(&found, attempt)?
            }
            opened => opened.ok()?,
        },
    };
    // Fails for a pipe, which has no cursor.
    rustix::fs::tell(&file).ok()?;
    rustix::fs::fcntl_setfl(&file, flags & OFlags::APPEND).ok()?;
    Some(Ok((file.into(), Nature::Local(file_system))))
}

/// Opens `path` with `O_PATH`. Returns `None` on an OS thread, which may wait.
fn look(path: &Path, flags: OFlags) -> Option<rustix::io::Result<OwnedFd>> {
    if !task::on_coroutine() {
        return None;
    }
    park::spend_operation();
    Some(open_cached(path, flags | OFlags::PATH, false))
}

/// Opens the file that `found` leads to.
fn reopen(found: &OwnedFd, flags: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// The result of a lookup that has failed with `error`: known only if nothing is at the path.
fn absent<T>(error: Errno) -> Option<io::Result<T>> {
    (error == Errno::NOENT).then(|| Err(error.into()))
}

/// The file system of `found`, if that is local.
fn local(found: &OwnedFd, identity: &Identity) -> Option<&'static FileSystem> {
    let known = FileSystem::known(identity).or_else(|| {
        unblock_borrowed(|| FileSystem::get_to_know(found.as_fd()));
        FileSystem::known(identity)
    });
    known?
}
