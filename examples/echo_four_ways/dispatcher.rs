//! Handlers that are called when a channel can be read, and when it has ended.

use std::io;
use std::net::SocketAddr;

use greenroom::scope;
use greenroom::shims::net::{TcpListener, TcpStream};

use super::accept::{self, pause_after};
use super::transport::Transport;

/// The handlers of a channel.
trait Dispatcher {
    /// There is something to read, or the end.
    fn handle_read(&mut self, channel: &Transport) -> io::Result<()>;

    fn handle_close(&mut self);
}

/// Calls the handlers of one channel, until it ends: this is what is left of the event loop.
fn dispatch(channel: &Transport, mut dispatcher: impl Dispatcher) {
    let ended = loop {
        let ready = channel.wait_readable();
        if let Err(error) = ready.and_then(|()| dispatcher.handle_read(channel)) {
            break error;
        }
    };
    if ended.kind() == io::ErrorKind::UnexpectedEof {
        let _ = channel.end();
    }
    dispatcher.handle_close();
}

struct Echo {
    address: SocketAddr,
}

impl Dispatcher for Echo {
    fn handle_read(&mut self, channel: &Transport) -> io::Result<()> {
        let mut data = [0; 8192];
        match channel.read(&mut data)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                channel.write(&data[..length]);
                Ok(())
            }
        }
    }

    fn handle_close(&mut self) {
        eprintln!("Disconnected from {}", self.address);
    }
}

fn echo(stream: TcpStream, address: SocketAddr) {
    eprintln!("Connected from {address}");
    dispatch(&Transport::new(stream), Echo { address });
}

pub(crate) fn serve(listener: TcpListener) {
    accept::each(&listener, echo);
}

/// Serves so many clients. The event loop of dispatchers returns when no channel is left, and so does this.
pub(crate) fn serve_only(listener: TcpListener, clients: usize) {
    scope(move |channels| {
        let mut accepted = 0;
        while accepted < clients {
            match listener.accept() {
                Ok((stream, address)) => {
                    accepted += 1;
                    channels.spawn(move || echo(stream, address));
                }
                Err(error) => pause_after(&error),
            }
        }
    });
}
