//! [`std::fs`], where what may wait for a disk, or for a peer, parks the coroutine.
//!
//! Regular files cannot be polled. What the system has in memory is read where the caller is, unless
//! others may read at the same cursor, through a `&File` or a clone: nobody's read is to come amid
//! that of another. Everything else is a job of the blocking pool (see
//! [`unblock`](crate::unblock)), during which the caller cannot be interrupted: it is short, and
//! borrows the caller's buffers. Only where a read may wait for others, of a file that the system or
//! another process makes up, it has its own, and is interrupted. Pipes, terminals and other devices
//! that are opened by their path wait as [`shims::io`](crate::shims::io)'s do.
//! What only looks at a [`Metadata`], or moves the cursor of a file, is done in place.
//!
//! What stays std's own, and blocks the worker: the methods of [`Path`] that ask the
//! file system. What cannot be had: `Read`, `Write` and `Seek` of an `Arc<File>`, which are std's to
//! implement; `&File` has them.

mod dir_builder;
mod file;
mod open_options;
mod read_dir;

pub use ::std::fs::*;

pub use dir_builder::DirBuilder;
pub use file::File;
pub use open_options::OpenOptions;
pub use read_dir::{DirEntry, ReadDir};

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::blocking::{unblock_borrowed, unblock_waiting};
use crate::task;

/// Like [`std::fs::read`].
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Like [`std::fs::read_to_string`].
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
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
    exists -> bool,
    metadata -> Metadata,
    read_link -> PathBuf,
    remove_dir -> (),
    remove_dir_all -> (),
    remove_file -> (),
    symlink_metadata -> Metadata,
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
