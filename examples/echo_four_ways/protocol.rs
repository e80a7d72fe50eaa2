//! Protocols, made by a factory for each connection, and called with what happens to it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use greenroom::shims::net::{TcpListener, TcpStream};

use super::accept;
use super::transport::Transport;

pub(crate) trait Protocol {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]);

    fn connection_lost(&mut self, _reason: Reason) {}
}

/// Why a connection has ended.
pub(crate) enum Reason {
    /// One side has closed it, and everything was sent.
    Done,
    /// By `abort_connection`.
    Aborted,
    Lost(io::Error),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Done => f.write_str("closed cleanly"),
            Reason::Aborted => f.write_str("aborted"),
            Reason::Lost(error) => write!(f, "lost: {error}"),
        }
    }
}

/// Calls `protocol` until the connection ends.
pub(crate) fn converse(transport: &Transport, mut protocol: impl Protocol) {
    protocol.connection_made(transport);
    let mut data = vec![0; 8192];
    let ended = loop {
        match transport.read(&mut data) {
            Ok(0) => break transport.end(),
            Ok(length) => protocol.data_received(transport, &data[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    protocol.connection_lost(match ended {
        _ if transport.was_aborted() => Reason::Aborted,
        Ok(()) => Reason::Done,
        Err(error) => Reason::Lost(error),
    });
}

/// Serves each client with a protocol that `factory` makes.
pub(crate) fn listen_tcp<P: Protocol>(
    listener: &TcpListener,
    factory: impl Fn(SocketAddr) -> P + Send + Sync + 'static,
) {
    accept::each(listener, move |stream: TcpStream, address| {
        converse(&Transport::new(stream), factory(address));
    });
}

struct Echo {
    peer: SocketAddr,
}

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {
        eprintln!("Connected from {}", self.peer);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn connection_lost(&mut self, reason: Reason) {
        eprintln!("Disconnected from {}, {reason}", self.peer);
    }
}

pub(crate) fn serve(listener: TcpListener) {
    listen_tcp(&listener, |peer| Echo { peer });
}
