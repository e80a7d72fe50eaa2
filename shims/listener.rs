//! What TCP and Unix listeners share: accepting without blocking, and the iterator over connections.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with, sockopt};

use super::park_or_block::park_or_block;
use crate::reactor::{Descriptor, Direction};
use crate::sys::fork;
use crate::sys::mode_turn::ModeTurn;
use crate::sys::poll;
use crate::sys::socket::{self, would_block};
use crate::task::Deadline;

/// A listener type of std.
pub(super) trait Accept: AsFd {
    /// A connection, and the address of the peer.
    type Accepted;

    /// Accepts a connection. Blocks if the listener is in blocking mode.
    fn accept(&self) -> io::Result<Self::Accepted>;

    /// Like `accept`, by the system call itself.
    ///
    /// Under the libc patch, `accept` would be the function of the patch, which waits for the turn that an attempt
    /// already has.
    fn accept_directly(&self) -> io::Result<Self::Accepted>;

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;

    /// The error that only a blocking accept returns. A non-blocking accept fails with `WouldBlock`
    /// instead.
    fn error_if_blocking(&self) -> Option<io::Error>;
}

/// A listener that accepts without blocking the worker.
///
/// A poll tells whether there is a connection. An accept then returns it at once, if nobody else can take
/// it: a [`ModeTurn`] keeps the attempts of this process apart.
///
/// If the user has had the descriptor, if the process has forked, or if OS threads accept from the same
/// listener, the connection may be gone by then. The accept must then not block, which takes non-blocking
/// mode. Such an attempt sets the mode for one call. Meanwhile, an accept of another process that is plain std fails
/// with `WouldBlock` if it begins, and goes on waiting if it has begun.
#[derive(Debug)]
pub(super) struct Listener<L: Accept> {
    io: Descriptor<L>,
    /// Whether an OS thread has accepted by a call that blocks. Shared with the clones.
    has_blocked: Arc<AtomicBool>,
}

impl<L: Accept> Listener<L> {
    pub(super) fn new(io: Descriptor<L>) -> Listener<L> {
        // If this fails, and a fork shares the listener, an accept of one process may occasionally
        // block until the next connection.
        let _ = fork::count_forks();
        Listener {
            io,
            has_blocked: Arc::default(),
        }
    }

    pub(super) fn get(&self) -> &L {
        self.io.get()
    }

    /// See [`Descriptor::expose`].
    pub(super) fn expose(&self) -> &L {
        let listener = self.io.expose();
        // An attempt that has not seen this is over when the caller gets the turn.
        drop(ModeTurn::take());
        listener
    }

    /// Wraps a TCP connection that this listener has accepted.
    pub(super) fn accepted<T: AsFd>(&self, connection: T) -> Descriptor<T> {
        Descriptor::accepted(connection, &self.io)
    }

    /// Wraps a duplicate of this listener.
    pub(super) fn share(&self, duplicate: L) -> Listener<L> {
        Listener {
            io: self.io.share(duplicate),
            has_blocked: Arc::clone(&self.has_blocked),
        }
    }

    /// Accepts a connection. Waits for one unless the user has set non-blocking mode, and no longer
    /// than the receive timeout of the socket.
    pub(super) fn accept(&self) -> io::Result<L::Accepted> {
        park_or_block(
            (),
            |()| {
                self.io
                    .operation(Direction::Read)
                    .socket_timeout(timeout)
                    .run(|listener| self.or_error_if_blocking(|| self.try_accept(listener)))
            },
            |()| self.accept_blocking(),
        )
    }

    /// Accepts a connection on an OS thread.
    fn accept_blocking(&self) -> io::Result<L::Accepted> {
        if !self.has_blocked.swap(true, Ordering::SeqCst) {
            // An attempt that has not seen this is over when this thread gets the turn.
            drop(ModeTurn::take());
        }
        let timeout = self.io.timeout(Direction::Read, timeout)?;
        let deadline = timeout.and_then(Deadline::after);
        loop {
            match self.or_error_if_blocking(|| self.get().accept()) {
                // A coroutine has set non-blocking mode for its attempt.
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

    /// Makes an attempt to accept. If the user has not set non-blocking mode, fails as an accept on a
    /// blocking listener would.
    fn or_error_if_blocking(
        &self,
        attempt: impl Fn() -> io::Result<L::Accepted>,
    ) -> io::Result<L::Accepted> {
        let done = attempt();
        if !done.as_ref().is_err_and(would_block) || self.io.is_nonblocking() {
            return done;
        }
        match self.get().error_if_blocking() {
            // A connection may have come between the attempt and the error. The connection goes
            // first.
            Some(hidden) => attempt().map_err(|error| match would_block(&error) {
                true => hidden,
                false => error,
            }),
            None => done,
        }
    }

    /// Accepts a connection if that does not block.
    fn try_accept(&self, listener: &L) -> io::Result<L::Accepted> {
        if self.io.is_nonblocking() {
            return listener.accept_directly();
        }
        let fd = listener.as_fd();
        // The user may have passed the descriptor on, or a fork may have inherited it.
        let is_elsewhere = || self.io.is_shown() || fork::has_forked();
        if !is_elsewhere() {
            let _turn = ModeTurn::take();
            socket::check_acceptable(fd)?;
            // Asked last. Other coroutines wait for their turn, and threads have not begun to accept.
            if !is_elsewhere() && !self.has_blocked.load(Ordering::SeqCst) {
                return listener.accept_directly();
            }
        }
        socket::check_acceptable(fd)?;
        let _turn = match is_elsewhere() {
            true => ModeTurn::take_among_processes(fd),
            false => ModeTurn::take(),
        };
        // The user may have set the mode, or another process that has the listener. It must then stay set.
        if self.io.is_known_to_be_nonblocking() || socket::is_nonblocking(fd)? {
            return listener.accept_directly();
        }
        listener.set_nonblocking(true)?;
        let accepted = listener.accept_directly();
        // This cannot fail: setting the mode has just succeeded on the same descriptor.
        let _ = listener.set_nonblocking(false);
        accepted
    }

    /// Sets the mode that the user asks for.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let _turn = ModeTurn::take();
        self.get().set_nonblocking(nonblocking)?;
        self.io.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Returns std's listener. See [`Descriptor::give_away`].
    pub(super) fn give_away(self) -> L {
        if self.io.is_shared() {
            self.expose();
        }
        self.io.into_inner()
    }
}

/// How long an accept may wait: the receive timeout of the socket.
fn timeout(listener: &impl AsFd) -> io::Result<Option<Duration>> {
    Ok(sockopt::socket_timeout(listener, sockopt::Timeout::Recv)?)
}

/// Accepts a connection by the system call, as std does by the C library's function. (Under the libc patch, no crate of
/// the program may have rustix use the C library, by its feature `use-libc`.)
pub(super) fn accept_from(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let accept = || acceptfrom_with(&listener, SocketFlags::CLOEXEC);
    Ok(retry_on_intr(accept)?)
}

/// Implements [`Accept`] for a listener type of std, by the type's own methods and the functions given.
macro_rules! accepts {
    (
        $std:ty => $accepted:ty,
        accept_directly: $accept_directly:expr,
        error_if_blocking: $error_if_blocking:expr $(,)?
    ) => {
        impl $crate::shims::listener::Accept for $std {
            type Accepted = $accepted;

            fn accept(&self) -> ::std::io::Result<$accepted> {
                <$std>::accept(self)
            }

            fn accept_directly(&self) -> ::std::io::Result<$accepted> {
                let accept_directly: fn(&$std) -> ::std::io::Result<$accepted> = $accept_directly;
                accept_directly(self)
            }

            fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
                <$std>::set_nonblocking(self, nonblocking)
            }

            fn error_if_blocking(&self) -> Option<::std::io::Error> {
                let error_if_blocking: fn(&$std) -> Option<::std::io::Error> = $error_if_blocking;
                error_if_blocking(self)
            }
        }
    };
}

/// Defines the methods of a listener shim that TCP and Unix listeners have in common. The field `io`
/// of the shim holds a `Listener<$std>`.
macro_rules! listener_methods {
    ($shim:ident, $std:path) => {
        #[doc = concat!("Like [`", stringify!($std), "::try_clone`].")]
        ///
        /// Returns another descriptor of the same listener.
        pub fn try_clone(&self) -> ::std::io::Result<$shim> {
            let duplicate = self.io.get().try_clone()?;
            Ok($shim {
                io: self.io.share(duplicate),
            })
        }

        #[doc = concat!("Like [`", stringify!($std), "::incoming`].")]
        pub fn incoming(&self) -> Incoming<'_> {
            Incoming { listener: self }
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_nonblocking`].")]
        ///
        /// In non-blocking mode, `accept` returns `WouldBlock` instead of parking the coroutine.
        pub fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
            self.io.set_nonblocking(nonblocking)
        }
    };
}

/// Defines the iterator over the connections of a listener shim.
macro_rules! incoming {
    ($listener:ident => $stream:ident, $std:literal $(, $size_hint:item)?) => {
        #[doc = concat!("The connections of a listener, without end. Like [`", $std, "`].")]
        #[derive(Debug)]
        #[must_use = "iterators are lazy and do nothing unless consumed"]
        pub struct Incoming<'a> {
            listener: &'a $listener,
        }

        impl Iterator for Incoming<'_> {
            type Item = ::std::io::Result<$stream>;

            fn next(&mut self) -> Option<::std::io::Result<$stream>> {
                Some(self.listener.accept().map(|(stream, _)| stream))
            }

            $($size_hint)?
        }
    };
}

pub(super) use {accepts, incoming, listener_methods};
