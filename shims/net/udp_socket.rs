//! UDP sockets.
#![forbid(unsafe_code)]

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use super::{ToSocketAddrs, each_addr};
use crate::reactor::Descriptor;
use crate::shims::datagram::DatagramIo;
use crate::shims::descriptor::descriptor_conversions;
use crate::shims::socket::{SocketIo, std_methods, timeout_methods};
use crate::sys::socket;

/// Like [`std::net::UdpSocket`], but waits park the coroutine.
pub struct UdpSocket {
    io: Descriptor<net::UdpSocket>,
}

impl UdpSocket {
    /// Like [`std::net::UdpSocket::bind`].
    ///
    /// # Errors
    ///
    /// As std: if no address can be bound, the error of the last one.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let socket = each_addr(addr, net::UdpSocket::bind)?;
        Ok(UdpSocket {
            io: Descriptor::fresh(socket),
        })
    }

    /// Like [`std::net::UdpSocket::recv_from`].
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::recv_from(fd, buf),
            net::UdpSocket::recv_from,
            || Err(socket::no_internet_address()),
        )
    }

    /// Like [`std::net::UdpSocket::peek_from`].
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::peek_from(fd, buf),
            net::UdpSocket::peek_from,
            || Err(socket::no_internet_address()),
        )
    }

    /// Like [`std::net::UdpSocket::send_to`].
    ///
    /// # Errors
    ///
    /// As std; `InvalidInput` if `addr` resolves to no address.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let Some(addr) = addr.to_socket_addrs()?.next() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no addresses to send data to",
            ));
        };
        self.io.write_with(
            buf,
            |writing, buf| writing.run(|socket| socket::send_to(socket.as_fd(), buf, addr)),
            |socket, buf| socket.send_to(buf, addr),
        )
    }

    /// Like [`std::net::UdpSocket::try_clone`]: returns another descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        let duplicate = self.io.get().try_clone()?;
        Ok(UdpSocket {
            io: self.io.share(duplicate),
        })
    }

    /// Like [`std::net::UdpSocket::connect`].
    ///
    /// # Errors
    ///
    /// As std: if no address can be connected to, the error of the last one.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_addr(addr, |addr| self.io.get().connect(addr))
    }

    /// Like [`std::net::UdpSocket::send`].
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.io.write_with(
            buf,
            |writing, buf| writing.run(|socket| socket::send(socket.as_fd(), buf)),
            net::UdpSocket::send,
        )
    }

    /// Like [`std::net::UdpSocket::recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::recv(fd, buf),
            net::UdpSocket::recv,
            || Ok(0),
        )
    }

    /// Like [`std::net::UdpSocket::peek`].
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.receive_with(
            buf,
            |fd, buf| socket::peek(fd, buf),
            net::UdpSocket::peek,
            || Ok(0),
        )
    }

    timeout_methods!(std::net::UdpSocket);

    std_methods! {
        std::net::UdpSocket:
        fn peer_addr(&self) -> io::Result<SocketAddr>;
        fn local_addr(&self) -> io::Result<SocketAddr>;
        fn set_broadcast(&self, broadcast: bool) -> io::Result<()>;
        fn broadcast(&self) -> io::Result<bool>;
        fn set_multicast_loop_v4(&self, multicast_loop_v4: bool) -> io::Result<()>;
        fn multicast_loop_v4(&self) -> io::Result<bool>;
        fn set_multicast_ttl_v4(&self, multicast_ttl_v4: u32) -> io::Result<()>;
        fn multicast_ttl_v4(&self) -> io::Result<u32>;
        fn set_multicast_loop_v6(&self, multicast_loop_v6: bool) -> io::Result<()>;
        fn multicast_loop_v6(&self) -> io::Result<bool>;
        fn set_ttl(&self, ttl: u32) -> io::Result<()>;
        fn ttl(&self) -> io::Result<u32>;
        fn join_multicast_v4(
            &self,
            multiaddr: &Ipv4Addr,
            interface: &Ipv4Addr
        ) -> io::Result<()>;
        fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()>;
        fn leave_multicast_v4(
            &self,
            multiaddr: &Ipv4Addr,
            interface: &Ipv4Addr
        ) -> io::Result<()>;
        fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()>;
        fn take_error(&self) -> io::Result<Option<io::Error>>;
    }
}

descriptor_conversions!(UdpSocket: net::UdpSocket);
