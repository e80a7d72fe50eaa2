//! What paths lead to, where the kernel has that in memory.
//!
//! Each function returns `None` where it cannot tell: the caller then asks on the pool. A file is
//! looked at by a descriptor that gives no access to it, which no file system is asked for, before it
//! is used in a way that its file system takes part in.

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

/// Opens a regular file that is there; `flags` are of those that change nothing by that.
pub(super) fn open(path: &Path, flags: OFlags) -> Option<io::Result<(fs::File, Nature)>> {
    // Opening anything but a regular file may have effects.
    let found = match look(path, OFlags::empty())? {
        Ok(found) => found,
        Err(error) => return absent(error),
    };
    let identity = Identity::of(found.as_fd()).ok()?;
    let file_system = local(&found, &identity)?;
    if identity.kind != FileType::RegularFile {
        return None;
    }
    // It may have a lease that somebody must first give back: that is not waited for here.
    let attempt = flags | OFlags::NONBLOCK;
    let file = match file_system.is_beyond_mounts() {
        true => reopen(&found, attempt)?,
        // Where no other mount can come in between, to go by the path again is half the price. The
        // path may lead to something else by now: to a pipe, say, which has no position.
        false => match open_cached(path, attempt, true) {
            // The kernel says the latter where it would have to wait to find out the former.
            Err(Errno::XDEV | Errno::AGAIN) => {
                file_system.note_beyond_mounts();
                reopen(&found, attempt)?
            }
            opened => opened.ok()?,
        },
    };
    rustix::fs::tell(&file).ok()?;
    rustix::fs::fcntl_setfl(&file, flags & OFlags::APPEND).ok()?;
    Some(Ok((file.into(), Nature::Local(file_system))))
}

/// Opens what is at `path` without access to it.
fn look(path: &Path, flags: OFlags) -> Option<rustix::io::Result<OwnedFd>> {
    if !task::on_coroutine() {
        return None;
    }
    park::spend_operation();
    Some(open_cached(path, flags | OFlags::PATH, false))
}

/// Opens the very file that was found.
fn reopen(found: &OwnedFd, flags: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// The result of what needs something there, when a look has failed.
fn absent<T>(error: Errno) -> Option<io::Result<T>> {
    (error == Errno::NOENT).then(|| Err(error.into()))
}

/// The file system of what was found, if it is local.
fn local(found: &OwnedFd, identity: &Identity) -> Option<&'static FileSystem> {
    let known = FileSystem::known(identity).or_else(|| {
        unblock_borrowed(|| FileSystem::get_to_know(found.as_fd()));
        FileSystem::known(identity)
    });
    known?
}
