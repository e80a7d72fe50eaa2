//! Waiting on any descriptor.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::{Interest, Readiness};
use crate::sys;
use crate::task::Deadline;

/// All states that help to tell whether a descriptor can be waited for.
const ALL: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::PRI)
    .union(PollFlags::RDHUP)
    .union(ALWAYS_READY);

/// The state that the kernel reports for files that never change their state.
const ALWAYS_READY: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::RDNORM)
    .union(PollFlags::WRNORM);

/// Waits until `fd` is ready for something in `interest`, and returns what it is ready for.
///
/// This works for every descriptor that `poll(2)` can wait on: sockets, pipes, terminals, eventfds,
/// timerfds, pidfds, inotify, and descriptors of C libraries. It parks the calling coroutine.
/// Off-coroutine, it blocks the OS thread.
///
/// Nothing is read or written, and the mode of the descriptor is not changed. So the operation that
/// follows may still block, if another reader or writer is faster.
///
/// A descriptor that is ready is reported even if `deadline` has passed. Any number of coroutines may
/// wait on one descriptor, for the same or for different states: here, in
/// [`shims::select`](crate::shims::select), and in operations of the [`shims`](crate::shims).
///
/// ```
/// use greenroom::{Interest, wait_fd};
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// greenroom::run(|| {
///     let (mut reader, mut writer) = std::io::pipe()?;
///     greenroom::spawn(move || writer.write_all(b"x"));
///
///     let ready = wait_fd(&reader, Interest::READABLE, None)?;
///     assert!(ready.is_readable() && !ready.is_error());
///     reader.read_exact(&mut [0])
/// })
/// # }
/// ```
///
/// # Errors
///
/// - [`TimedOut`](io::ErrorKind::TimedOut) when `deadline` has passed.
/// - [`Unsupported`](io::ErrorKind::Unsupported) for a regular file, a directory or a block device,
///   which
///   never change their state. Use [`unblock`](crate::unblock) to read them.
/// - `EBADF` if the descriptor is not open.
///
/// # Unwinding
///
/// An interruption point. A coroutine that unwinds from a panic gets an error instead of a wait.
pub fn wait_fd(
    fd: impl AsFd,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<Readiness> {
    let fd = fd.as_fd();
    let ready = super::wait_for(
        [(fd, interest)],
        deadline.map(Deadline::at),
        || look(fd, interest),
        |left| {
            let fd = PollFd::from_borrowed_fd(fd, interest.flags());
            sys::poll::block(&mut [fd], left)
        },
    );
    ready?.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Asks the kernel for the state of `fd`. Returns `None` if it is ready for nothing in `interest`.
pub(super) fn look(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Option<Readiness>> {
    let mut polled = [PollFd::from_borrowed_fd(fd, ALL)];
    sys::poll::look(&mut polled)?;
    let state = polled[0].revents();
    if state.contains(PollFlags::NVAL) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if state == ALWAYS_READY && !sys::poll::can_change(fd)? {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "regular files, directories and block devices cannot be waited for",
        ));
    }
    let ready = Readiness::of(state, interest);
    Ok((!ready.is_empty()).then_some(ready))
}
