//! What paths lead to, where the kernel has that in memory.
//!
//! Each function returns `None` where it cannot tell: the caller then asks on the pool. A file is
//! looked at by a descriptor that gives no access to it, which no file system is asked for, before it
//! is used in a way that its file system takes part in.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;

use super::file_system::{FileSystem, Nature};
use crate::blocking::unblock_borrowed;
use crate::park;
use crate::sys::file::{Identity, open_cached};
use crate::task;

/// Like [`std::fs::exists`].
pub(super) fn exists(path: &Path) -> Option<io::Result<bool>> {
    park::spend_operation();
    match look(CWD, path.as_os_str().as_bytes(), OFlags::empty(), false)? {
        Ok(_) => Some(Ok(true)),
        Err(Errno::NOENT) => Some(Ok(false)),
        Err(_) => None,
    }
}

/// Like [`std::fs::metadata`], or with `NOFOLLOW`, [`std::fs::symlink_metadata`].
pub(super) fn metadata(path: &Path, flags: OFlags) -> Option<io::Result<Metadata>> {
    park::spend_operation();
    let found = match look(CWD, path.as_os_str().as_bytes(), flags, false)? {
        Ok(found) => found,
        Err(error) => return absent(error),
    };
    local(&found, &Identity::of(found.as_fd()).ok()?)?;
    Some(fs::File::from(found).metadata())
}

/// Opens a regular file that is there; `flags` are of those that change nothing by that.
pub(super) fn open(path: &Path, flags: OFlags) -> Option<io::Result<(fs::File, Nature)>> {
    park::spend_operation();
    let (dir, name) = split(path)?;
    let parent;
    let dir = match dir {
        None => CWD,
        Some(dir) => match look(CWD, dir, OFlags::DIRECTORY, false)? {
            Ok(found) => {
                parent = found;
                parent.as_fd()
            }
            Err(error) => return absent(error),
        },
    };
    // Opening anything but a regular file may have effects.
    let found = match look(dir, name, OFlags::empty(), true)? {
        Ok(found) => found,
        Err(error) => return absent(error),
    };
    let identity = Identity::of(found.as_fd()).ok()?;
    let file_system = local(&found, &identity)?;
    if identity.kind != FileType::RegularFile {
        return None;
    }
    // The name may lead to something else by now: not to another mount, but to a pipe, which must not
    // be waited for, and has no position. Nor is a lease that somebody has to give back.
    let file = open_cached(dir, name, flags | OFlags::NONBLOCK, true).ok()?;
    rustix::fs::tell(&file).ok()?;
    rustix::fs::fcntl_setfl(&file, flags & OFlags::APPEND).ok()?;
    Some(Ok((file.into(), Nature::Local(file_system))))
}

/// Opens what is at `path` without access to it.
fn look(
    dir: impl AsFd,
    path: &[u8],
    flags: OFlags,
    stay: bool,
) -> Option<rustix::io::Result<OwnedFd>> {
    task::on_coroutine().then(|| open_cached(dir, path, flags | OFlags::PATH, stay))
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

/// Where to look for the last name of a path, and that.
fn split(path: &Path) -> Option<(Option<&[u8]>, &[u8])> {
    let path = path.as_os_str().as_bytes();
    let (dir, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (Some(&path[..=slash]), &path[slash + 1..]),
        None => (None, path),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((dir, name))
}
