//! Unix stream listeners.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;

use super::UnixStream;
use crate::reactor::Descriptor;
use crate::shims::descriptor::descriptor_conversions;
use crate::shims::listener::{Listener, accept_from, accepts, incoming, listener_methods};
use crate::shims::socket::std_methods;
use crate::sys::socket;

/// Like [`std::os::unix::net::UnixListener`], but waits park the coroutine.
///
/// Where others may accept from the same listener, a coroutine that accepts puts the descriptor into
/// non-blocking mode for the one call. See [`TcpListener`](crate::shims::net::TcpListener).
pub struct UnixListener {
    io: Listener<net::UnixListener>,
}

accepts! {
    net::UnixListener => (net::UnixStream, SocketAddr),
    accept_directly: |listener| {
        let (connection, _) = accept_from(listener)?;
        let connection = net::UnixStream::from(connection);
        // std has no way to make its address from that of the call, which is the same.
        let address = connection.peer_addr()?;
        Ok((connection, address))
    },
    error_if_blocking: error_after_shutdown,
}

/// The error of a blocking accept after the listener was shut down.
fn error_after_shutdown(listener: &net::UnixListener) -> Option<io::Error> {
    let is_shut = socket::is_shut_for_reading(listener.as_fd());
    is_shut.then(|| io::Error::from_raw_os_error(libc::EINVAL))
}

impl UnixListener {
    /// Wraps a new listener in blocking mode.
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

    listener_methods!(UnixListener, std::os::unix::net::UnixListener);

    std_methods! {
        std::os::unix::net::UnixListener:
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

incoming! {
    UnixListener => UnixStream, "std::os::unix::net::Incoming",
    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

descriptor_conversions! {
    UnixListener: net::UnixListener,
    adopt: |listener| UnixListener {
        io: Listener::new(Descriptor::foreign(listener)),
    },
    release: |listener| listener.io.give_away(),
}
