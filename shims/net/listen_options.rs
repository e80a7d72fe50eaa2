//! Options of a listener.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use rustix::net::{self, SocketFlags, SocketType, sockopt};

use super::{TcpListener, ToSocketAddrs, each_addr};
use crate::sys::socket::family;

/// Options of a [`TcpListener`] that must be set before the listener listens, and that std does not
/// offer.
///
/// With the defaults, [`listen`](ListenOptions::listen) does the same as [`TcpListener::bind`].
///
/// ```
/// use greenroom::ListenOptions;
///
/// // Two listeners of one port. The kernel divides the connections between the two.
/// let options = ListenOptions::new().backlog(1024).reuse_port(true);
/// let one = options.listen("127.0.0.1:0")?;
/// let other = options.listen(one.local_addr()?)?;
/// # drop(other);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `listen`"]
pub struct ListenOptions {
    backlog: u32,
    reuse_address: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

impl ListenOptions {
    /// The options of [`TcpListener::bind`].
    pub fn new() -> ListenOptions {
        ListenOptions {
            backlog: 128,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
        }
    }

    /// Sets how many connections may wait to be accepted. The default is 128.
    ///
    /// Linux lets one more connection wait, and caps the number at `net.core.somaxconn`. The kernel
    /// does not answer further attempts to connect, so the peers' kernels repeat the attempts.
    pub fn backlog(mut self, backlog: u32) -> ListenOptions {
        self.backlog = backlog;
        self
    }

    /// Sets whether the address may be bound while connections of an earlier listener still use the
    /// address (`SO_REUSEADDR`). The default is true.
    pub fn reuse_address(mut self, reuse_address: bool) -> ListenOptions {
        self.reuse_address = reuse_address;
        self
    }

    /// Sets whether other sockets may listen on the same address (`SO_REUSEPORT`). The default is
    /// false.
    ///
    /// All sockets on the address must set the option and belong to the same user. Each gets a part of
    /// the connections.
    pub fn reuse_port(mut self, reuse_port: bool) -> ListenOptions {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets whether a listener on an IPv6 address accepts IPv6 connections only (`IPV6_V6ONLY`). The
    /// default is the system's (`net.ipv6.bindv6only`). The option has no effect on IPv4 addresses.
    pub fn only_v6(mut self, only_v6: bool) -> ListenOptions {
        self.only_v6 = Some(only_v6);
        self
    }

    /// Listens on the first address of `addr` that can be bound.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`]: if no address can be bound, the error of the last one.
    pub fn listen<A: ToSocketAddrs>(&self, addr: A) -> io::Result<TcpListener> {
        each_addr(addr, |addr| self.listen_on(addr))
    }

    fn listen_on(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let family = family(addr);
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, self.reuse_address)?;
        sockopt::set_socket_reuseport(&socket, self.reuse_port)?;
        if let (SocketAddr::V6(_), Some(only_v6)) = (addr, self.only_v6) {
            sockopt::set_ipv6_v6only(&socket, only_v6)?;
        }
        net::bind(&socket, &addr)?;
        net::listen(&socket, i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener::fresh(socket.into()))
    }
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions::new()
    }
}
