//! What a listener can be given before it listens.

use std::io;
use std::net::SocketAddr;

use rustix::net::{self, SocketFlags, SocketType, sockopt};

use super::{TcpListener, ToSocketAddrs, each_addr};
use crate::sys::socket::family;

/// Settings of a [`TcpListener`] that can only be made before it listens, and that std leaves no
/// choice of.
///
/// As they are at first, [`listen`](ListenOptions::listen) is [`TcpListener::bind`].
///
/// ```
/// use greenroom::ListenOptions;
///
/// // Two listeners of one port, between which the kernel divides the connections.
/// let options = ListenOptions::new().backlog(1024).reuse_port(true);
/// let one = options.listen("127.0.0.1:0")?;
/// let other = options.listen(one.local_addr()?)?;
/// # drop(other);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "settings do nothing until `listen`"]
pub struct ListenOptions {
    backlog: u32,
    reuse_address: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

impl ListenOptions {
    /// The settings of [`TcpListener::bind`].
    pub fn new() -> ListenOptions {
        ListenOptions {
            backlog: 128,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
        }
    }

    /// How many connections may wait to be accepted; 128, if not set.
    ///
    /// Linux lets one more wait, and no more than `net.core.somaxconn`. Attempts to connect beyond
    /// that are left unanswered, and so repeated by their kernels.
    pub fn backlog(mut self, backlog: u32) -> ListenOptions {
        self.backlog = backlog;
        self
    }

    /// Whether the address may be bound while connections of a listener before still occupy it
    /// (`SO_REUSEADDR`); true, if not set.
    pub fn reuse_address(mut self, reuse_address: bool) -> ListenOptions {
        self.reuse_address = reuse_address;
        self
    }

    /// Whether other sockets of the same user may listen on the same address, if they say so, too
    /// (`SO_REUSEPORT`): each gets a part of the connections. False, if not set.
    pub fn reuse_port(mut self, reuse_port: bool) -> ListenOptions {
        self.reuse_port = reuse_port;
        self
    }

    /// Whether a listener on an IPv6 address takes IPv6 connections alone (`IPV6_V6ONLY`); the
    /// system's default (`net.ipv6.bindv6only`), if not set. Without effect on IPv4 addresses.
    pub fn only_v6(mut self, only_v6: bool) -> ListenOptions {
        self.only_v6 = Some(only_v6);
        self
    }

    /// Listens on the first address of `addr` that can be listened on.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`]: of several addresses, the last one's.
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
