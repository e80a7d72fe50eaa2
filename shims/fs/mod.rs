//! [`std::fs`], but operations that may wait for a disk or a peer park the coroutine.
//!
//! Regular files cannot be polled. An operation that may wait for a disk is a job of the blocking pool
//! (see [`unblock`](crate::unblock)). The job is short and borrows the caller's buffers, so the caller is
//! not interrupted meanwhile. A read that may wait for another process, because the kernel or that process
//! makes up the file's content, has a duplicate of the file and buffers of its own, and its caller can be
//! interrupted. Pipes, terminals and other devices that are opened by their path wait as those in
//! [`shims::io`](crate::shims::io) do.
//!
//! # What a worker does itself
//!
//! A coroutine does the following on its worker, which does nothing else meanwhile:
//!
//! - Look up a path, or open an existing file for reading or writing, if the kernel has each step of the
//!   path in memory (`RESOLVE_CACHED`) and the path leads to a local file system.
//! - Read at most 512 KiB of a file on a local file system, if the kernel has the bytes in memory
//!   (`RWF_NOWAIT`).
//! - Write at most 512 KiB to a file on a local file system. Also read as many bytes if the file system
//!   does not support `RWF_NOWAIT`, such as tmpfs and overlays.
//!
//! All other operations are jobs of the pool: creating, removing, renaming, truncating and syncing files,
//! changing permissions, and reading directories.
//!
//! Local file systems are bcachefs, Btrfs, ext2 to ext4, F2FS, XFS, ZFS, ramfs, tmpfs and overlays (the
//! layers of an overlay are assumed to be local). For all others, such as FUSE, network file systems, `/proc` and
//! `/sys`, every operation is a job of the pool, even closing a file. Before Linux 6.8 that is so for all
//! file systems, because older kernels cannot tell which file system a file is on without asking the file
//! system.
//!
//! # How long a worker can be blocked
//!
//! The first two kinds of operations never wait. An operation of the third kind may wait, and no system
//! call tells beforehand. If an operation takes more than a millisecond, the worker watches the following
//! ones. When another takes that long, and has waited, the pool takes over the operations on that file
//! system, for twenty times as long as the slow operation took.
//!
//! A disk that cannot keep up therefore blocks a worker twice, and afterwards for at most a twentieth of
//! the time. Each time lasts for one operation: up to 0.2 s when the kernel slows down a heavy writer, and
//! without limit if the disk hangs or the file system is frozen.
//!
//! The kernel lets one operation at a time use the cursor of a file. An operation of a worker at the
//! cursor of a local file therefore waits while a job of the pool uses the same cursor.
//!
//! # What is missing
//!
//! The methods of [`Path`] that ask the file system are std's own, and block the worker. `Arc<File>` does
//! not implement `Read`, `Write` and `Seek`, because only std could implement them; `&File` does.
#![forbid(unsafe_code)]

mod dir_builder;
mod file;
pub(crate) mod file_system;
mod lock;
mod lookup;
mod open_file;
mod open_options;
mod read_dir;

pub use ::std::fs::*;

pub use dir_builder::DirBuilder;
pub use file::File;
pub use open_options::OpenOptions;
pub use read_dir::{DirEntry, ReadDir};

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use self::file::Grow;
use self::file_system::Nature;
use crate::pool::{unblock_borrowed, unblock_operation};
use crate::shims::io::any_file;
use crate::shims::park_or_block::park_or_block;
use crate::task;

/// Like [`std::fs::read`].
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    read_all(path.as_ref())
}

/// Like [`std::fs::read_to_string`].
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    read_all(path.as_ref())
}

fn read_all<B: Grow>(path: &Path) -> io::Result<B> {
    let mut all = B::default();
    let file = if !task::on_coroutine() {
        File::open(path)?
    } else if let Some(opened) = lookup::open(path, OFlags::RDONLY) {
        let (file, nature) = opened?;
        File::new(file, nature)
    } else {
        // One job opens and reads the file. If the file must be waited for in another way, the job returns
        // the file.
        let read = unblock_on([path.to_owned()], |[path]| {
            let mut file = fs::File::open(path)?;
            let nature = Nature::ask(file.as_fd());
            if matches!(nature, Nature::Pipe) || any_file::may_wait(file.as_fd()) {
                return io::Result::Ok(Err((file, nature)));
            }
            let mut all = B::default();
            B::read_all(&mut file, &mut all)?;
            Ok(Ok(all))
        })?;
        match read {
            Ok(all) => return Ok(all),
            Err((file, nature)) => File::new(file, nature),
        }
    };
    file.read_all(&mut all, false)?;
    Ok(all)
}

/// Like [`std::fs::write`].
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}

/// Like [`std::fs::copy`].
///
/// # Unwinding
///
/// An interruption point, because one of the two may be a pipe. The copying goes on.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    unblock_on([from, to], |[from, to]| fs::copy(from, to))
}

/// Runs `job`, which opens the files at `paths`, on the pool. If opening one may wait for another process,
/// the job counts as a waiting one.
///
/// # Unwinding
///
/// An interruption point. The job goes on.
fn unblock_on<T: Send + 'static, const N: usize>(
    paths: [PathBuf; N],
    job: impl FnOnce([PathBuf; N]) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    park_or_block(
        (paths, job),
        |(paths, job)| {
            let done = crate::unblock(move || match paths.iter().any(|path| may_wait(path)) {
                true => Err((paths, job)),
                false => Ok(job(paths)),
            });
            done.unwrap_or_else(|(paths, job)| unblock_operation(move || job(paths))?)
        },
        |(paths, job)| job(paths),
    )
}

/// Whether opening `path` may wait for another process, such as one that opens the other end of a pipe.
fn may_wait(path: &Path) -> bool {
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| !(kind.is_file() || kind.is_dir() || kind.is_block_device()))
}

/// Defines functions of one path.
macro_rules! on_a_path {
    ($($name:ident -> $result:ty),* $(,)?) => {$(
        #[doc = concat!("Like [`std::fs::", stringify!($name), "`].")]
        pub fn $name<P: AsRef<Path>>(path: P) -> io::Result<$result> {
            let path = path.as_ref();
            unblock_borrowed(|| fs::$name(path))
        }
    )*};
}

/// Defines functions of two paths.
macro_rules! on_two_paths {
    ($($name:ident($first:ident, $second:ident)),* $(,)?) => {$(
        #[doc = concat!("Like [`std::fs::", stringify!($name), "`].")]
        pub fn $name<P: AsRef<Path>, Q: AsRef<Path>>($first: P, $second: Q) -> io::Result<()> {
            let ($first, $second) = ($first.as_ref(), $second.as_ref());
            unblock_borrowed(|| fs::$name($first, $second))
        }
    )*};
}

on_a_path! {
    canonicalize -> PathBuf,
    create_dir -> (),
    create_dir_all -> (),
    read_link -> PathBuf,
    remove_dir -> (),
    remove_dir_all -> (),
    remove_file -> (),
}

/// Defines functions of one path. `$lookup` may return the result without the pool.
macro_rules! on_a_path_in_memory {
    ($($name:ident -> $result:ty: |$path:ident| $lookup:expr;)*) => {$(
        #[doc = concat!("Like [`std::fs::", stringify!($name), "`].")]
        pub fn $name<P: AsRef<Path>>(path: P) -> io::Result<$result> {
            let $path = path.as_ref();
            $lookup.unwrap_or_else(|| unblock_borrowed(|| fs::$name($path)))
        }
    )*};
}

on_a_path_in_memory! {
    exists -> bool: |path| lookup::exists(path);
    metadata -> Metadata: |path| lookup::metadata(path, OFlags::empty());
    symlink_metadata -> Metadata: |path| lookup::metadata(path, OFlags::NOFOLLOW);
}

on_two_paths! {
    hard_link(original, link),
    rename(from, to),
}

/// Like [`std::fs::soft_link`].
#[deprecated(note = "replaced by `shims::os::unix::fs::symlink`")]
pub fn soft_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    crate::shims::os::unix::fs::symlink(original, link)
}

/// Like [`std::fs::read_dir`].
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let path = path.as_ref();
    unblock_borrowed(|| fs::read_dir(path)).map(ReadDir::new)
}

/// Like [`std::fs::set_permissions`].
pub fn set_permissions<P: AsRef<Path>>(path: P, perm: Permissions) -> io::Result<()> {
    let path = path.as_ref();
    unblock_borrowed(|| fs::set_permissions(path, perm))
}
