//! TCP connections.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::{ToSocketAddrs, each_addr, timed_out};
use crate::pool::unblock_in_drop;
use crate::reactor::{Descriptor, Direction};
use crate::shims::descriptor::{
    descriptor_conversions, from_raw_descriptor, reads_and_writes_by_reference, release_shared,
};
use crate::shims::io::makefile::makes_files;
use crate::shims::socket::waits_as_set;
use crate::sys::socket;
use crate::task;

/// Like [`std::net::TcpStream`], but waits park the coroutine.
///
/// It is in blocking mode, as std's, also for whoever holds its raw descriptor. What is set by that,
/// a mode or a timeout, counts from the next wait on, if the descriptor was asked for (`as_fd`,
/// `as_raw_fd`) since the last one.
///
/// To drop one with `SO_LINGER` set parks the coroutine as long as the close takes, on the
/// [pool](crate::unblock); amid a panic the close is left to the pool.
pub struct TcpStream {
    /// Shared with the files that [`makefile`](TcpStream::makefile) has made.
    io: Arc<Descriptor<net::TcpStream>>,
}

impl TcpStream {
    pub(super) fn new(io: Descriptor<net::TcpStream>) -> TcpStream {
        TcpStream {
            io: Arc::new(io.closed_by(close)),
        }
    }

    /// Wraps a connection that was just made, in blocking mode and without timeouts.
    pub(super) fn fresh(stream: net::TcpStream) -> TcpStream {
        TcpStream::new(Descriptor::fresh(stream))
    }

    /// What is wrapped, not to be shown to the user.
    pub(in crate::shims) fn as_std(&self) -> &net::TcpStream {
        self.io.get()
    }

    /// Like [`std::net::TcpStream::connect`].
    ///
    /// # Errors
    ///
    /// As std: of several addresses, the last one's.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        each_addr(addr, |addr| {
            if task::on_coroutine() {
                connect(addr, None)
            } else {
                net::TcpStream::connect(addr).map(TcpStream::fresh)
            }
        })
    }

    /// Like [`std::net::TcpStream::connect_timeout`].
    ///
    /// # Errors
    ///
    /// As std: `TimedOut`, or `InvalidInput` for a timeout of zero.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() || !task::on_coroutine() {
            return net::TcpStream::connect_timeout(addr, timeout).map(TcpStream::fresh);
        }
        connect(*addr, Some(timeout))
    }

    /// Like [`std::net::TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().peer_addr()
    }

    /// Like [`std::net::TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::net::TcpStream::shutdown`]: wakes coroutines that are parked in the direction.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)
    }

    /// Like [`std::net::TcpStream::try_clone`]: another descriptor of the same connection.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        let duplicate = self.io.get().try_clone()?;
        Ok(TcpStream::new(self.io.share(duplicate)))
    }

    waits_as_set!(std::net::TcpStream);

    /// Like [`std::net::TcpStream::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().peek(buf);
        }
        let asked = buf.len();
        let peeked = self
            .reading()
            .run(|stream| socket::peek(stream.as_fd(), buf));
        self.or_nothing(asked, peeked)
    }

    /// The end of a read of `asked` bytes. To read nothing waits as well; but having waited in vain,
    /// it has what it asked for.
    fn or_nothing(&self, asked: usize, read: io::Result<usize>) -> io::Result<usize> {
        match read {
            Err(error)
                if asked == 0 && socket::would_block(&error) && !self.io.is_nonblocking() =>
            {
                Ok(0)
            }
            read => read,
        }
    }

    /// Like [`std::net::TcpStream::set_nodelay`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.io.get().set_nodelay(nodelay)
    }

    /// Like [`std::net::TcpStream::nodelay`].
    pub fn nodelay(&self) -> io::Result<bool> {
        self.io.get().nodelay()
    }

    /// Like [`std::net::TcpStream::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get().set_ttl(ttl)
    }

    /// Like [`std::net::TcpStream::ttl`].
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get().ttl()
    }

    /// Like [`std::net::TcpStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }
}

makes_files!(TcpStream);

/// Closes a connection, which with `SO_LINGER` may take as long as that says.
fn close(stream: net::TcpStream) {
    match socket::lingers(stream.as_fd()) {
        true => unblock_in_drop(move || drop(stream)),
        false => drop(stream),
    }
}

/// Connects to `addr`; within `timeout`, if there is one.
fn connect(addr: SocketAddr, timeout: Option<Duration>) -> io::Result<TcpStream> {
    let (socket, connected) = socket::start_connecting(addr)?;
    let stream = TcpStream::fresh(socket.into());
    if !connected {
        finish_connecting(&stream.io, timeout)?;
    }
    stream.io.get().set_nonblocking(false)?;
    Ok(stream)
}

fn finish_connecting(io: &Descriptor<net::TcpStream>, timeout: Option<Duration>) -> io::Result<()> {
    let operation = io.operation(Direction::Write).timeout(timeout);
    let connected = operation.run(|stream| match stream.take_error()? {
        Some(error) => Err(error),
        None => match stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            done => done.map(drop),
        },
    });
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => timed_out(),
        _ => error,
    })
}

reads_and_writes_by_reference!(TcpStream);

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read(buf);
        }
        let len = buf.len();
        let read = self.reading().run_stream(
            |stream| socket::recv(stream.as_fd(), buf),
            |&received| is_short(received, len),
        );
        self.or_nothing(len, read)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let len = socket::asked(bufs);
        // Unlike a plain read of nothing, this one does not wait.
        if !task::on_coroutine() || len == 0 {
            return self.io.get().read_vectored(bufs);
        }
        self.reading().run_stream(
            |stream| socket::recv_vectored(stream.as_fd(), bufs),
            |&received| is_short(received, len),
        )
    }
}

/// Whether a read took something, but less than it could have.
fn is_short(received: usize, asked: usize) -> bool {
    0 < received && received < asked
}

impl Write for &TcpStream {
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

descriptor_conversions! {
    TcpStream, net::TcpStream,
    adopt: |stream| TcpStream::new(Descriptor::foreign(stream)),
    /// # Panics
    ///
    /// If a file made by [`makefile`](TcpStream::makefile) still shares the connection, and no
    /// descriptor can be had for a duplicate.
    release: |stream| release_shared(stream.io, net::TcpStream::try_clone),
}

from_raw_descriptor!(TcpStream: net::TcpStream);
