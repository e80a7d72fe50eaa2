//! The listeners and streams that a server is made for.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net as unix;

use crate::reactor::{Interest, wait_fd};
use crate::shims::net::{TcpListener, TcpStream};
use crate::shims::os::unix::net::{UnixListener, UnixStream};
use crate::sys::socket::is_listening;

/// What a [`Server`](super::Server) listens on: [`TcpListener`] or [`UnixListener`].
///
/// This trait is sealed.
pub trait Listener: sealed::Sealed + fmt::Debug + Send + Sync + Sized + 'static {
    /// A connection.
    type Stream: Stream;
    /// The address of a listener.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    /// Accepts a connection, and tells where from, if that is an Internet address.
    #[doc(hidden)]
    fn accept_from(&self) -> io::Result<(Self::Stream, Option<SocketAddr>)>;

    /// Waits for a connection although accepting fails with `WouldBlock`, because the listener is in
    /// non-blocking mode or has a timeout.
    #[doc(hidden)]
    fn wait_for_connection(&self) -> io::Result<()>;

    /// Whether this is a socket that listens.
    #[doc(hidden)]
    fn is_listening(&self) -> bool;

    #[doc(hidden)]
    fn duplicate(&self) -> io::Result<Self>;

    #[doc(hidden)]
    fn address(&self) -> io::Result<Self::Addr>;
}

/// A connection that a [`Listener`] accepts: [`TcpStream`] or [`UnixStream`].
///
/// This trait is sealed.
pub trait Stream: sealed::Sealed + fmt::Debug + Send + Sync + 'static {
    /// See `SocketIo::wait_for_input`.
    #[doc(hidden)]
    fn wait_for_input(&self, give_up: &dyn Fn() -> bool) -> io::Result<bool>;

    /// See `SocketIo::read_unless`.
    #[doc(hidden)]
    fn read_unless(&self, buf: &mut [u8], give_up: &dyn Fn() -> bool) -> io::Result<Option<usize>>;

    /// Has the waits of `wait_for_input` and `read_unless` ask again whether to give up.
    #[doc(hidden)]
    fn retry_waits(&self);

    /// Whether there is input that was not read.
    #[doc(hidden)]
    fn has_input(&self) -> bool;

    #[doc(hidden)]
    fn end_output(&self) -> io::Result<()>;

    /// Reads and writes the stream by reference.
    #[doc(hidden)]
    fn io(&self) -> impl Read + Write;
}

macro_rules! served {
    ($listener:ty => $stream:ty, $addr:ty, peer: $peer:expr) => {
        impl Listener for $listener {
            type Stream = $stream;
            type Addr = $addr;

            fn accept_from(&self) -> io::Result<($stream, Option<SocketAddr>)> {
                let peer: fn($addr) -> Option<SocketAddr> = $peer;
                let (stream, addr) = self.accept()?;
                Ok((stream, peer(addr)))
            }

            fn wait_for_connection(&self) -> io::Result<()> {
                wait_fd(self, Interest::READABLE, None).map(drop)
            }

            fn is_listening(&self) -> bool {
                is_listening(self.as_fd())
            }

            fn duplicate(&self) -> io::Result<$listener> {
                self.try_clone()
            }

            fn address(&self) -> io::Result<$addr> {
                self.local_addr()
            }
        }

        impl Stream for $stream {
            fn wait_for_input(&self, give_up: &dyn Fn() -> bool) -> io::Result<bool> {
                self.wait_for_input(give_up)
            }

            #[inline]
            fn read_unless(
                &self,
                buf: &mut [u8],
                give_up: &dyn Fn() -> bool,
            ) -> io::Result<Option<usize>> {
                self.read_unless(buf, give_up)
            }

            fn retry_waits(&self) {
                self.retry_waits();
            }

            fn has_input(&self) -> bool {
                self.has_input()
            }

            fn end_output(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn io(&self) -> impl Read + Write {
                self
            }
        }

        impl sealed::Sealed for $listener {}
        impl sealed::Sealed for $stream {}
    };
}

served!(TcpListener => TcpStream, SocketAddr, peer: Some);
served!(UnixListener => UnixStream, unix::SocketAddr, peer: |_| None);

pub(super) mod sealed {
    pub trait Sealed {}
}
