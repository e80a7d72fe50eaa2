//! Asking the kernel for the present state of descriptors, and blocking the OS thread for it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{FdSetElement, PollFd, Timespec, epoll, fd_set_insert, fd_set_num_elements};
use rustix::fs::FileType;
use rustix::io::{Errno, retry_on_intr};

/// Takes note of the state of `fds`; returns how many have something to tell.
pub(crate) fn look(fds: &mut [PollFd<'_>]) -> io::Result<usize> {
    let at_once = Timespec::default();
    Ok(retry_on_intr(|| rustix::event::poll(fds, Some(&at_once)))?)
}

/// Blocks the calling OS thread until one of `fds` has something to tell, a signal has come, or
/// `timeout` has passed.
pub(crate) fn block(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    uninterrupted(rustix::event::poll(fds, timespec(timeout).as_ref()))
}

/// Blocks the calling OS thread until one of `sets` has a descriptor that is ready for reading,
/// for writing or exceptionally, a signal has come, or `timeout` has passed.
///
/// Unlike with `poll`, a hang-up is nothing to those who do not want to read.
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
    // SAFETY: the descriptors are borrowed, so they are open; and each set was made long enough
    // for all of them.
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

/// Whether `fd` tells when its state changes. A regular file, for one, does not: it is always
/// ready.
///
/// To be asked of what seems to be always ready.
pub(crate) fn can_change(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if !matches!(
        kind,
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice
    ) {
        return Ok(true);
    }
    // Some of /proc and /sys does.
    let probe = match epoll::create(epoll::CreateFlags::CLOEXEC) {
        // Without a descriptor for the question, the answer that refuses nothing.
        Err(Errno::MFILE | Errno::NFILE) => return Ok(true),
        probe => probe?,
    };
    let flags = epoll::EventFlags::empty();
    match epoll::add(&probe, fd, epoll::EventData::new_u64(0), flags) {
        Err(Errno::PERM) => Ok(false),
        done => Ok(done.map(|()| true)?),
    }
}

fn uninterrupted<T>(done: rustix::io::Result<T>) -> io::Result<()> {
    match done {
        Err(Errno::INTR) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// None, which is for ever, where the kernel cannot count that far.
fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    Timespec::try_from(timeout?).ok()
}
