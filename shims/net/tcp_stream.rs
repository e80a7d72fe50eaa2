//! TCP connections.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{ToSocketAddrs, each_addr};
use crate::reactor::{Descriptor, Direction};
use crate::shims::io::makefile::{MakeFile, SocketFile, TextFile};
use crate::sys::socket;
use crate::task;

/// Like [`std::net::TcpStream`], but waits park the coroutine.
///
/// It is in blocking mode, as std's, also for whoever holds its raw descriptor.
pub struct TcpStream {
    /// Shared with the files that [`makefile`](TcpStream::makefile) has made.
    io: Arc<Descriptor<net::TcpStream>>,
}

impl TcpStream {
    /// Wraps a connection that was just made, in blocking mode.
    pub(super) fn fresh(stream: net::TcpStream) -> TcpStream {
        TcpStream {
            io: Arc::new(Descriptor::fresh(stream)),
        }
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
        Ok(TcpStream {
            io: Arc::new(self.io.share(duplicate)),
        })
    }

    /// Like [`std::net::TcpStream::set_read_timeout`].
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.io.get().set_read_timeout(dur)?;
        self.io.set_timeout(Direction::Read, dur);
        Ok(())
    }

    /// Like [`std::net::TcpStream::set_write_timeout`].
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.io.get().set_write_timeout(dur)?;
        self.io.set_timeout(Direction::Write, dur);
        Ok(())
    }

    /// Like [`std::net::TcpStream::read_timeout`].
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.io.get().read_timeout()
    }

    /// Like [`std::net::TcpStream::write_timeout`].
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.io.get().write_timeout()
    }

    /// Like [`std::net::TcpStream::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().peek(buf);
        }
        let operation = self.io.operation(Direction::Read);
        operation
            .socket_timeout(net::TcpStream::read_timeout)
            .run(|stream| socket::peek(stream.as_fd(), buf))
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

    /// Like [`std::net::TcpStream::set_nonblocking`]: in non-blocking mode, operations return
    /// `WouldBlock` instead of parking.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.io.get().set_nonblocking(nonblocking)?;
        self.io.set_nonblocking(nonblocking);
        Ok(())
    }

    /// A buffered two-way file over this connection, which it shares: the connection is closed
    /// when this stream and all its files are gone.
    ///
    /// ```no_run
    /// use greenroom::shims as std;
    /// use std::io::{BufRead, Write};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let mut file = std::net::TcpStream::connect("localhost:7")?.makefile();
    /// file.write_all(b"hello\n")?;
    /// file.flush()?;
    /// for line in file.lines() {
    ///     assert_eq!(line?, "hello");
    ///     break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn makefile(&self) -> SocketFile<TcpStream> {
        SocketFile::new(self.shared())
    }

    /// As [`makefile`](TcpStream::makefile), with settings.
    ///
    /// # Errors
    ///
    /// See [`MakeFile::file`].
    pub fn makefile_with(&self, options: &MakeFile) -> io::Result<SocketFile<TcpStream>> {
        options.file(self.shared())
    }

    /// A buffered two-way text file over this connection, which it shares.
    ///
    /// # Errors
    ///
    /// See [`MakeFile::text`].
    pub fn maketext(&self, options: &MakeFile) -> io::Result<TextFile<TcpStream>> {
        options.text(self.shared())
    }

    /// The same stream, in a handle of its own.
    fn shared(&self) -> TcpStream {
        TcpStream {
            io: Arc::clone(&self.io),
        }
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
    let mut operation = io.operation(Direction::Write);
    if let Some(timeout) = timeout {
        operation = operation.timeout(timeout);
    }
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
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "connection timed out")
        }
        _ => error,
    })
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read(buf);
        }
        let len = buf.len();
        self.io
            .operation(Direction::Read)
            .socket_timeout(net::TcpStream::read_timeout)
            .run_stream(
                |stream| socket::recv(stream.as_fd(), buf),
                |&received| is_short(received, len),
            )
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read_vectored(bufs);
        }
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.io
            .operation(Direction::Read)
            .socket_timeout(net::TcpStream::read_timeout)
            .run_stream(
                |stream| socket::recv_vectored(stream.as_fd(), bufs),
                |&received| is_short(received, len),
            )
    }
}

/// Whether an operation moved something, but less than it could have.
fn is_short(moved: usize, asked: usize) -> bool {
    0 < moved && moved < asked
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().write(buf);
        }
        let operation = self.io.operation(Direction::Write);
        operation
            .socket_timeout(net::TcpStream::write_timeout)
            .run_stream(
                |stream| socket::send(stream.as_fd(), buf),
                |&sent| is_short(sent, buf.len()),
            )
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().write_vectored(bufs);
        }
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let operation = self.io.operation(Direction::Write);
        operation
            .socket_timeout(net::TcpStream::write_timeout)
            .run_stream(
                |stream| socket::send_vectored(stream.as_fd(), bufs),
                |&sent| is_short(sent, len),
            )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.get().fmt(f)
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get().as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.io.get().as_raw_fd()
    }
}

impl IntoRawFd for TcpStream {
    fn into_raw_fd(self) -> RawFd {
        net::TcpStream::from(self).into_raw_fd()
    }
}

impl FromRawFd for TcpStream {
    unsafe fn from_raw_fd(fd: RawFd) -> TcpStream {
        // SAFETY: the caller's promise is the same.
        unsafe { net::TcpStream::from_raw_fd(fd) }.into()
    }
}

impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        net::TcpStream::from(fd).into()
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> OwnedFd {
        net::TcpStream::from(stream).into()
    }
}

/// Takes over a connection of std's, with its mode and timeouts.
impl From<net::TcpStream> for TcpStream {
    fn from(stream: net::TcpStream) -> TcpStream {
        TcpStream {
            io: Arc::new(Descriptor::foreign(stream)),
        }
    }
}

/// Gives the connection up to std.
///
/// # Panics
///
/// If a file made by [`makefile`](TcpStream::makefile) still shares the connection, and no
/// descriptor can be had for a duplicate.
impl From<TcpStream> for net::TcpStream {
    fn from(stream: TcpStream) -> net::TcpStream {
        Arc::try_unwrap(stream.io).map_or_else(
            |shared| {
                shared
                    .get()
                    .try_clone()
                    .expect("a duplicate of a shared connection")
            },
            Descriptor::into_inner,
        )
    }
}
