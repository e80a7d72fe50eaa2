//! One attempt at an operation on a file or a pipe, which does not block; and what the kernel can tell
//! of a file without waiting for a disk or a network.
//!
//! read(2) and write(2) have no `MSG_DONTWAIT`. The ways not to block are, in the order in which they
//! are tried:
//!
//! - `RWF_NOWAIT` of preadv2(2) and pwritev2(2): regular files know it, for what the page cache holds;
//!   pipes made by pipe(2) know it since Linux 6.4.
//! - read(2) or write(2) themselves, if the descriptor is in non-blocking mode anyway.
//! - `SPLICE_F_NONBLOCK` of vmsplice(2), to read from a pipe that does not know `RWF_NOWAIT`, such as a
//!   named one.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::{IoSliceRaw, SpliceFlags};
use rustix::termios::{self, LocalModes, SpecialCodeIndex};

use super::poll;
use super::socket::{self, at_most_iov_max, at_most_iov_max_mut};

/// The offset that stands for the descriptor's own position: -1, see preadv2(2).
const OWN_POSITION: u64 = u64::MAX;

/// Reads at `offset`, or at the descriptor's own position. May read less from a regular file than a
/// blocking read would: only as much as the page cache holds.
///
/// # Errors
///
/// The kernel's. [`would_block`] tells whether a blocking read has to take over. `InvalidInput`, if
/// `offset` is over `i64::MAX`.
pub(crate) fn read(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    offset: Option<u64>,
) -> io::Result<usize> {
    let bufs = at_most_iov_max_mut(bufs);
    let offset = match offset {
        Some(offset) if i64::try_from(offset).is_err() => return Err(Errno::INVAL.into()),
        Some(offset) => offset,
        None => OWN_POSITION,
    };
    Ok(rustix::io::preadv2(
        fd,
        bufs,
        offset,
        ReadWriteFlags::NOWAIT,
    )?)
}

/// Whether an attempt has failed because the operation would block, or because the kernel knows no
/// attempt on this descriptor.
pub(crate) fn would_block(error: &io::Error) -> bool {
    socket::would_block(error) || is_unsupported(error)
}

/// Whether an attempt has failed because the page cache does not hold what it asked for.
pub(crate) fn is_not_cached(error: &io::Error) -> bool {
    socket::would_block(error)
}

/// Whether an attempt has failed because the kernel knows no attempt on this descriptor.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// What the kernel tells of an open file without asking its file system, which may be one on a network
/// and stall.
pub(crate) struct Identity {
    pub(crate) kind: FileType,
    /// The number of the mount that the file was opened through. No other mount has it, even after this
    /// one is gone. `None` before Linux 6.8, or if statx(2) is forbidden.
    pub(crate) mount: Option<u64>,
}

impl Identity {
    /// The identity of an open file.
    ///
    /// # Errors
    ///
    /// The kernel's: `fd` is not open.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        // STATX_MNT_ID_UNIQUE, which rustix has no name for.
        let unique = StatxFlags::from_bits_retain(0x4000);
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let Ok(told) = rustix::fs::statx(fd, c"", flags, unique) else {
            // The descriptor is not open, which fstat reports; or a sandbox forbids statx.
            let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
            return Ok(Identity { kind, mount: None });
        };
        let is_told = StatxFlags::from_bits_retain(told.stx_mask).contains(unique);
        Ok(Identity {
            kind: FileType::from_raw_mode(told.stx_mode.into()),
            mount: is_told.then_some(told.stx_mnt_id),
        })
    }

    /// Whether the file is of a type that a poll can wait for.
    pub(crate) fn polls(&self) -> bool {
        // Descriptors of no type, such as an eventfd or an inotify instance, can be polled.
        !matches!(
            self.kind,
            FileType::RegularFile | FileType::Directory | FileType::BlockDevice | FileType::Symlink
        )
    }
}

/// Opens the file at `path` if the whole lookup can be answered from the dentry cache
/// (`RESOLVE_CACHED` of openat2(2), since Linux 5.12). With `stay`, the lookup may not leave the mount
/// that it begins in.
///
/// # Errors
///
/// `AGAIN`, if a part of the path is not in the cache. `XDEV`, if `stay` is set and the path leads to
/// another mount. Any other error may also mean that the kernel does not have the call.
pub(crate) fn open_cached(path: &Path, flags: OFlags, stay: bool) -> rustix::io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::CACHED;
    resolve.set(ResolveFlags::NO_XDEV, stay);
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Reads from a pipe, a terminal or the like, if there is a way that never blocks.
///
/// # Errors
///
/// The kernel's. [`is_unsupported`], if there is no such way; [`would_block`], if there is nothing to
/// read.
pub(crate) fn read_pipe(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    match read(fd, bufs, None) {
        Err(error) if is_unsupported(&error) => {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            if flags.contains(OFlags::NONBLOCK) {
                return Ok(rustix::io::readv(fd, bufs)?);
            }
            splice_from_pipe(fd, flags, bufs).unwrap_or(Err(error))
        }
        done => done,
    }
}

/// Reads from a pipe that does not know `RWF_NOWAIT`. `None`, if this is not possible: `fd` is not a
/// pipe, or is open for writing too, or a sandbox forbids the call.
fn splice_from_pipe(
    fd: BorrowedFd<'_>,
    flags: OFlags,
    bufs: &mut [IoSliceMut<'_>],
) -> Option<io::Result<usize>> {
    // With an end that can write, vmsplice would send the buffers instead of filling them.
    if flags & OFlags::RWMODE != OFlags::RDONLY {
        return None;
    }
    let bufs = bufs.iter_mut();
    let bufs: Vec<_> = bufs.map(|buf| IoSliceRaw::from_slice_mut(buf)).collect();
    // SAFETY: `fd` is open for reading only, so the call copies from the pipe into the buffers,
    // which are mutably borrowed, and does not keep them. (At a write end it would lend their pages
    // to the pipe.)
    match unsafe { rustix::pipe::vmsplice(fd, &bufs, SpliceFlags::NONBLOCK) } {
        Ok(read) => Some(Ok(read)),
        Err(Errno::AGAIN) => Some(Err(Errno::AGAIN.into())),
        // Not a pipe, or forbidden.
        Err(_) => None,
    }
}

/// Writes to a pipe, a terminal or the like, if there is a way that never blocks.
///
/// # Errors
///
/// The kernel's. [`is_unsupported`], if there is no such way; [`would_block`], if there is no room.
pub(crate) fn write_pipe(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = at_most_iov_max(bufs);
    match rustix::io::pwritev2(fd, bufs, OWN_POSITION, ReadWriteFlags::NOWAIT)
        .map_err(io::Error::from)
    {
        Err(error) if is_unsupported(&error) => {
            match rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) {
                true => Ok(rustix::io::writev(fd, bufs)?),
                false => Err(error),
            }
        }
        done => done,
    }
}

/// Checks that a blocking read from a pipe, a terminal or the like would return at once: because there
/// is something to read, or the end, or because the terminal is set not to wait. Another reader may
/// still be faster.
///
/// # Errors
///
/// `WouldBlock`, if the read would block. Otherwise the kernel's.
pub(crate) fn check_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match check_ready(fd, PollFlags::IN) {
        Err(error) if would_block(&error) && gives_up(fd) => Ok(()),
        done => done,
    }
}

/// Whether a read from `fd` returns with nothing if nothing comes, at once or within a time of the
/// terminal's own. A terminal does in non-canonical mode with VMIN = 0: see termios(3).
fn gives_up(fd: BorrowedFd<'_>) -> bool {
    termios::tcgetattr(fd).is_ok_and(|modes| {
        let least = modes.special_codes[SpecialCodeIndex::VMIN];
        least == 0 && !modes.local_modes.contains(LocalModes::ICANON)
    })
}

/// Checks that a pipe, a terminal or the like has room for a write, as far as a poll can tell.
///
/// # Errors
///
/// `WouldBlock`, if there is no room. Otherwise the kernel's.
pub(crate) fn check_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match check_ready(fd, PollFlags::OUT) {
        // Some devices report by poll only when they can be read. A write to those is tried, and
        // may block.
        Err(error) if would_block(&error) && is_device(fd)? && !termios::isatty(fd) => Ok(()),
        done => done,
    }
}

/// Whether `fd` is a character device.
fn is_device(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(Identity::of(fd)?.kind == FileType::CharacterDevice)
}

/// Fails with `WouldBlock` unless a poll reports any event for `fd`.
fn check_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> io::Result<()> {
    match poll::look(&mut [PollFd::from_borrowed_fd(fd, interest)])? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
