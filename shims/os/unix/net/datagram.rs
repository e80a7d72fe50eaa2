//! Unix datagram sockets.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{self, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::park;
use crate::pool::unblock_waiting;
use crate::reactor::{Descriptor, Direction};
use crate::shims::back_off::BackOff;
use crate::shims::datagram::receive;
use crate::shims::descriptor::{
    PassDescriptors, from_raw_descriptor, plain_descriptor_conversions,
};
use crate::shims::socket::waits_as_set;
use crate::sys::socket::{self, Blocking, would_block};
use crate::task;

/// Like [`std::os::unix::net::UnixDatagram`], but waits park the coroutine.
pub struct UnixDatagram {
    io: Descriptor<net::UnixDatagram>,
}

impl UnixDatagram {
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

    /// Like [`std::os::unix::net::UnixDatagram::connect_addr`].
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        self.io.get().connect_addr(socket_addr)
    }

    /// Like [`std::os::unix::net::UnixDatagram::try_clone`]: another descriptor of the same
    /// socket.
    pub fn try_clone(&self) -> io::Result<UnixDatagram> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UnixDatagram {
            io: self.io.share(duplicate),
        })
    }

    /// Like [`std::os::unix::net::UnixDatagram::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::os::unix::net::UnixDatagram::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().peer_addr()
    }

    /// Like [`std::os::unix::net::UnixDatagram::recv_from`]. A sender whose path is of the full
    /// 108 bytes, which std refuses to bind, comes out as an unnamed one.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if !task::on_coroutine() {
            return self.io.get().recv_from(buf);
        }
        let received = self.receive(|socket| socket::recv_from_unix(socket, buf))?;
        received.map_or_else(|| Ok((0, socket::unnamed()?)), Ok)
    }

    /// Like [`std::os::unix::net::UnixDatagram::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().recv(buf);
        }
        let received = self.receive(|socket| socket::recv(socket, buf))?;
        Ok(received.unwrap_or(0))
    }

    fn receive<R>(&self, op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<Option<R>> {
        receive(&self.io, self.reading(), op)
    }

    /// Like [`std::os::unix::net::UnixDatagram::send_to`].
    ///
    /// Waiting for room at a receiver takes another descriptor meanwhile. And from a socket that is
    /// connected, and has as much under way as it may, this waits on the [pool](crate::unblock): if
    /// its runtime shuts down then, the datagram may yet be sent. Where no descriptor can be had, it
    /// is tried again from time to time.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().send_to(buf, path);
        }
        self.send_to_and_wait(buf, &SocketAddr::from_pathname(path)?)
    }

    /// Like [`std::os::unix::net::UnixDatagram::send_to_addr`]; waits as
    /// [`send_to`](UnixDatagram::send_to).
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().send_to_addr(buf, socket_addr);
        }
        self.send_to_and_wait(buf, socket_addr)
    }

    /// Sends from a coroutine.
    fn send_to_and_wait(&self, buf: &[u8], to: &SocketAddr) -> io::Result<usize> {
        let name = socket::unix_name(to)?;
        let (mut wait, mut back_off) = (Patience::new(self), BackOff::new());
        loop {
            park::spend_operation();
            // Whether the socket is ready does not matter here: it is not, while its peer is full.
            let socket = self.io.get();
            let error = match socket::send_to_unix(socket.as_fd(), buf, &name) {
                Err(error) if would_block(&error) && !self.io.is_nonblocking() => error,
                done => return done,
            };
            let left = wait.left(error)?;
            let has_waited = if !socket::is_send_buffer_full(socket.as_fd())? {
                self.wait_for_room_at(to, left)?
            } else if socket.peer_addr().is_err() {
                self.wait_for_own_room(left)?;
                true
            } else {
                // A poll tells of room only while the peer has some, too.
                false
            };
            if !has_waited {
                match socket.try_clone() {
                    Ok(own) => return send_to_on_pool(own, buf, to),
                    // No descriptor can be had, nor is one that a send needs.
                    Err(_) => back_off.pause(left),
                }
            }
        }
    }

    /// Waits until less is under way from this socket, which has no peer, than may be; or until
    /// `timeout` has passed.
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

    /// Waits until the receiver at `to` has room for a datagram, or until `timeout` has passed. Of
    /// that a socket tells only about its peer; so this makes another one, for which the receiver is
    /// that. False if the receiver refuses, or no other socket can be had.
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
        if !task::on_coroutine() {
            return self.io.get().send(buf);
        }
        self.writing()
            .run(|socket| socket::send(socket.as_fd(), buf))
    }

    waits_as_set!(std::os::unix::net::UnixDatagram);

    /// Like [`std::os::unix::net::UnixDatagram::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::os::unix::net::UnixDatagram::shutdown`]: wakes coroutines that are parked in
    /// the direction.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get().shutdown(how)?;
        // As long as what was sent is not received, nothing shows in a poll.
        self.io.retry();
        Ok(())
    }
}

/// The end of a wait, where the next attempt to send shows whether it was in vain.
fn unless_timed_out(waited: io::Result<()>) -> io::Result<()> {
    match waited {
        Err(error) if would_block(&error) => Ok(()),
        done => done,
    }
}

/// Sends on the pool, blocking a thread there.
#[cold]
fn send_to_on_pool(socket: net::UnixDatagram, buf: &[u8], to: &SocketAddr) -> io::Result<usize> {
    let (buf, to) = (buf.to_vec(), to.clone());
    unblock_waiting(move || {
        loop {
            match socket.send_to_addr(&buf, &to) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    })
}

/// How long an operation of several waits may still wait.
struct Patience<'a> {
    socket: &'a UnixDatagram,
    /// When it began to wait, and the timeout of the socket then.
    began: Option<(Instant, Option<Duration>)>,
}

impl Patience<'_> {
    fn new(socket: &UnixDatagram) -> Patience<'_> {
        Patience {
            socket,
            began: None,
        }
    }

    /// The time that is left, if that is limited; when it has passed, `error`.
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
        if !task::on_coroutine() {
            return socket::send_fds(self.io.get().as_fd(), fds, buf, Blocking::Allowed);
        }
        self.writing()
            .run(|socket| socket::send_fds(socket.as_fd(), fds, buf, Blocking::Never))
    }

    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if !task::on_coroutine() {
            return socket::recv_fds(self.io.get().as_fd(), max, buf, Blocking::Allowed);
        }
        let received =
            self.receive(|socket| socket::recv_fds(socket, max, buf, Blocking::Never))?;
        Ok(received.unwrap_or_default())
    }
}

plain_descriptor_conversions!(UnixDatagram: net::UnixDatagram);
from_raw_descriptor!(UnixDatagram: net::UnixDatagram);
