//! [`select`] and [`poll`] over any descriptors.
//!
//! std has neither. These are the system's calls with borrowed descriptors. A coroutine that waits here
//! parks, an OS thread blocks. A signal does not end the wait. To wait for one descriptor, use
//! [`wait_fd`](crate::wait_fd).
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

pub use crate::{Interest, Readiness};

use crate::task::Deadline;
use crate::{reactor, sys};

// The events that make a descriptor count as readable, writable or exceptional.
const READ: PollFlags = PollFlags::IN
    .union(PollFlags::RDNORM)
    .union(PollFlags::RDBAND)
    .union(PollFlags::HUP)
    .union(PollFlags::ERR);
const WRITE: PollFlags = PollFlags::OUT
    .union(PollFlags::WRNORM)
    .union(PollFlags::WRBAND)
    .union(PollFlags::ERR);
const EXCEPT: PollFlags = PollFlags::PRI;

/// The descriptors that [`select`] has found ready, as ascending indices into its lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Reading does not block: there is data, a connection to accept, the end of the data, or an error.
    pub readable: Vec<usize>,
    /// Writing does not block: there is room, or an error.
    pub writable: Vec<usize>,
    /// There is urgent (out-of-band) data or another exceptional condition of the descriptor.
    pub exceptional: Vec<usize>,
}

impl Ready {
    /// Whether nothing was ready before the timeout.
    pub fn is_empty(&self) -> bool {
        self.readable.is_empty() && self.writable.is_empty() && self.exceptional.is_empty()
    }
}

/// Waits until a descriptor of `r` is readable, one of `w` is writable or one of `x` is exceptional, and
/// returns which, as `select(2)` does.
///
/// Waits for at most `timeout`, or without limit if `timeout` is `None`. With a timeout of zero, returns
/// the present state; if nothing is ready, yields to other coroutines first. With three empty lists,
/// sleeps.
///
/// A descriptor that is listed twice is returned twice. Regular files are always readable and writable.
/// There is no limit like `FD_SETSIZE`. To list descriptors of several types, borrow each with
/// [`AsFd::as_fd`].
///
/// ```
/// use greenroom::shims::select::select;
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// greenroom::run(|| {
///     let (reader, mut writer) = std::io::pipe()?;
///     let (silent, _writer) = std::io::pipe()?;
///     greenroom::spawn(move || writer.write_all(b"x"));
///
///     let ready = select(&[silent, reader], &[], &[], None)?;
///     assert_eq!(ready.readable, [1]);
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
///
/// `EBADF` if a descriptor is not open.
///
/// # Unwinding
///
/// An interruption point. In a coroutine that unwinds from a panic, this fails instead of waiting.
pub fn select<T: AsFd>(r: &[T], w: &[T], x: &[T], timeout: Option<Duration>) -> io::Result<Ready> {
    let lists = [r, w, x].map(|list| list.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let mut merged = Merged::new(&lists);
    let ready = reactor::wait_for(
        merged.interests.clone(),
        timeout.and_then(Deadline::after),
        || {
            let any = merged.look()?;
            let ready = any.then(|| merged.ready(&lists));
            Ok(ready.filter(|ready| !ready.is_empty()))
        },
        |left| sys::poll::block_in_select([&lists[0], &lists[1], &lists[2]], left),
    );
    Ok(ready?.unwrap_or_default())
}

/// The descriptors of the three lists, without repetition and in ascending order. The kernel takes no more
/// entries than the number of descriptors that a process may have, so each descriptor gets one entry.
struct Merged<'fd> {
    interests: Vec<(BorrowedFd<'fd>, Interest)>,
    polled: Vec<rustix::event::PollFd<'fd>>,
}

impl<'fd> Merged<'fd> {
    fn new([r, w, x]: &[Vec<BorrowedFd<'fd>>; 3]) -> Merged<'fd> {
        let each = |list: &[BorrowedFd<'fd>], interest| -> Vec<_> {
            list.iter().map(|&fd| (fd, interest)).collect()
        };
        let mut interests = each(r, Interest::READABLE);
        interests.extend(each(w, Interest::WRITABLE));
        interests.extend(each(x, Interest::PRIORITY));
        interests.sort_by_key(|(fd, _)| fd.as_raw_fd());
        interests.dedup_by(|next, kept| {
            let same = next.0.as_raw_fd() == kept.0.as_raw_fd();
            if same {
                kept.1 |= next.1;
            }
            same
        });
        let polled = |&(fd, interest): &(_, Interest)| {
            let flags = [
                (Interest::READABLE, READ),
                (Interest::WRITABLE, WRITE),
                (Interest::PRIORITY, EXCEPT),
            ]
            .into_iter()
            .filter_map(|(one, flags)| interest.contains(one).then_some(flags))
            .collect();
            rustix::event::PollFd::from_borrowed_fd(fd, flags)
        };
        Merged {
            polled: interests.iter().map(polled).collect(),
            interests,
        }
    }

    /// Polls all descriptors without waiting. Returns whether the kernel reported any event, even one of
    /// no interest.
    fn look(&mut self) -> io::Result<bool> {
        let any = sys::poll::look(&mut self.polled)? > 0;
        let mut polled = self.polled.iter();
        if any && polled.any(|polled| polled.revents().contains(PollFlags::NVAL)) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(any)
    }

    fn ready(&self, [r, w, x]: &[Vec<BorrowedFd<'_>>; 3]) -> Ready {
        let indices = |list: &[BorrowedFd<'_>], wanted| {
            let is_ready = |fd: &BorrowedFd<'_>| self.state(*fd).intersects(wanted);
            (0..list.len()).filter(|&i| is_ready(&list[i])).collect()
        };
        Ready {
            readable: indices(r, READ),
            writable: indices(w, WRITE),
            exceptional: indices(x, EXCEPT),
        }
    }

    fn state(&self, fd: BorrowedFd<'_>) -> PollFlags {
        let number = |(fd, _): &(BorrowedFd<'_>, Interest)| fd.as_raw_fd();
        let at = self.interests.binary_search_by_key(&fd.as_raw_fd(), number);
        at.map_or(PollFlags::empty(), |at| self.polled[at].revents())
    }
}

/// A descriptor for [`poll`], with the events to wait for and the events that were found.
#[derive(Clone)]
pub struct PollFd<'fd> {
    fd: BorrowedFd<'fd>,
    interest: Interest,
    readiness: Readiness,
}

impl<'fd> PollFd<'fd> {
    /// An entry that waits for `interest` on `fd`.
    pub fn new(fd: &'fd (impl AsFd + ?Sized), interest: Interest) -> PollFd<'fd> {
        PollFd {
            fd: fd.as_fd(),
            interest,
            readiness: Readiness::default(),
        }
    }

    /// The events to wait for.
    pub fn interest(&self) -> Interest {
        self.interest
    }

    /// Changes the events to wait for.
    pub fn set_interest(&mut self, interest: Interest) {
        self.interest = interest;
    }

    /// The events that the last [`poll`] has found. Empty before the first.
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }
}

impl AsFd for PollFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

impl fmt::Debug for PollFd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollFd")
            .field("fd", &self.fd.as_raw_fd())
            .field("interest", &self.interest)
            .field("readiness", &self.readiness)
            .finish()
    }
}

/// Waits until one of `fds` is ready, as `poll(2)` does. Returns how many are ready, and sets the
/// [readiness](PollFd::readiness) of all.
///
/// Waits for at most `timeout`, or without limit if `timeout` is `None`. With a timeout of zero, returns
/// the present state; if nothing is ready, yields to other coroutines first.
///
/// An error or a hang-up counts as ready, whatever the interest, and so does a descriptor that is not
/// open. Regular files are always readable and writable.
///
/// ```
/// use greenroom::shims::select::{Interest, PollFd, poll};
///
/// # fn main() -> std::io::Result<()> {
/// greenroom::run(|| {
///     let (reader, writer) = std::io::pipe()?;
///     let mut fds = [
///         PollFd::new(&reader, Interest::READABLE),
///         PollFd::new(&writer, Interest::WRITABLE),
///     ];
///     assert_eq!(poll(&mut fds, None)?, 1);
///     assert!(fds[0].readiness().is_empty() && fds[1].readiness().is_writable());
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
///
/// `EINVAL` if there are more entries than the process may have descriptors.
///
/// # Unwinding
///
/// An interruption point. In a coroutine that unwinds from a panic, this fails instead of waiting.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let interests: Vec<_> = fds.iter().map(|entry| (entry.fd, entry.interest)).collect();
    let mut state: Vec<_> = interests
        .iter()
        .map(|&(fd, interest)| rustix::event::PollFd::from_borrowed_fd(fd, interest.flags()))
        .collect();
    let mut blocking = state.clone();
    let ready = reactor::wait_for(
        interests,
        timeout.and_then(Deadline::after),
        || {
            let ready = sys::poll::look(&mut state)?;
            Ok((ready > 0).then_some(ready))
        },
        |left| sys::poll::block(&mut blocking, left),
    )?;
    for (entry, state) in fds.iter_mut().zip(&state) {
        entry.readiness = Readiness::of(state.revents(), entry.interest);
    }
    Ok(ready.unwrap_or(0))
}
