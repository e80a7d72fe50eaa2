//! What all sockets share: operations that wait, timeouts, and methods that never wait.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::park_or_block::park_or_block;
use crate::reactor::{Descriptor, Direction, Operation};
use crate::sys::poll;
use crate::sys::socket::{self, Blocking};

/// A socket type of std with a timeout for each direction.
pub(super) trait StdSocket: AsFd {
    /// The timeout that the kernel has for reads.
    fn read_timeout(&self) -> io::Result<Option<Duration>>;

    /// The timeout that the kernel has for writes.
    fn write_timeout(&self) -> io::Result<Option<Duration>>;
}

macro_rules! std_sockets {
    ($($std:ident),*) => {$(
        impl StdSocket for $std {
            fn read_timeout(&self) -> io::Result<Option<Duration>> {
                $std::read_timeout(self)
            }

            fn write_timeout(&self) -> io::Result<Option<Duration>> {
                $std::write_timeout(self)
            }
        }
    )*};
}

std_sockets!(TcpStream, UdpSocket, UnixStream, UnixDatagram);

/// The operations of a socket that may wait.
///
/// A coroutine parks until the operation is done or the socket's timeout for the direction has
/// passed. An OS thread calls std's own method, which blocks.
pub(super) trait SocketIo<S: StdSocket> {
    /// Reads into `buf`: a coroutine with `park`, an OS thread with `block`.
    fn read_with<B, R>(
        &self,
        buf: B,
        park: impl FnOnce(Operation<'_, S>, B) -> R,
        block: impl FnOnce(&S, B) -> R,
    ) -> R;

    /// Writes `buf`: a coroutine with `park`, an OS thread with `block`.
    fn write_with<B, R>(
        &self,
        buf: B,
        park: impl FnOnce(Operation<'_, S>, B) -> R,
        block: impl FnOnce(&S, B) -> R,
    ) -> R;

    /// Writes `buf` to a stream, or as much of `buf` as there is room for.
    fn write_stream(&self, buf: &[u8]) -> io::Result<usize>
    where
        for<'s> &'s S: Write;

    /// Writes `bufs` to a stream, or as much of `bufs` as there is room for.
    fn write_stream_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'s> &'s S: Write;

    /// Sends `fds` along with `buf`.
    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize>;

    /// Reads by `read`. Returns `None` if that would wait and `give_up` returns true. A coroutine asks `give_up`
    /// again after [`Descriptor::retry`]. `drained` is as in [`Operation::run_stream`].
    fn read_unless<R>(
        &self,
        give_up: &dyn Fn() -> bool,
        read: impl FnMut(&S) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> io::Result<Option<R>>;

    /// Waits until a read would not wait. Returns false if a read would wait and `give_up` returns true, as
    /// `read_unless`.
    fn wait_for_input(&self, give_up: &dyn Fn() -> bool) -> io::Result<bool> {
        let peek = |socket: &S| socket::peek(socket.as_fd(), &mut [0]);
        Ok(self.read_unless(give_up, peek, |_| false)?.is_some())
    }
}

impl<S: StdSocket> SocketIo<S> for Descriptor<S> {
    #[inline(always)]
    fn read_with<B, R>(
        &self,
        buf: B,
        park: impl FnOnce(Operation<'_, S>, B) -> R,
        block: impl FnOnce(&S, B) -> R,
    ) -> R {
        let reading = || {
            self.operation(Direction::Read)
                .socket_timeout(S::read_timeout)
        };
        park_or_block(
            buf,
            |buf| park(reading(), buf),
            |buf| block(self.get(), buf),
        )
    }

    #[inline(always)]
    fn write_with<B, R>(
        &self,
        buf: B,
        park: impl FnOnce(Operation<'_, S>, B) -> R,
        block: impl FnOnce(&S, B) -> R,
    ) -> R {
        let writing = || {
            self.operation(Direction::Write)
                .socket_timeout(S::write_timeout)
        };
        park_or_block(
            buf,
            |buf| park(writing(), buf),
            |buf| block(self.get(), buf),
        )
    }

    #[inline(always)]
    fn write_stream(&self, buf: &[u8]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        self.write_with(
            buf,
            |writing, buf| match buf {
                // Writing no bytes never waits, even if the stream is full.
                [] => self.get().write(buf),
                _ => writing.run(|stream| socket::send(stream.as_fd(), buf)),
            },
            |mut stream, buf| stream.write(buf),
        )
    }

    #[inline(always)]
    fn write_stream_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        self.write_with(
            bufs,
            |writing, bufs| match socket::asked(bufs) {
                0 => self.get().write_vectored(bufs),
                _ => writing.run(|stream| socket::send_vectored(stream.as_fd(), bufs)),
            },
            |mut stream, bufs| stream.write_vectored(bufs),
        )
    }

    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize> {
        self.write_with(
            buf,
            |writing, buf| {
                writing.run(|socket| socket::send_fds(socket.as_fd(), fds, buf, Blocking::Never))
            },
            |socket, buf| socket::send_fds(socket.as_fd(), fds, buf, Blocking::Allowed),
        )
    }

    #[inline(always)]
    fn read_unless<R>(
        &self,
        give_up: &dyn Fn() -> bool,
        mut read: impl FnMut(&S) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> io::Result<Option<R>> {
        let mut attempt = |socket: &S| match read(socket) {
            Ok(read) => Ok(Some(read)),
            Err(error) if socket::would_block(&error) && give_up() => Ok(None),
            Err(error) => Err(error),
        };
        // The operation below makes an attempt only if there is readiness, as far as is known.
        if give_up() {
            return attempt(self.get());
        }
        self.read_with(
            attempt,
            |reading, attempt| {
                reading.run_stream(attempt, |read| read.as_ref().is_some_and(&drained))
            },
            |socket, mut attempt| {
                let mut input = [PollFd::new(socket, PollFlags::IN)];
                let timeout = socket.read_timeout()?;
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                loop {
                    let left =
                        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    poll::block(&mut input, left)?;
                    match attempt(socket) {
                        // A signal was handled, or another reader was faster. What the poll reports may also stay: a
                        // message in the error queue of the socket.
                        Err(error)
                            if socket::would_block(&error)
                                && left.is_none_or(|left| !left.is_zero()) =>
                        {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        done => return done,
                    }
                }
            },
        )
    }
}

/// Defines what a server needs of a stream shim. The field `io` of the shim holds a descriptor.
macro_rules! serving_methods {
    () => {
        /// See `SocketIo::wait_for_input`.
        pub(crate) fn wait_for_input(&self, give_up: &dyn Fn() -> bool) -> ::std::io::Result<bool> {
            $crate::shims::socket::SocketIo::wait_for_input(&*self.io, give_up)
        }

        /// Has all that wait ask again.
        pub(crate) fn retry_waits(&self) {
            self.io.retry();
        }

        /// Whether there is input that was not read.
        pub(crate) fn has_input(&self) -> bool {
            $crate::sys::socket::has_input(::std::os::fd::AsFd::as_fd(self.io.get()))
        }
    };
}

/// Defines the methods of a shim that set and return timeouts and the blocking mode. The field `io`
/// of the shim holds a `Descriptor<$std>`.
macro_rules! timeout_methods {
    ($std:path) => {
        #[doc = concat!("Like [`", stringify!($std), "::set_read_timeout`].")]
        ///
        /// If two threads set it at the same time, either timeout may hold for coroutines.
        pub fn set_read_timeout(
            &self,
            timeout: Option<::std::time::Duration>,
        ) -> ::std::io::Result<()> {
            self.io.get().set_read_timeout(timeout)?;
            self.io
                .set_timeout($crate::reactor::Direction::Read, timeout);
            Ok(())
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_write_timeout`].")]
        ///
        /// If two threads set it at the same time, either timeout may hold for coroutines.
        pub fn set_write_timeout(
            &self,
            timeout: Option<::std::time::Duration>,
        ) -> ::std::io::Result<()> {
            self.io.get().set_write_timeout(timeout)?;
            self.io
                .set_timeout($crate::reactor::Direction::Write, timeout);
            Ok(())
        }

        $crate::shims::socket::std_methods! {
            $std:
            fn read_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>>;
            fn write_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>>;
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_nonblocking`].")]
        ///
        /// In non-blocking mode, an operation returns `WouldBlock` instead of parking the coroutine.
        pub fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
            self.io.get().set_nonblocking(nonblocking)?;
            self.io.set_nonblocking(nonblocking);
            Ok(())
        }
    };
}

/// Defines methods that never wait. Each calls the method of `$std` with the same name.
macro_rules! std_methods {
    (
        $std:path:
        $(
            $(#[$attribute:meta])*
            fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;
        )*
    ) => {$(
        #[doc = concat!("Like [`", stringify!($std), "::", stringify!($name), "`].")]
        $(#[$attribute])*
        pub fn $name(&self $(, $argument: $type)*) -> $result {
            self.io.get().$name($($argument),*)
        }
    )*};
}

pub(super) use {serving_methods, std_methods, timeout_methods};
