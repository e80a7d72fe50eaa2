//! TCP listeners.

use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};

use super::{TcpStream, ToSocketAddrs, each_addr};
use crate::reactor::Descriptor;
use crate::shims::descriptor::{descriptor_conversions, from_raw_descriptor};
use crate::shims::listener::{Accept, Listener};

/// Like [`std::net::TcpListener`], but waits park the coroutine.
///
/// The kernel knows no way to try to accept but on a descriptor in non-blocking mode. So where a
/// connection has come, a coroutine that accepts puts the descriptor into it for the one call, about a
/// microsecond. Others that share the listener (by its raw descriptor, or in another process) and
/// accept at that moment may see `WouldBlock`; and a process that is killed then leaves the mode.
/// Processes of this library take turns.
///
/// A timeout that is set by the raw descriptor counts as with a [`TcpStream`].
pub struct TcpListener {
    io: Listener<net::TcpListener>,
}

impl Accept for net::TcpListener {
    type Accepted = (net::TcpStream, SocketAddr);

    fn accept(&self) -> io::Result<Self::Accepted> {
        net::TcpListener::accept(self)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        net::TcpListener::set_nonblocking(self, nonblocking)
    }
}

impl TcpListener {
    /// Wraps a listener that was just made, in blocking mode.
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
    /// As std: of several addresses, the last one's.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_addr(addr, net::TcpListener::bind).map(TcpListener::fresh)
    }

    /// Like [`std::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::net::TcpListener::try_clone`]: another descriptor of the same listener.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        let duplicate = self.io.get().try_clone()?;
        Ok(TcpListener {
            io: self.io.share(duplicate),
        })
    }

    /// Like [`std::net::TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.io.accept()?;
        Ok((TcpStream::new(self.io.accepted(stream)), peer))
    }

    /// Like [`std::net::TcpListener::incoming`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Like [`std::net::TcpListener::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get().set_ttl(ttl)
    }

    /// Like [`std::net::TcpListener::ttl`].
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get().ttl()
    }

    /// Like [`std::net::TcpListener::set_only_v6`].
    #[deprecated(
        since = "1.16.0",
        note = "this option can only be set before the socket is bound"
    )]
    #[expect(deprecated, reason = "mirrors std")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.io.get().set_only_v6(only_v6)
    }

    /// Like [`std::net::TcpListener::only_v6`].
    #[deprecated(
        since = "1.16.0",
        note = "this option can only be set before the socket is bound"
    )]
    #[expect(deprecated, reason = "mirrors std")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.io.get().only_v6()
    }

    /// Like [`std::net::TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::net::TcpListener::set_nonblocking`]: in non-blocking mode, `accept` returns
    /// `WouldBlock` instead of parking.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.io.set_nonblocking(nonblocking)
    }
}

/// The connections of a listener, for ever. Like [`std::net::Incoming`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

descriptor_conversions! {
    TcpListener, net::TcpListener,
    adopt: |listener| TcpListener::new(Descriptor::foreign(listener)),
    release: |listener| listener.io.into_inner(),
}

from_raw_descriptor!(TcpListener: net::TcpListener);
