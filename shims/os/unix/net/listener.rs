//! Unix stream listeners.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use super::UnixStream;
use crate::reactor::Descriptor;
use crate::shims::descriptor::{descriptor_conversions, from_raw_descriptor};
use crate::shims::listener::{Accept, Listener};
use crate::sys::socket;

/// Like [`std::os::unix::net::UnixListener`], but waits park the coroutine.
///
/// A coroutine that accepts puts the descriptor into non-blocking mode for the one call; what this
/// means is told at [`TcpListener`](crate::shims::net::TcpListener).
pub struct UnixListener {
    io: Listener<net::UnixListener>,
}

impl Accept for net::UnixListener {
    type Accepted = (net::UnixStream, SocketAddr);

    fn accept(&self) -> io::Result<Self::Accepted> {
        net::UnixListener::accept(self)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        net::UnixListener::set_nonblocking(self, nonblocking)
    }

    /// That of a listener that was shut down, of which only a blocking one is told.
    fn hidden_error(&self) -> Option<io::Error> {
        let shut = socket::is_shut_for_reading(self.as_fd());
        shut.then(|| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl UnixListener {
    fn fresh(listener: net::UnixListener) -> UnixListener {
        UnixListener {
            io: Listener::new(Descriptor::fresh(listener)),
        }
    }

    /// Like [`std::os::unix::net::UnixListener::bind`].
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        net::UnixListener::bind(path).map(UnixListener::fresh)
    }

    /// Like [`std::os::unix::net::UnixListener::bind_addr`].
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixListener> {
        net::UnixListener::bind_addr(socket_addr).map(UnixListener::fresh)
    }

    /// Like [`std::os::unix::net::UnixListener::accept`].
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, peer) = self.io.accept()?;
        Ok((UnixStream::fresh(stream), peer))
    }

    /// Like [`std::os::unix::net::UnixListener::try_clone`]: another descriptor of the same
    /// listener.
    pub fn try_clone(&self) -> io::Result<UnixListener> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UnixListener {
            io: self.io.share(duplicate),
        })
    }

    /// Like [`std::os::unix::net::UnixListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::os::unix::net::UnixListener::set_nonblocking`]: in non-blocking mode, `accept`
    /// returns `WouldBlock` instead of parking.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.io.set_nonblocking(nonblocking)
    }

    /// Like [`std::os::unix::net::UnixListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::os::unix::net::UnixListener::incoming`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

/// The connections of a listener, for ever. Like [`std::os::unix::net::Incoming`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

descriptor_conversions! {
    UnixListener, net::UnixListener,
    adopt: |listener| UnixListener {
        io: Listener::new(Descriptor::foreign(listener)),
    },
    release: |listener| listener.io.into_inner(),
}

from_raw_descriptor!(UnixListener: net::UnixListener);
