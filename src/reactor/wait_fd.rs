//! Waiting on any descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::{Interest, Readiness};
use crate::sys;
use crate::task::Deadline;

/// All that may tell whether a descriptor can be waited for.
const ALL: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::PRI)
    .union(PollFlags::RDHUP)
    .union(ALWAYS_READY);

/// The state that the kernel gives to what has none.
const ALWAYS_READY: PollFlags = PollFlags::IN
    .union(PollFlags::OUT)
    .union(PollFlags::RDNORM)
    .union(PollFlags::WRNORM);

/// Waits until `fd` is ready for something in `interest`, and returns what it is ready for.
///
/// For every kind of descriptor that `poll(2)` can wait on: sockets, pipes, terminals, eventfds,
/// timerfds, pidfds, inotify, what a C library hands out. Parks the calling coroutine;
/// off-coroutine, blocks the OS thread. Nothing is read or written, and the mode of the descriptor
/// is left alone: what follows may still block if another reader or writer is faster.
///
/// A descriptor that is ready is reported even if `deadline` has passed. Any number of
/// coroutines may wait on one descriptor, for the same or for different states, be it here, in
/// [`shims::select`](crate::shims::select), or in operations of one of the [`shims`](crate::shims).
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
/// - [`Unsupported`](io::ErrorKind::Unsupported) for what never changes its state: a regular file, a
///   directory, a block device. Reading those takes [`unblock`](crate::unblock).
/// - `EBADF` if the descriptor is not open.
///
/// # Unwinding
///
/// An interruption point. In a coroutine that unwinds from a panic, an error instead of a wait.
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

fn look(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Option<Readiness>> {
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
