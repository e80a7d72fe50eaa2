//! Unix stream connections.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::turn::connect_in_turn;
use crate::park;
use crate::reactor::Descriptor;
use crate::shims::descriptor::{
    PassDescriptors, descriptor_conversions, from_raw_descriptor, reads_and_writes_by_reference,
    release_shared,
};
use crate::shims::io::makefile::makes_files;
use crate::shims::socket::waits_as_set;
use crate::sys::socket::{self, Blocking};
use crate::task;

/// Like [`std::os::unix::net::UnixStream`], but waits park the coroutine.
///
/// It is in blocking mode, as std's, also for whoever holds its raw descriptor; what is set by that
/// counts as with a [`TcpStream`](crate::shims::net::TcpStream).
pub struct UnixStream {
    /// Shared with the files that [`makefile`](UnixStream::makefile) has made.
    io: Arc<Descriptor<net::UnixStream>>,
}

impl UnixStream {
    /// Wraps a connection that was just made, in blocking mode.
    pub(super) fn fresh(stream: net::UnixStream) -> UnixStream {
        UnixStream {
            io: Arc::new(Descriptor::fresh(stream)),
        }
    }

    /// Like [`std::os::unix::net::UnixStream::connect`].
    ///
    /// While the listener's queue is full, one thread at a time waits for it on the
    /// [pool](crate::unblock), for the kernel tells of room there only who blocks; if its runtime
    /// shuts down meanwhile, the listener may yet see a connection, which is closed at once.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        if !task::on_coroutine() {
            return net::UnixStream::connect(path).map(UnixStream::fresh);
        }
        connect(&SocketAddr::from_pathname(path)?)
    }

    /// Like [`std::os::unix::net::UnixStream::connect_addr`]; waits as
    /// [`connect`](UnixStream::connect).
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<UnixStream> {
        if !task::on_coroutine() {
            return net::UnixStream::connect_addr(socket_addr).map(UnixStream::fresh);
        }
        connect(socket_addr)
    }

    /// Like [`std::os::unix::net::UnixStream::pair`].
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = net::UnixStream::pair()?;
        Ok((UnixStream::fresh(a), UnixStream::fresh(b)))
    }

    /// Like [`std::os::unix::net::UnixStream::try_clone`]: another descriptor of the same
    /// connection.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UnixStream {
            io: Arc::new(self.io.share(duplicate)),
        })
    }

    /// Like [`std::os::unix::net::UnixStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::os::unix::net::UnixStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().peer_addr()
    }

    waits_as_set!(std::os::unix::net::UnixStream);

    /// Like [`std::os::unix::net::UnixStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::os::unix::net::UnixStream::shutdown`]: wakes coroutines that are parked in the
    /// direction. (Of a peer that has shut down *its* reading they hear once it reads or closes.)
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)?;
        // As long as what was written is not read, nothing shows in a poll.
        self.io.retry();
        Ok(())
    }
}

makes_files!(UnixStream);

/// Connects to `addr`, from a coroutine.
fn connect(addr: &SocketAddr) -> io::Result<UnixStream> {
    park::spend_operation();
    let name = socket::unix_name(addr)?;
    let stream = match socket::connect_unix(&name)? {
        Ok(connected) => connected,
        Err(refused_for_now) => {
            let addr = name.clone();
            connect_in_turn(&name, move || {
                socket::finish_connecting_unix(&refused_for_now, &addr).map(|()| refused_for_now)
            })?
        }
    };
    Ok(UnixStream::fresh(stream.into()))
}

reads_and_writes_by_reference!(UnixStream);

// No short read counts as the last: descriptors that are sent along split what is there.
impl Read for &UnixStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read(buf);
        }
        self.reading()
            .run(|stream| socket::recv(stream.as_fd(), buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // Unlike a plain read of nothing, one of a list does not wait.
        if !task::on_coroutine() || socket::asked(bufs) == 0 {
            return self.io.get().read_vectored(bufs);
        }
        self.reading()
            .run(|stream| socket::recv_vectored(stream.as_fd(), bufs))
    }
}

impl Write for &UnixStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Nothing is written at once, also where there is no room.
        if !task::on_coroutine() || buf.is_empty() {
            return self.io.get().write(buf);
        }
        self.writing()
            .run(|stream| socket::send(stream.as_fd(), buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !task::on_coroutine() || socket::asked(bufs) == 0 {
            return self.io.get().write_vectored(bufs);
        }
        self.writing()
            .run(|stream| socket::send_vectored(stream.as_fd(), bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PassDescriptors for UnixStream {
    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() && !fds.is_empty() {
            let why = "a stream carries descriptors with bytes only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if !task::on_coroutine() {
            return socket::send_fds(self.io.get().as_fd(), fds, buf, Blocking::Allowed);
        }
        self.writing()
            .run(|stream| socket::send_fds(stream.as_fd(), fds, buf, Blocking::Never))
    }

    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if !task::on_coroutine() {
            return socket::recv_fds(self.io.get().as_fd(), max, buf, Blocking::Allowed);
        }
        self.reading()
            .run(|stream| socket::recv_fds(stream.as_fd(), max, buf, Blocking::Never))
    }
}

descriptor_conversions! {
    UnixStream, net::UnixStream,
    adopt: |stream| UnixStream {
        io: Arc::new(Descriptor::foreign(stream)),
    },
    /// # Panics
    ///
    /// If a file made by [`makefile`](UnixStream::makefile) still shares the connection, and no
    /// descriptor can be had for a duplicate.
    release: |stream| release_shared(stream.io, net::UnixStream::try_clone),
}

from_raw_descriptor!(UnixStream: net::UnixStream);
