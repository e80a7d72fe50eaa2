//! TCP listeners.
#![forbid(unsafe_code)]

use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};

use super::{TcpStream, ToSocketAddrs, each_addr};
use crate::reactor::Descriptor;
use crate::shims::descriptor::descriptor_conversions;
use crate::shims::listener::{Listener, accept_from, accepts, incoming, listener_methods};
use crate::shims::socket::std_methods;

/// Like [`std::net::TcpListener`], but waits park the coroutine.
///
/// The descriptor stays in blocking mode, with one exception. If others may accept from it as well (the
/// program has asked for the raw descriptor, or has forked, or OS threads accept from it), a coroutine
/// that accepts a connection sets non-blocking mode for the one call, which takes about a microsecond.
/// Code that accepts through the raw descriptor at that moment, or in a process without this library, may
/// see `WouldBlock`. A process that is killed at that moment leaves the mode set. Processes that use
/// this library take turns.
///
/// A timeout that is set on the raw descriptor counts in the same way as with a [`TcpStream`].
pub struct TcpListener {
    io: Listener<net::TcpListener>,
}

accepts! {
    net::TcpListener => (net::TcpStream, SocketAddr),
    accept_directly: |listener| {
        let (connection, address) = accept_from(listener)?;
        let address = address.map(SocketAddr::try_from).transpose()?;
        let address = address.ok_or(io::ErrorKind::InvalidInput)?;
        Ok((connection.into(), address))
    },
    error_if_blocking: |_| None,
}

impl TcpListener {
    /// Wraps a new listener in blocking mode.
    pub(super) fn fresh(listener: net::TcpListener) -> TcpListener {
        TcpListener::new(Descriptor::fresh(listener))
    }

    fn new(io: Descriptor<net::TcpListener>) -> TcpListener {
        TcpListener {
            io: Listener::new(io),
        }
    }

    /// Like [`std::net::TcpListener::bind`].
    ///
    /// # Errors
    ///
    /// As std: if no address can be bound, the error of the last one.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_addr(addr, net::TcpListener::bind).map(TcpListener::fresh)
    }

    /// Like [`std::net::TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.io.accept()?;
        Ok((TcpStream::new(self.io.accepted(stream)), peer))
    }

    listener_methods!(TcpListener, std::net::TcpListener);

    std_methods! {
        std::net::TcpListener:
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn set_ttl(&self, ttl: u32) -> io::Result<()>;
        fn ttl(&self) -> io::Result<u32>;
        #[deprecated(
            since = "1.16.0",
            note = "this option can only be set before the socket is bound"
        )]
        #[expect(deprecated, reason = "mirrors std")]
        fn set_only_v6(&self, only_v6: bool) -> io::Result<()>;
        #[deprecated(
            since = "1.16.0",
            note = "this option can only be set before the socket is bound"
        )]
        #[expect(deprecated, reason = "mirrors std")]
        fn only_v6(&self) -> io::Result<bool>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

incoming!(TcpListener => TcpStream, "std::net::Incoming");

impl FusedIterator for Incoming<'_> {}

descriptor_conversions! {
    TcpListener: net::TcpListener,
    adopt: |listener| TcpListener::new(Descriptor::foreign(listener)),
    release: |listener| listener.io.give_away(),
}
