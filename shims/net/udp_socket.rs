//! UDP sockets.

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use super::{ToSocketAddrs, each_addr};
use crate::reactor::Descriptor;
use crate::shims::datagram::receive;
use crate::shims::descriptor::{from_raw_descriptor, plain_descriptor_conversions};
use crate::shims::socket::waits_as_set;
use crate::sys::socket;
use crate::task;

/// Like [`std::net::UdpSocket`], but waits park the coroutine.
pub struct UdpSocket {
    io: Descriptor<net::UdpSocket>,
}

impl UdpSocket {
    fn receive<R>(&self, op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<Option<R>> {
        receive(&self.io, self.reading(), op)
    }

    /// Like [`std::net::UdpSocket::bind`].
    ///
    /// # Errors
    ///
    /// As std: of several addresses, the last one's.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let socket = each_addr(addr, net::UdpSocket::bind)?;
        Ok(UdpSocket {
            io: Descriptor::fresh(socket),
        })
    }

    /// Like [`std::net::UdpSocket::recv_from`].
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if !task::on_coroutine() {
            return self.io.get().recv_from(buf);
        }
        self.receive(|socket| socket::recv_from(socket, buf))?
            .ok_or_else(socket::no_internet_address)
    }

    /// Like [`std::net::UdpSocket::peek_from`].
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        if !task::on_coroutine() {
            return self.io.get().peek_from(buf);
        }
        self.receive(|socket| socket::peek_from(socket, buf))?
            .ok_or_else(socket::no_internet_address)
    }

    /// Like [`std::net::UdpSocket::send_to`].
    ///
    /// # Errors
    ///
    /// As std; `InvalidInput` if `addr` resolves to nothing.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no addresses to send data to",
            ));
        };
        if !task::on_coroutine() {
            return self.io.get().send_to(buf, addr);
        }
        self.writing()
            .run(|socket| socket::send_to(socket.as_fd(), buf, addr))
    }

    /// Like [`std::net::UdpSocket::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().peer_addr()
    }

    /// Like [`std::net::UdpSocket::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::net::UdpSocket::try_clone`]: another descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UdpSocket {
            io: self.io.share(duplicate),
        })
    }

    waits_as_set!(std::net::UdpSocket);

    /// Like [`std::net::UdpSocket::set_broadcast`].
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.io.get().set_broadcast(broadcast)
    }

    /// Like [`std::net::UdpSocket::broadcast`].
    pub fn broadcast(&self) -> io::Result<bool> {
        self.io.get().broadcast()
    }

    /// Like [`std::net::UdpSocket::set_multicast_loop_v4`].
    pub fn set_multicast_loop_v4(&self, multicast_loop_v4: bool) -> io::Result<()> {
        self.io.get().set_multicast_loop_v4(multicast_loop_v4)
    }

    /// Like [`std::net::UdpSocket::multicast_loop_v4`].
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.io.get().multicast_loop_v4()
    }

    /// Like [`std::net::UdpSocket::set_multicast_ttl_v4`].
    pub fn set_multicast_ttl_v4(&self, multicast_ttl_v4: u32) -> io::Result<()> {
        self.io.get().set_multicast_ttl_v4(multicast_ttl_v4)
    }

    /// Like [`std::net::UdpSocket::multicast_ttl_v4`].
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.io.get().multicast_ttl_v4()
    }

    /// Like [`std::net::UdpSocket::set_multicast_loop_v6`].
    pub fn set_multicast_loop_v6(&self, multicast_loop_v6: bool) -> io::Result<()> {
        self.io.get().set_multicast_loop_v6(multicast_loop_v6)
    }

    /// Like [`std::net::UdpSocket::multicast_loop_v6`].
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.io.get().multicast_loop_v6()
    }

    /// Like [`std::net::UdpSocket::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get().set_ttl(ttl)
    }

    /// Like [`std::net::UdpSocket::ttl`].
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get().ttl()
    }

    /// Like [`std::net::UdpSocket::join_multicast_v4`].
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.io.get().join_multicast_v4(multiaddr, interface)
    }

    /// Like [`std::net::UdpSocket::join_multicast_v6`].
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.io.get().join_multicast_v6(multiaddr, interface)
    }

    /// Like [`std::net::UdpSocket::leave_multicast_v4`].
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.io.get().leave_multicast_v4(multiaddr, interface)
    }

    /// Like [`std::net::UdpSocket::leave_multicast_v6`].
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.io.get().leave_multicast_v6(multiaddr, interface)
    }

    /// Like [`std::net::UdpSocket::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::net::UdpSocket::connect`].
    ///
    /// # Errors
    ///
    /// As std: of several addresses, the last one's.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_addr(addr, |addr| self.io.get().connect(addr))
    }

    /// Like [`std::net::UdpSocket::send`].
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().send(buf);
        }
        self.writing()
            .run(|socket| socket::send(socket.as_fd(), buf))
    }

    /// Like [`std::net::UdpSocket::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().recv(buf);
        }
        let received = self.receive(|socket| socket::recv(socket, buf))?;
        Ok(received.unwrap_or(0))
    }

    /// Like [`std::net::UdpSocket::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().peek(buf);
        }
        let received = self.receive(|socket| socket::peek(socket, buf))?;
        Ok(received.unwrap_or(0))
    }
}

plain_descriptor_conversions!(UdpSocket: net::UdpSocket);
from_raw_descriptor!(UdpSocket: net::UdpSocket);
