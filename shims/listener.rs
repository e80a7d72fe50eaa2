//! What listeners have in common: to accept without blocking, in the mode that the user has set.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;

use crate::reactor::{Descriptor, Direction};
use crate::sys::fork;
use crate::sys::mode_turn::ModeTurn;
use crate::sys::poll;
use crate::sys::socket::{self, would_block};
use crate::task::{self, Deadline};

/// One of std's listeners.
pub(super) trait Accept: AsFd {
    /// A connection, and whose it is.
    type Accepted;

    /// Accepts a connection; blocks in blocking mode only.
    fn accept(&self) -> io::Result<Self::Accepted>;

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;

    /// The error of a blocking `accept` for which a non-blocking one is only `WouldBlock`.
    fn hidden_error(&self) -> Option<io::Error> {
        None
    }
}

/// A listener that coroutines accept from.
///
/// An attempt to accept sets the mode of the descriptor for the one call; see
/// [`ModeTurn`]. It is preceded by a look whether there is anything, which is the
/// cheaper the more often there is not.
#[derive(Debug)]
pub(super) struct Listener<L: Accept> {
    io: Descriptor<L>,
}

impl<L: Accept> Listener<L> {
    pub(super) fn new(io: Descriptor<L>) -> Listener<L> {
        // Where that fails, a listener that is shared by a fork may now and then make one of the
        // processes wait for the next connection.
        let _ = fork::count_forks();
        Listener { io }
    }

    pub(super) fn get(&self) -> &L {
        self.io.get()
    }

    /// As [`Descriptor::expose`].
    pub(super) fn expose(&self) -> &L {
        self.io.expose()
    }

    /// Wraps a TCP connection that was accepted.
    pub(super) fn accepted<T: AsFd>(&self, connection: T) -> Descriptor<T> {
        Descriptor::accepted(connection, &self.io)
    }

    /// Wraps a duplicate of this listener.
    pub(super) fn share(&self, duplicate: L) -> Listener<L> {
        Listener {
            io: self.io.share(duplicate),
        }
    }

    /// Waits for a connection, unless in the user's non-blocking mode; no longer than the timeout of
    /// the socket.
    pub(super) fn accept(&self) -> io::Result<L::Accepted> {
        if task::on_coroutine() {
            return self
                .io
                .operation(Direction::Read)
                .socket_timeout(timeout)
                .run(|listener| self.or_hidden_error(|| self.try_accept(listener)));
        }
        let timeout = self.io.timeout(Direction::Read, timeout)?;
        let deadline = timeout.and_then(Deadline::after);
        loop {
            match self.or_hidden_error(|| self.get().accept()) {
                Err(error) if would_block(&error) && !self.io.is_nonblocking() => {
                    let now = Instant::now();
                    let left = deadline.map(|deadline| deadline.at.saturating_duration_since(now));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(error);
                    }
                    let listener = PollFd::new(self.get(), PollFlags::IN);
                    poll::block(&mut [listener], left)?;
                }
                done => return done,
            }
        }
    }

    /// Attempts to accept, and fails with what a blocking listener would fail with.
    fn or_hidden_error(
        &self,
        attempt: impl Fn() -> io::Result<L::Accepted>,
    ) -> io::Result<L::Accepted> {
        let done = attempt();
        if !done.as_ref().is_err_and(would_block) || self.io.is_nonblocking() {
            return done;
        }
        match self.get().hidden_error() {
            // What has come just before goes first.
            Some(hidden) => attempt().map_err(|error| match would_block(&error) {
                true => hidden,
                false => error,
            }),
            None => done,
        }
    }

    /// Accepts if that does not block.
    fn try_accept(&self, listener: &L) -> io::Result<L::Accepted> {
        if self.io.is_nonblocking() {
            return listener.accept();
        }
        let fd = listener.as_fd();
        socket::check_acceptable(fd)?;
        let _turn = match self.io.is_shown() || fork::has_forked() {
            true => ModeTurn::take_among_processes(fd),
            false => ModeTurn::take(),
        };
        if self.io.is_known_to_be_nonblocking() {
            return listener.accept();
        }
        listener.set_nonblocking(true)?;
        let accepted = listener.accept();
        // What could be set can be reset.
        let _ = listener.set_nonblocking(false);
        accepted
    }

    /// Sets the mode that the user wants.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let _turn = ModeTurn::take();
        self.get().set_nonblocking(nonblocking)?;
        self.io.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Gives the listener up.
    pub(super) fn into_inner(self) -> L {
        self.io.into_inner()
    }
}

/// How long `accept` may wait.
fn timeout(listener: &impl AsFd) -> io::Result<Option<Duration>> {
    Ok(sockopt::socket_timeout(listener, sockopt::Timeout::Recv)?)
}
