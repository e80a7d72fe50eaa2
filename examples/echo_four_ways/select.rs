//! One coroutine for all clients. It waits by `select`, and keeps by hand what is to be sent to each client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::select::select;

use super::accept::pause_after;

/// As long as so much is to be sent to a client, nothing is received from it.
const MOST_PENDING: usize = 256 * 1024;

/// How much the system keeps of it. It would keep megabytes for a client that does not read.
const SEND_BUFFER: usize = 64 * 1024;

struct Client {
    stream: TcpStream,
    address: SocketAddr,
    /// What is still to be sent.
    data: Vec<u8>,
    /// The client sends no more.
    ended: bool,
}

pub(crate) fn serve(listener: TcpListener) {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let receives = |client: &Client| !client.ended && client.data.len() < MOST_PENDING;
        let ins = indices(&clients, receives);
        let outs = indices(&clients, |client| !client.data.is_empty());
        let mut readable: Vec<BorrowedFd> = vec![listener.as_fd()];
        readable.extend(ins.iter().map(|&of| clients[of].stream.as_fd()));
        let writable: Vec<_> = outs.iter().map(|&of| clients[of].stream.as_fd()).collect();
        let ready = select(&readable, &writable, &[], None).expect("the descriptors are open");

        let mut accepts = false;
        let mut lost = Vec::new();
        for &index in &ready.readable {
            match index.checked_sub(1) {
                None => accepts = true,
                Some(index) if clients[ins[index]].receive().is_err() => lost.push(ins[index]),
                Some(_) => {}
            }
        }
        for &index in &ready.writable {
            if clients[outs[index]].send().is_err() {
                lost.push(outs[index]);
            }
        }
        for index in lost {
            eprintln!("lost {}", clients[index].address);
            clients[index].ended = true;
            clients[index].data.clear();
        }
        clients.retain(|client| !client.ended || !client.data.is_empty());
        if accepts {
            match accept(&listener) {
                Ok(client) => clients.push(client),
                Err(error) => pause_after(&error),
            }
        }
    }
}

fn indices(clients: &[Client], wanted: impl Fn(&Client) -> bool) -> Vec<usize> {
    let of = clients.iter().enumerate();
    of.filter(|(_, client)| wanted(client))
        .map(|(index, _)| index)
        .collect()
}

fn accept(listener: &TcpListener) -> io::Result<Client> {
    let (stream, address) = listener.accept()?;
    eprintln!("Connected from {address}");
    // Otherwise a send waits until there is room for everything.
    stream.set_nonblocking(true)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
    Ok(Client {
        stream,
        address,
        data: Vec::new(),
        ended: false,
    })
}

impl Client {
    fn receive(&mut self) -> io::Result<()> {
        let mut piece = [0; 8192];
        match self.stream.read(&mut piece) {
            Ok(0) => {
                eprintln!("disconnected from {}", self.address);
                self.ended = true;
            }
            Ok(length) => {
                eprintln!("{length} bytes from {}", self.address);
                self.data.extend_from_slice(&piece[..length]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        match self.stream.write(&self.data) {
            Ok(length) => {
                eprintln!("{length} bytes to {}", self.address);
                self.data.drain(..length);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match self.data.len() {
            0 => eprintln!("No data currently remain for {}", self.address),
            length => eprintln!("{length} bytes remain for {}", self.address),
        }
        Ok(())
    }
}
