//! Unix datagram sockets.
#![forbid(unsafe_code)]

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::park;
use crate::pool::unblock_operation;
use crate::reactor::{Descriptor, Direction};
use crate::shims::back_off::BackOff;
use crate::shims::datagram::DatagramIo;
use crate::shims::descriptor::{PassDescriptors, descriptor_conversions};
use crate::shims::park_or_block::park_or_block;
use crate::shims::socket::{SocketIo, std_methods, timeout_methods};
use crate::sys::socket::{self, Blocking, would_block};

/// The longest pause between attempts to send, while no descriptor can be had to wait with.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Like [`std::os::unix::net::UnixDatagram`], but waits park the coroutine.
pub struct UnixDatagram {
    io: Descriptor<net::UnixDatagram>,
}

impl UnixDatagram {
    /// Wraps a new socket in blocking mode.
    fn fresh(socket: net::UnixDatagram) -> UnixDatagram {
        UnixDatagram {
            io: Descriptor::fresh(socket),
        }
    }

    /// Like [`std::os::unix::net::UnixDatagram::bind`].
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        net::UnixDatagram::bind(path).map(UnixDatagram::fresh)
    }

    /// Like [`std::os::unix::net::UnixDatagram::bind_addr`].
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixDatagram> {
        net::UnixDatagram::bind_addr(socket_addr).map(UnixDatagram::fresh)
    }

    /// Like [`std::os::unix::net::UnixDatagram::unbound`].
    pub fn unbound() -> io::Result<UnixDatagram> {
        net::UnixDatagram::unbound().map(UnixDatagram::fresh)
    }

    /// Like [`std::os::unix::net::UnixDatagram::pair`].
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = net::UnixDatagram::pair()?;
        Ok((UnixDatagram::fresh(a), UnixDatagram::fresh(b)))
    }

    /// Like [`std::os::unix::net::UnixDatagram::connect`].
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.io.get().connect(path)
    }

    /// Like [`std::os::unix::net::UnixDatagram::try_clone`]: returns another descriptor of the same
    /// socket.
    pub fn try_clone(&self) -> io::Result<UnixDatagram> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UnixDatagram {
            io: self.io.share(duplicate),
        })
    }

    /// Like [`std::os::unix::net::UnixDatagram::recv_from`].
    ///
    /// A sender with a path of the full 108 bytes appears as unnamed. std refuses to bind such a path.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::recv_from_unix(fd, buf),
            net::UnixDatagram::recv_from,
            || Ok((0, socket::unnamed()?)),
        )
    }

    /// Like [`std::os::unix::net::UnixDatagram::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::recv(fd, buf),
            net::UnixDatagram::recv,
            || Ok(0),
        )
    }

    /// Like [`std::os::unix::net::UnixDatagram::send_to`].
    ///
    /// Waiting for room at a receiver uses another descriptor for as long as the wait takes. A
    /// connected socket that has sent as much as it may waits on the [pool](crate::unblock): if the
    /// runtime shuts down meanwhile, the datagram may still be sent. If no descriptor can be had, the
    /// coroutine tries again after pauses.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        park_or_block(
            path,
            |path| self.send_to_parking(buf, &SocketAddr::from_pathname(path)?),
            |path| self.io.get().send_to(buf, path),
        )
    }

    /// Like [`std::os::unix::net::UnixDatagram::send_to_addr`]. Waits as
    /// [`send_to`](UnixDatagram::send_to) does.
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        park_or_block(
            socket_addr,
            |socket_addr| self.send_to_parking(buf, socket_addr),
            |socket_addr| self.io.get().send_to_addr(buf, socket_addr),
        )
    }

    /// Sends from a coroutine.
    fn send_to_parking(&self, buf: &[u8], to: &SocketAddr) -> io::Result<usize> {
        let name = socket::unix_name(to)?;
        let (mut time_limit, mut back_off) = (TimeLimit::new(self), BackOff::up_to(LONGEST_PAUSE));
        loop {
            park::spend_operation();
            let socket = self.io.get();
            // Makes an attempt even if the poll has not reported the socket as writable: a connected
            // socket is not writable while its peer is full, but `to` may be another socket.
            let error = match socket::send_to_unix(socket.as_fd(), buf, &name) {
                Err(error) if would_block(&error) && !self.io.is_nonblocking() => error,
                done => return done,
            };
            let left = time_limit.left(error)?;
            let has_waited = if !socket::is_send_buffer_full(socket.as_fd())? {
                self.wait_for_room_at(to, left)?
            } else if socket.peer_addr().is_err() {
                self.wait_for_own_room(left)?;
                true
            } else {
                // A poll reports room in this socket only while the peer has room, too.
                false
            };
            if !has_waited {
                match socket.try_clone() {
                    Ok(own) => return send_to_on_pool(own, buf, to),
                    // No descriptor can be had. The next attempt to send needs none.
                    Err(_) => back_off.pause(left)?,
                }
            }
        }
    }

    /// Waits until this socket, which has no peer, has room for another datagram; or until `timeout`
    /// has passed.
    fn wait_for_own_room(&self, timeout: Option<Duration>) -> io::Result<()> {
        let sending = self.io.operation(Direction::Write).timeout(timeout);
        let room = sending.run(
            |socket| match socket::is_send_buffer_full(socket.as_fd())? {
                true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
                false => Ok(()),
            },
        );
        unless_timed_out(room)
    }

    /// Waits until the receiver at `to` has room for a datagram, or until `timeout` has passed.
    ///
    /// A poll on a socket reports room only at the peer of that socket. So this makes another socket
    /// and connects it to the receiver. Returns false if the receiver refuses, or if no other socket
    /// can be had.
    #[cold]
    fn wait_for_room_at(&self, to: &SocketAddr, timeout: Option<Duration>) -> io::Result<bool> {
        let Ok(probe) = net::UnixDatagram::unbound() else {
            return Ok(false);
        };
        if probe.connect_addr(to).is_err() {
            return Ok(false);
        }
        let probe = Descriptor::fresh(probe);
        let sending = probe.operation(Direction::Write).timeout(timeout);
        let room = sending.run(|probe| match socket::is_writable(probe.as_fd()) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        });
        unless_timed_out(room).map(|()| true)
    }

    /// Like [`std::os::unix::net::UnixDatagram::send`].
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.io.write_with(
            buf,
            |writing, buf| writing.run(|socket| socket::send(socket.as_fd(), buf)),
            net::UnixDatagram::send,
        )
    }

    /// Like [`std::os::unix::net::UnixDatagram::shutdown`]: wakes the coroutines that are parked in
    /// the direction.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)?;
        // While datagrams fill the socket, a poll does not report the shutdown to a sender.
        self.io.retry();
        Ok(())
    }

    timeout_methods!(std::os::unix::net::UnixDatagram);

    std_methods! {
        std::os::unix::net::UnixDatagram:
        fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()>;
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn peer_addr(&self) -> io::Result<SocketAddr>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

/// The result of a wait that does not fail when its timeout has passed. The next attempt to send shows
/// whether there is room.
fn unless_timed_out(waited: io::Result<()>) -> io::Result<()> {
    match waited {
        Err(error) if would_block(&error) => Ok(()),
        done => done,
    }
}

/// Sends with a blocking call on a thread of the pool.
#[cold]
fn send_to_on_pool(socket: net::UnixDatagram, buf: &[u8], to: &SocketAddr) -> io::Result<usize> {
    let (buf, to) = (buf.to_vec(), to.clone());
    unblock_operation(move || {
        loop {
            match socket.send_to_addr(&buf, &to) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    })?
}

/// The time that a send of several waits may take in all: the socket's write timeout.
struct TimeLimit<'a> {
    socket: &'a UnixDatagram,
    /// When the first wait began, and the timeout of the socket at that time.
    began: Option<(Instant, Option<Duration>)>,
}

impl TimeLimit<'_> {
    fn new(socket: &UnixDatagram) -> TimeLimit<'_> {
        TimeLimit {
            socket,
            began: None,
        }
    }

    /// The time that is left, or `None` without a limit. Fails with `error` when no time is left.
    fn left(&mut self, error: io::Error) -> io::Result<Option<Duration>> {
        let (began, timeout) = match self.began {
            Some(began) => began,
            None => *self
                .began
                .insert((Instant::now(), self.socket.write_timeout()?)),
        };
        match timeout.map(|timeout| timeout.saturating_sub(began.elapsed())) {
            Some(Duration::ZERO) => Err(error),
            left => Ok(left),
        }
    }
}

impl PassDescriptors for UnixDatagram {
    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize> {
        self.io.send_fds(fds, buf)
    }

    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::recv_fds(fd, max, buf, Blocking::Never),
            |socket, buf| socket::recv_fds(socket.as_fd(), max, buf, Blocking::Allowed),
            || Ok((0, Vec::new())),
        )
    }
}

descriptor_conversions!(UnixDatagram: net::UnixDatagram);
