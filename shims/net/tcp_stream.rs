//! TCP connections.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::{ToSocketAddrs, each_addr, timed_out};
use crate::pool::unblock_in_drop;
use crate::reactor::{Descriptor, Direction};
use crate::shims::descriptor::{
    descriptor_conversions, reads_and_writes_by_reference, release_shared,
};
use crate::shims::io::copy::{Part, Source};
use crate::shims::io::makefile::makes_files;
use crate::shims::park_or_block::park_or_block;
use crate::shims::socket::{SocketIo, serving_methods, std_methods, timeout_methods};
use crate::sys::socket;

/// Like [`std::net::TcpStream`], but waits park the coroutine.
///
/// The descriptor is in blocking mode, as std's is, and code that uses the raw descriptor sees that
/// mode. A mode or a timeout that such code sets counts from the next wait on, if the descriptor was
/// handed out (`as_fd`, `as_raw_fd`) since the last wait.
///
/// Dropping a stream with `SO_LINGER` set parks the coroutine until the close is done, on the
/// [pool](crate::unblock). A coroutine that unwinds from a panic leaves the close to the pool and goes
/// on.
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

    /// Wraps a new connection in blocking mode and without timeouts.
    pub(super) fn fresh(stream: net::TcpStream) -> TcpStream {
        TcpStream::new(Descriptor::fresh(stream))
    }

    /// The std type, for use inside this crate: the user must not get the descriptor from here.
    pub(in crate::shims) fn as_std(&self) -> &net::TcpStream {
        self.io.get()
    }

    /// Like [`std::net::TcpStream::connect`].
    ///
    /// # Errors
    ///
    /// As std: if no address can be connected to, the error of the last one.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        each_addr(addr, |addr| {
            park_or_block(
                addr,
                |addr| connect(addr, None),
                |addr| net::TcpStream::connect(addr).map(TcpStream::fresh),
            )
        })
    }

    /// Like [`std::net::TcpStream::connect_timeout`].
    ///
    /// # Errors
    ///
    /// As std: `TimedOut`, or `InvalidInput` for a timeout of zero.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let block = || net::TcpStream::connect_timeout(addr, timeout).map(TcpStream::fresh);
        if timeout.is_zero() {
            // std fails without waiting.
            return block();
        }
        park_or_block((), |()| connect(*addr, Some(timeout)), |()| block())
    }

    /// Like [`std::net::TcpStream::shutdown`]: wakes the coroutines that are parked in the direction.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)
    }

    /// Like [`std::net::TcpStream::try_clone`]: returns another descriptor of the same connection.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        let duplicate = self.io.get().try_clone()?;
        Ok(TcpStream::new(self.io.share(duplicate)))
    }

    /// Like [`std::net::TcpStream::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let asked = buf.len();
        self.io.read_with(
            buf,
            |reading, buf| {
                let peeked = reading.run(|stream| socket::peek(stream.as_fd(), buf));
                self.or_nothing(asked, peeked)
            },
            net::TcpStream::peek,
        )
    }

    /// The result of a read of `asked` bytes in a coroutine. A read of no bytes waits as any other, but
    /// succeeds when its timeout has passed.
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

    timeout_methods!(std::net::TcpStream);

    serving_methods!();

    /// See `SocketIo::read_unless`.
    #[inline]
    pub(crate) fn read_unless(
        &self,
        buf: &mut [u8],
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Option<usize>> {
        let asked = buf.len();
        self.io.read_unless(
            give_up,
            |stream| socket::recv(stream.as_fd(), buf),
            |&received| is_short(received, asked),
        )
    }

    std_methods! {
        std::net::TcpStream:
        fn peer_addr(&self) -> io::Result<SocketAddr>;
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;
        fn nodelay(&self) -> io::Result<bool>;
        fn set_ttl(&self, ttl: u32) -> io::Result<()>;
        fn ttl(&self) -> io::Result<u32>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

makes_files!(TcpStream);

/// Closes a connection. With `SO_LINGER` set, the close waits until what was written has arrived, or
/// until the time that the option sets has passed.
fn close(stream: net::TcpStream) {
    match socket::lingers(stream.as_fd()) {
        true => unblock_in_drop(move || drop(stream)),
        false => drop(stream),
    }
}

/// Connects to `addr` in a coroutine. Fails with `TimedOut` if that takes longer than `timeout`.
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
        let asked = buf.len();
        self.io.read_with(
            buf,
            |reading, buf| {
                let read = reading.run_stream(
                    |stream| socket::recv(stream.as_fd(), buf),
                    |&received| is_short(received, asked),
                );
                self.or_nothing(asked, read)
            },
            |mut stream, buf| stream.read(buf),
        )
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.io.read_with(
            bufs,
            |reading, bufs| match socket::asked(bufs) {
                // Unlike a plain read of no bytes, a vectored read of no bytes does not wait.
                0 => self.io.get().read_vectored(bufs),
                asked => reading.run_stream(
                    |stream| socket::recv_vectored(stream.as_fd(), bufs),
                    |&received| is_short(received, asked),
                ),
            },
            |mut stream, bufs| stream.read_vectored(bufs),
        )
    }
}

impl Source for TcpStream {
    fn fill(&self, most: usize) -> io::Result<Part> {
        self.io.read_with(
            (),
            |reading, ()| {
                reading.run_stream(
                    |stream| Part::fill(most, |buf| socket::recv(stream.as_fd(), buf)),
                    |part| is_short(part.len(), most),
                )
            },
            |mut stream, ()| Part::fill(most, |buf| stream.read(buf)),
        )
    }
}

/// Whether a read has emptied the socket: the read got some bytes, but fewer than asked for.
fn is_short(received: usize, asked: usize) -> bool {
    0 < received && received < asked
}

impl Write for &TcpStream {
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

descriptor_conversions! {
    TcpStream: net::TcpStream,
    adopt: |stream| TcpStream::new(Descriptor::foreign(stream)),
    /// # Panics
    ///
    /// If a file made by [`makefile`](TcpStream::makefile) still shares the connection, and no
    /// descriptor can be had for a duplicate.
    release: |stream| release_shared(stream.io, net::TcpStream::try_clone),
}
