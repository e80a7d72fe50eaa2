//! The present state of descriptors, and waits for them that block the OS thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{FdSetElement, PollFd, Timespec, epoll, fd_set_insert, fd_set_num_elements};
use rustix::fs::FileType;
use rustix::io::{Errno, retry_on_intr};

/// Looks at the present state of `fds`, without blocking. Their `revents` are set. Returns how many
/// of them have any.
///
/// # Errors
///
/// The kernel's: `InvalidInput` for more entries than the process may have descriptors
/// (`RLIMIT_NOFILE`). A descriptor that is not open is no error, but has the event `NVAL`.
pub(crate) fn look(fds: &mut [PollFd<'_>]) -> io::Result<usize> {
    let at_once = Timespec::default();
    Ok(retry_on_intr(|| rustix::event::poll(fds, Some(&at_once)))?)
}

/// Blocks the calling OS thread until one of `fds` has an event, a signal was handled, or `timeout`
/// has passed. The caller looks which it was.
///
/// # Errors
///
/// Those of [`look`].
pub(crate) fn block(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    uninterrupted(rustix::event::poll(fds, timespec(timeout).as_ref()))
}

/// Blocks the calling OS thread until a descriptor of the first set is readable, one of the second
/// is writable or one of the third has an exceptional condition, a signal was handled, or `timeout`
/// has passed. The caller looks which it was.
///
/// Unlike [`block`], which a hang-up always ends, this waits on if a descriptor that has hung up is
/// only in the second or third set.
///
/// # Errors
///
/// The kernel's.
pub(crate) fn block_in_select(
    sets: [&[BorrowedFd<'_>]; 3],
    timeout: Option<Duration>,
) -> io::Result<()> {
    let end = sets.iter().copied().flatten().map(|fd| fd.as_raw_fd() + 1);
    let end = end.max().unwrap_or(0);
    let [mut read, mut write, mut except] = sets.map(|fds| {
        let mut set = vec![FdSetElement::default(); fd_set_num_elements(fds.len(), end)];
        for fd in fds {
            fd_set_insert(&mut set, fd.as_raw_fd());
        }
        set
    });
    // SAFETY: the descriptors are borrowed, so they are open. `end` is greater than each of their
    // numbers, and each set has room for all numbers below `end`.
    let done = unsafe {
        rustix::event::select(
            end,
            Some(&mut read),
            Some(&mut write),
            Some(&mut except),
            timespec(timeout).as_ref(),
        )
    };
    uninterrupted(done)
}

/// Whether a poll can wait until the readiness of `fd` changes. It cannot for a regular file, for
/// instance, which is always ready.
///
/// Costs an epoll instance for a regular file, a directory or a block device. So callers ask only
/// about descriptors that poll(2) reports as always ready. May block while the file system, if it is
/// one on a network, answers fstat(2).
///
/// # Errors
///
/// The kernel's: the descriptor is not open.
pub(crate) fn can_change(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if !matches!(
        kind,
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice
    ) {
        return Ok(true);
    }
    // Of regular files, some in /proc and /sys can be polled. epoll knows: it refuses the others.
    let probe = match epoll::create(epoll::CreateFlags::CLOEXEC) {
        // Out of descriptors, so the question cannot be asked. `true` keeps the caller from
        // refusing a descriptor that it may be able to wait for.
        Err(Errno::MFILE | Errno::NFILE) => return Ok(true),
        probe => probe?,
    };
    let flags = epoll::EventFlags::empty();
    match epoll::add(&probe, fd, epoll::EventData::new_u64(0), flags) {
        Err(Errno::PERM) => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

/// Turns an interruption by a signal into an ordinary return.
fn uninterrupted<T>(done: rustix::io::Result<T>) -> io::Result<()> {
    match done {
        Err(Errno::INTR) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// The timeout as the kernel takes it. `None` waits for ever, also for a timeout that is longer than
/// the kernel can count.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    Timespec::try_from(timeout?).ok()
}
