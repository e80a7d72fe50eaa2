//! [`std::fs`], where what may wait for a disk, or for a peer, parks the coroutine.
//!
//! Regular files cannot be polled, so what waits for one is a job of the blocking pool (see
//! [`unblock`](crate::unblock)), during which the caller cannot be interrupted: it is short, and
//! borrows the caller's buffers. Only where a read may wait for others, of a file that the system or
//! another process makes up, it has a duplicate of the file and buffers of its own, and the caller is
//! interrupted. Pipes, terminals and other devices that are opened by their path wait as
//! [`shims::io`](crate::shims::io)'s do.
//!
//! # What is done without the pool, and how long that can take
//!
//! A coroutine does these where it is, and its worker does nothing else meanwhile:
//!
//! - it looks at, and opens to read or write what is there, a path of which the system has every step
//!   in memory (`RESOLVE_CACHED`), if it leads to a local file system;
//! - it reads at most 512 KiB of a file of one, if the system has them in memory (`RWF_NOWAIT`);
//! - it writes at most 512 KiB to a file of one; and reads as much where the file system knows no
//!   `RWF_NOWAIT`, as tmpfs and overlays. Of these, no system call tells beforehand whether they wait.
//!   If one takes more than a millisecond, the next that does, and has waited, leaves the file system to
//!   the pool for twenty times as long as that took.
//!
//! The first two wait for nothing. Of the third, a disk that cannot keep up stops a worker twice before
//! the pool takes over, and then again for at most a twentieth of the time; each time for one operation,
//! which is what the kernel makes a write wait: up to 0.2 s to slow down who writes too much, and for as
//! long as it lasts if the disk hangs or the file system is frozen. And an operation at the cursor of a
//! local file waits in place for one at the same cursor that the pool is at: the kernel lets one at a
//! time do that.
//!
//! Local are bcachefs, Btrfs, ext2 to ext4, F2FS, XFS, ZFS, ramfs, tmpfs, and overlays, whose layers are
//! taken for local. All others, as FUSE, network file systems, `/proc` and `/sys`, stop no worker at
//! all: whatever asks them is a job of the pool, also to close one of their files. So it is with every
//! file system before Linux 6.8, which does not tell what a file is on without asking that.
//!
//! What changes more than the content of a file (to create, remove, rename, truncate or sync it, or to
//! change its permissions) goes to the pool, and so do the entries of directories.
//!
//! # What is not there
//!
//! What stays std's own, and blocks the worker: the methods of [`Path`] that ask the
//! file system. What cannot be had: `Read`, `Write` and `Seek` of an `Arc<File>`, which are std's to
//! implement; `&File` has them.

mod dir_builder;
mod file;
pub(crate) mod file_system;
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
use crate::pool::{unblock_borrowed, unblock_waiting};
use crate::shims::io::any_file;
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
        // In one job, but for what must be waited for in another way.
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
/// An interruption point: one of the two may be a pipe. The copying goes on.
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    unblock_on([from, to], |[from, to]| fs::copy(from, to))
}

/// Has the pool open the files at `paths`: one of those that are waiting, if they may be somebody's
/// to open from the other side.
///
/// # Unwinding
///
/// An interruption point. The job goes on.
fn unblock_on<T: Send + 'static, const N: usize>(
    paths: [PathBuf; N],
    job: impl FnOnce([PathBuf; N]) -> T + Send + 'static,
) -> T {
    if !task::on_coroutine() {
        return job(paths);
    }
    let done = crate::unblock(move || match paths.iter().any(|path| may_wait(path)) {
        true => Err((paths, job)),
        false => Ok(job(paths)),
    });
    done.unwrap_or_else(|(paths, job)| unblock_waiting(move || job(paths)))
}

/// Whether opening what is at `path` may wait for others, as for the other end of a pipe.
fn may_wait(path: &Path) -> bool {
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| !(kind.is_file() || kind.is_dir() || kind.is_block_device()))
}

/// Functions of one path.
macro_rules! on_a_path {
    ($($name:ident -> $result:ty),* $(,)?) => {$(
        #[doc = concat!("Like [`std::fs::", stringify!($name), "`].")]
        pub fn $name<P: AsRef<Path>>(path: P) -> io::Result<$result> {
            let path = path.as_ref();
            unblock_borrowed(|| fs::$name(path))
        }
    )*};
}

/// Functions of two paths.
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

/// Functions of one path, of which `$lookup` may know the result.
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
