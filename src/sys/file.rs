//! One attempt at an operation on a file or pipe, that does not block; and what can be told of files
//! from memory alone.
//!
//! Files and pipes know no `MSG_DONTWAIT`, but many know `RWF_NOWAIT`: regular files, for what the system has in
//! memory; pipes without a name, since Linux 6.4. Pipes that do not are read by a `vmsplice`, which
//! knows `SPLICE_F_NONBLOCK`.

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

/// Where the descriptor stands: as an offset, it would be negative.
const HERE: u64 = u64::MAX;

/// Reads at `offset`, or where the descriptor stands. Of a regular file, this may be a part of what
/// a blocking read would give.
pub(crate) fn read(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    offset: Option<u64>,
) -> io::Result<usize> {
    let bufs = at_most_iov_max_mut(bufs);
    let offset = match offset {
        Some(offset) if i64::try_from(offset).is_err() => return Err(Errno::INVAL.into()),
        Some(offset) => offset,
        None => HERE,
    };
    Ok(rustix::io::preadv2(
        fd,
        bufs,
        offset,
        ReadWriteFlags::NOWAIT,
    )?)
}

/// Whether an attempt has failed because it might block.
pub(crate) fn would_block(error: &io::Error) -> bool {
    socket::would_block(error) || is_unsupported(error)
}

/// Whether an attempt has failed because what it wanted is not in memory.
pub(crate) fn is_not_cached(error: &io::Error) -> bool {
    socket::would_block(error)
}

/// Whether an attempt has failed because the kernel knows none on this descriptor.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// What the kernel tells of an open file without asking its file system.
pub(crate) struct Identity {
    pub(crate) kind: FileType,
    /// The mount that it was opened through: a number that no other mount has, before or after. Linux
    /// tells it since 6.8.
    pub(crate) mount: Option<u64>,
}

impl Identity {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> io::Result<Identity> {
        // STATX_MNT_ID_UNIQUE
        let unique = StatxFlags::from_bits_retain(0x4000);
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let Ok(told) = rustix::fs::statx(fd, c"", flags, unique) else {
            // It is not open, or the call is forbidden.
            let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
            return Ok(Identity { kind, mount: None });
        };
        let is_told = StatxFlags::from_bits_retain(told.stx_mask).contains(unique);
        Ok(Identity {
            kind: FileType::from_raw_mode(told.stx_mode.into()),
            mount: is_told.then_some(told.stx_mnt_id),
        })
    }

    /// Whether a poll can wait for it.
    pub(crate) fn polls(&self) -> bool {
        // What is of no type (an eventfd, an inotify) polls.
        !matches!(
            self.kind,
            FileType::RegularFile | FileType::Directory | FileType::BlockDevice | FileType::Symlink
        )
    }
}

/// Opens what `path` leads to, if the kernel has all on the way in memory; through no mount but the
/// one that the path begins at, if it is to `stay` there.
///
/// # Errors
///
/// `WouldBlock`, if something is not in memory. And any other, if the kernel has no such call.
pub(crate) fn open_cached(path: &Path, flags: OFlags, stay: bool) -> rustix::io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::CACHED;
    resolve.set(ResolveFlags::NO_XDEV, stay);
    rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Reads from a pipe, a terminal or the like, where there is a way that never blocks.
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

/// Reads from a pipe that knows no `RWF_NOWAIT`, as a named one. `None` if it is no pipe, or open for
/// more than to read.
fn splice_from_pipe(
    fd: BorrowedFd<'_>,
    flags: OFlags,
    bufs: &mut [IoSliceMut<'_>],
) -> Option<io::Result<usize>> {
    if flags & OFlags::RWMODE != OFlags::RDONLY {
        return None;
    }
    let bufs = bufs.iter_mut();
    let bufs: Vec<_> = bufs.map(|buf| IoSliceRaw::from_slice_mut(buf)).collect();
    // SAFETY: the buffers are mutable, and borrowed for that. (No pipe keeps them, as a write end
    // would: this is none.)
    match unsafe { rustix::pipe::vmsplice(fd, &bufs, SpliceFlags::NONBLOCK) } {
        Ok(read) => Some(Ok(read)),
        Err(Errno::AGAIN) => Some(Err(Errno::AGAIN.into())),
        // It is no pipe, or the call is forbidden.
        Err(_) => None,
    }
}

/// Writes to a pipe, a terminal or the like, where there is a way that never blocks.
pub(crate) fn write_pipe(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = at_most_iov_max(bufs);
    match rustix::io::pwritev2(fd, bufs, HERE, ReadWriteFlags::NOWAIT).map_err(io::Error::from) {
        Err(error) if is_unsupported(&error) => {
            match rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) {
                true => Ok(rustix::io::writev(fd, bufs)?),
                false => Err(error),
            }
        }
        done => done,
    }
}

/// Whether a pipe, a terminal or the like has anything to read, or gives up by itself if not. Another
/// reader may be faster.
///
/// # Errors
///
/// `WouldBlock`, if not.
pub(crate) fn check_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match check_ready(fd, PollFlags::IN) {
        Err(error) if would_block(&error) && gives_up(fd) => Ok(()),
        done => done,
    }
}

/// Whether a read is over, with nothing, when nothing has come at once or within a time: so it is
/// with a terminal that was told that no byte is enough.
fn gives_up(fd: BorrowedFd<'_>) -> bool {
    termios::tcgetattr(fd).is_ok_and(|modes| {
        let enough = modes.special_codes[SpecialCodeIndex::VMIN];
        enough == 0 && !modes.local_modes.contains(LocalModes::ICANON)
    })
}

/// Whether a pipe, a terminal or the like takes anything, as far as that can be told.
///
/// # Errors
///
/// `WouldBlock`, if not.
pub(crate) fn check_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match check_ready(fd, PollFlags::OUT) {
        // The poll of a device may tell when there is something to read, and no more.
        Err(error) if would_block(&error) && is_device(fd)? && !termios::isatty(fd) => Ok(()),
        done => done,
    }
}

fn is_device(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(Identity::of(fd)?.kind == FileType::CharacterDevice)
}

fn check_ready(fd: BorrowedFd<'_>, interest: PollFlags) -> io::Result<()> {
    match poll::look(&mut [PollFd::from_borrowed_fd(fd, interest)])? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
