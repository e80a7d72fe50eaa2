//! Unix stream connections.
#![forbid(unsafe_code)]

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
    PassDescriptors, descriptor_conversions, reads_and_writes_by_reference, release_shared,
};
use crate::shims::io::copy::{Part, Source};
use crate::shims::io::makefile::makes_files;
use crate::shims::park_or_block::park_or_block;
use crate::shims::socket::{SocketIo, serving_methods, std_methods, timeout_methods};
use crate::sys::socket::{self, Blocking};

/// Like [`std::os::unix::net::UnixStream`], but waits park the coroutine.
///
/// The descriptor is in blocking mode, as std's is, and code that uses the raw descriptor sees that
/// mode. See [`TcpStream`](crate::shims::net::TcpStream) for what such code may set.
pub struct UnixStream {
    /// Shared with the files that [`makefile`](UnixStream::makefile) has made.
    io: Arc<Descriptor<net::UnixStream>>,
}

impl UnixStream {
    /// Wraps a new connection in blocking mode.
    pub(super) fn fresh(stream: net::UnixStream) -> UnixStream {
        UnixStream {
            io: Arc::new(Descriptor::fresh(stream)),
        }
    }

    /// Like [`std::os::unix::net::UnixStream::connect`].
    ///
    /// While the listener's queue is full, one thread of the [pool](crate::unblock) at a time waits
    /// for room, because the kernel reports room only to a blocking connect. If the runtime shuts down
    /// meanwhile, the listener may still get a connection, which is closed at once.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        park_or_block(
            path,
            |path| connect(&SocketAddr::from_pathname(path)?),
            |path| net::UnixStream::connect(path).map(UnixStream::fresh),
        )
    }

    /// Like [`std::os::unix::net::UnixStream::connect_addr`]. Waits as
    /// [`connect`](UnixStream::connect) does.
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<UnixStream> {
        park_or_block(socket_addr, connect, |socket_addr| {
            net::UnixStream::connect_addr(socket_addr).map(UnixStream::fresh)
        })
    }

    /// Like [`std::os::unix::net::UnixStream::pair`].
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = net::UnixStream::pair()?;
        Ok((UnixStream::fresh(a), UnixStream::fresh(b)))
    }

    /// Like [`std::os::unix::net::UnixStream::try_clone`]: returns another descriptor of the same
    /// connection.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UnixStream {
            io: Arc::new(self.io.share(duplicate)),
        })
    }

    /// Like [`std::os::unix::net::UnixStream::shutdown`]: wakes the coroutines that are parked in the
    /// direction.
    ///
    /// If a peer shuts down its reading side, a writer here learns so when the peer reads or closes.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)?;
        // While unread bytes fill the socket, a poll does not report the shutdown to a writer.
        self.io.retry();
        Ok(())
    }

    timeout_methods!(std::os::unix::net::UnixStream);

    serving_methods!();

    /// See `SocketIo::read_unless`.
    pub(crate) fn read_unless(
        &self,
        buf: &mut [u8],
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Option<usize>> {
        let read = |stream: &net::UnixStream| socket::recv(stream.as_fd(), buf);
        self.io.read_unless(give_up, read, |_| false)
    }

    std_methods! {
        std::os::unix::net::UnixStream:
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn peer_addr(&self) -> io::Result<SocketAddr>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

makes_files!(UnixStream);

/// Connects to `addr` in a coroutine.
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

// A short read does not mean that the socket is empty: the kernel ends a read where descriptors were
// sent along. The next read therefore makes an attempt before it parks.
impl Read for &UnixStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.read_with(
            buf,
            |reading, buf| reading.run(|stream| socket::recv(stream.as_fd(), buf)),
            |mut stream, buf| stream.read(buf),
        )
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.io.read_with(
            bufs,
            |reading, bufs| match socket::asked(bufs) {
                // Unlike a plain read of no bytes, a vectored read of no bytes does not wait.
                0 => self.io.get().read_vectored(bufs),
                _ => reading.run(|stream| socket::recv_vectored(stream.as_fd(), bufs)),
            },
            |mut stream, bufs| stream.read_vectored(bufs),
        )
    }
}

impl Source for UnixStream {
    fn fill(&self, most: usize) -> io::Result<Part> {
        self.io.read_with(
            (),
            |reading, ()| {
                reading.run(|stream| Part::fill(most, |buf| socket::recv(stream.as_fd(), buf)))
            },
            |mut stream, ()| Part::fill(most, |buf| stream.read(buf)),
        )
    }
}

impl Write for &UnixStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.io.write_stream(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.io.write_stream_vectored(bufs)
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
        self.io.send_fds(fds, buf)
    }

    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.io.read_with(
            buf,
            |reading, buf| {
                reading.run(|stream| socket::recv_fds(stream.as_fd(), max, buf, Blocking::Never))
            },
            |stream, buf| socket::recv_fds(stream.as_fd(), max, buf, Blocking::Allowed),
        )
    }
}

descriptor_conversions! {
    UnixStream: net::UnixStream,
    adopt: |stream| UnixStream {
        io: Arc::new(Descriptor::foreign(stream)),
    },
    /// # Panics
    ///
    /// If a file made by [`makefile`](UnixStream::makefile) still shares the connection, and no
    /// descriptor can be had for a duplicate.
    release: |stream| release_shared(stream.io, net::UnixStream::try_clone),
}
