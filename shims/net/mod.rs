//! [`std::net`], but waits park the coroutine.
#![forbid(unsafe_code)]

mod addr;
pub(crate) mod connect_within;
pub(crate) mod listen_options;
mod tcp_listener;
mod tcp_stream;
mod udp_socket;

pub use ::std::net::*;

pub use addr::ToSocketAddrs;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;
pub use udp_socket::UdpSocket;

use std::io;

use crate::park::is_error_of_interrupt;

/// Calls `f` with each address that `addrs` resolves to, until a call succeeds or is interrupted. If all
/// fail, returns the last error, as std does.
fn each_addr<A: ToSocketAddrs, R>(
    addrs: A,
    mut f: impl FnMut(SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut last = None;
    for addr in addrs.to_socket_addrs()? {
        match f(addr) {
            Ok(done) => return Ok(done),
            Err(error) if is_error_of_interrupt(&error) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(no_address))
}

fn no_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "could not resolve to any addresses",
    )
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "connection timed out")
}
