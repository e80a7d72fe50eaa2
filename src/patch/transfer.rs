//! Moving bytes: how often a replaced function tries, and when it returns.
//!
//! A read returns what is there. A blocking write, and a read with `MSG_WAITALL`, go on until everything was
//! moved. They return less if an error, the timeout of the socket or an interrupt comes after a part.

use std::cell::Cell;
use std::os::fd::RawFd;

use libc::{iovec, ssize_t};
use rustix::net::sockopt::Timeout;

use super::descriptor;
use super::errno::Errno;
use super::wait::{read_at_once, until, until_by_pauses};
use crate::reactor::Interest;
use crate::task::{Current, Deadline};

/// The kernel moves no more bytes by one call.
pub(super) const MOST: usize = 0x7fff_f000;

/// One operation on a descriptor that is in blocking mode, or is not.
pub(super) struct Transfer {
    pub(super) fd: RawFd,
    /// What the descriptor becomes ready for when it can go on.
    pub(super) interest: Interest,
    /// The timeout of the socket that holds.
    pub(super) timeout: Timeout,
}

impl Transfer {
    /// Moves something, as soon as that is possible.
    ///
    /// # Errors
    ///
    /// Those of `attempt`, which makes one attempt that does not block. `EAGAIN`, if the descriptor is in
    /// non-blocking mode or the timeout has passed. Those of [`until`].
    #[inline(always)]
    pub(super) fn once<R>(&self, attempt: impl Fn() -> Result<R, Errno>) -> Result<R, Errno> {
        match attempt() {
            Err(Errno::AGAIN) => until(self.fd, self.interest, self.begin_to_wait()?, attempt),
            done => done,
        }
    }

    /// Like `once`, for a read from what may be a socket. If that was shut down, an attempt does not tell so for all
    /// kinds of sockets. Then `block` does, a call that would wait otherwise.
    pub(super) fn once_or_end<R>(
        &self,
        attempt: impl Fn() -> Result<R, Errno>,
        block: impl Fn() -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let waits = Cell::new(false);
        self.once(|| match attempt() {
            Err(Errno::AGAIN) if waits.replace(true) && descriptor::is_shut_down(self.fd)? => {
                block()
            }
            done => done,
        })
    }

    /// Moves everything. `attempt` is passed the number of bytes that were moved so far, and returns how many
    /// it has moved. `is_all` tells whether so many bytes, the last of them in one attempt, are all. `has_events`
    /// tells whether the descriptor becomes ready when an attempt may succeed.
    ///
    /// # Errors
    ///
    /// Like `once`, if nothing was moved.
    #[inline(always)]
    pub(super) fn all(
        &self,
        attempt: impl Fn(usize) -> Result<ssize_t, Errno>,
        is_all: impl Fn(usize, ssize_t) -> bool,
        has_events: impl Fn() -> bool,
    ) -> Result<ssize_t, Errno> {
        let mut deadline = None;
        let mut moved = 0;
        loop {
            let mut done = attempt(moved);
            if done == Err(Errno::AGAIN) {
                let until_when = match deadline {
                    Some(deadline) => Ok(deadline),
                    None => self.begin_to_wait(),
                };
                done = until_when.and_then(|until_when: Option<Deadline>| {
                    deadline = Some(until_when);
                    let attempt = || attempt(moved);
                    match has_events() {
                        true => until(self.fd, self.interest, until_when, attempt),
                        false => until_by_pauses(self.fd, until_when, attempt),
                    }
                });
            }
            match done {
                Ok(last) => {
                    moved += last as usize;
                    if is_all(moved, last) {
                        return Ok(moved as ssize_t);
                    }
                }
                Err(error) => return after_part(moved as ssize_t, error),
            }
        }
    }

    /// Until when the operation may wait.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, if the descriptor is in non-blocking mode.
    #[cold]
    fn begin_to_wait(&self) -> Result<Option<Deadline>, Errno> {
        match descriptor::is_nonblocking(self.fd)? {
            true if self.interest == Interest::READABLE => read_at_once(Err(Errno::AGAIN)),
            true => Err(Errno::AGAIN),
            false => descriptor::deadline(self.fd, self.timeout),
        }
    }
}

/// What an operation returns that has failed after it had moved a part. The next one finds the error, if it
/// lasts, and is told of a cancellation.
///
/// # Errors
///
/// The error, if nothing was moved.
pub(super) fn after_part<T: Default + PartialOrd>(moved: T, error: Errno) -> Result<T, Errno> {
    if moved <= T::default() {
        return Err(error);
    }
    if error == Errno::CANCELED {
        Current::get().note_untold();
    }
    Ok(moved)
}

/// A list of buffers of the caller's. It is only read after the kernel has read it.
#[derive(Clone, Copy)]
pub(super) struct Buffers {
    pub(super) list: *const iovec,
    pub(super) count: usize,
}

impl Buffers {
    /// # Safety
    ///
    /// The kernel has accepted the list, so it is one.
    pub(super) unsafe fn as_slice(&self) -> &[iovec] {
        match self.count {
            0 => &[],
            // SAFETY: the caller's.
            count => unsafe { std::slice::from_raw_parts(self.list, count) },
        }
    }

    /// The bytes that one call moves at most: those in all buffers together, within the kernel's limit.
    ///
    /// # Safety
    ///
    /// The kernel has accepted the list.
    pub(super) unsafe fn len(&self) -> usize {
        // SAFETY: the caller's.
        let lens = unsafe { self.as_slice() }.iter().map(|buf| buf.iov_len);
        lens.fold(0, usize::saturating_add).min(MOST)
    }

    /// Calls `f` with the list of what is left after `moved` bytes, and with its length.
    ///
    /// # Safety
    ///
    /// If `moved` is not zero, the kernel has accepted the list, and moved so many bytes.
    pub(super) unsafe fn after<R>(
        &self,
        moved: usize,
        f: impl FnOnce(*const iovec, usize) -> R,
    ) -> R {
        if moved == 0 {
            return f(self.list, self.count);
        }
        // SAFETY: the caller's.
        let mut rest = unsafe { self.as_slice() };
        let mut left = moved;
        while let [first, others @ ..] = rest
            && first.iov_len <= left
        {
            left -= first.iov_len;
            rest = others;
        }
        let [first, others @ ..] = rest else {
            return f(rest.as_ptr(), 0);
        };
        let first = iovec {
            iov_base: first.iov_base.wrapping_byte_add(left),
            iov_len: first.iov_len - left,
        };
        // Most calls have one buffer. A signal handler may make such a call, and must not allocate.
        if others.is_empty() {
            return f(&raw const first, 1);
        }
        let rest = [&[first], others].concat();
        f(rest.as_ptr(), rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_buffers_begins_after_what_was_moved() {
        let list = [0, 3, 0, 4, 0].map(|iov_len| iovec {
            iov_base: std::ptr::without_provenance_mut(100),
            iov_len,
        });
        let bufs = Buffers {
            list: list.as_ptr(),
            count: list.len(),
        };
        let left_after = |moved| {
            // SAFETY: the list is one, and not longer than that.
            unsafe {
                bufs.after(moved, |list, count| {
                    let left = Buffers { list, count };
                    let parts = left.as_slice().iter();
                    let parts = parts.map(|buf| (buf.iov_base.addr(), buf.iov_len));
                    parts.filter(|&(_, len)| len > 0).collect::<Vec<_>>()
                })
            }
        };
        assert_eq!(left_after(0), [(100, 3), (100, 4)]);
        assert_eq!(left_after(1), [(101, 2), (100, 4)]);
        assert_eq!(left_after(3), [(100, 4)]);
        assert_eq!(left_after(6), [(103, 1)]);
        assert_eq!(left_after(7), []);
    }

    #[test]
    fn a_call_moves_no_more_than_the_kernel_does() {
        let list = [1 << 30; 4].map(|iov_len| iovec {
            iov_base: std::ptr::null_mut(),
            iov_len,
        });
        let bufs = Buffers {
            list: list.as_ptr(),
            count: list.len(),
        };
        // SAFETY: the list is one.
        assert_eq!(unsafe { bufs.len() }, MOST);
    }
}
