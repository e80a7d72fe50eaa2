//! The servers of the TCP works: for each peer, an echo server on one worker.
//!
//! Each server runs in its own process. The process prints its address, and then answers each line
//! on its standard input with the CPU time that the process has used. The process ends when its
//! standard input ends.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peers::{ANY_PORT, Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::usage::Usage;

const BUFFER: usize = 16 << 10;

/// Serves echoes until the process ends. If `once`, each connection is closed after its first message.
pub(crate) fn serve(peer: Peer, once: bool) -> io::Result<()> {
    match peer {
        Peer::Greenroom => blocking::<Greenroom>(once),
        Peer::May => blocking::<May>(once),
        Peer::Threads => blocking::<Threads>(once),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(once)),
        Peer::Mio => by_hand(once, Echo),
    }
}

/// Prints the server's address, and starts a thread that answers with the CPU time. The thread
/// leaves the worker nothing to do but serve.
pub(crate) fn announce(addr: SocketAddr) -> io::Result<()> {
    println!("{addr}");
    thread::Builder::new().spawn(|| {
        for line in io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            let used = Usage::own();
            println!("{} {}", used.user, used.system);
        }
        std::process::exit(0);
    })?;
    Ok(())
}

fn blocking<P: Blocking>(once: bool) -> io::Result<()> {
    P::run(1, move || {
        let (listener, addr) = P::listen()?;
        announce(addr)?;
        loop {
            let mut stream = P::accept(&listener)?;
            // A broken connection ends its task. The client reports the error.
            P::spawn(move || -> io::Result<()> {
                if !once {
                    P::set_nodelay(&stream)?;
                }
                let mut buf = vec![0; BUFFER];
                loop {
                    let n = stream.read(&mut buf)?;
                    if n == 0 {
                        return Ok(());
                    }
                    stream.write_all(&buf[..n])?;
                    if once {
                        return Ok(());
                    }
                }
            });
        }
    })
}

async fn asynchronous(once: bool) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
    announce(listener.local_addr()?)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if !once {
                stream.set_nodelay(true)?;
            }
            let mut buf = vec![0; BUFFER];
            loop {
                let n = stream.read(&mut buf).await?;
                if n == 0 {
                    return Ok(());
                }
                stream.write_all(&buf[..n]).await?;
                if once {
                    return io::Result::Ok(());
                }
            }
        });
    }
}

/// What a server by hand says.
pub(crate) trait Answers {
    /// The answer to `partial` and `input`, which has come just now. What is not complete goes to `partial`.
    fn answer<'a>(&'a mut self, partial: &mut Vec<u8>, input: &'a [u8]) -> io::Result<&'a [u8]>;
}

struct Echo;

impl Answers for Echo {
    fn answer<'a>(&'a mut self, _: &mut Vec<u8>, input: &'a [u8]) -> io::Result<&'a [u8]> {
        Ok(input)
    }
}

/// A server without a runtime: edge-triggered, with one buffer for all connections.
pub(crate) fn by_hand(once: bool, mut answers: impl Answers) -> io::Result<()> {
    const LISTENER: Token = Token(usize::MAX);
    let mut poll = Poll::new()?;
    let mut listener = mio::net::TcpListener::bind(ANY_PORT.parse().expect("an address"))?;
    let registry = poll.registry().try_clone()?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    announce(listener.local_addr()?)?;

    let mut events = Events::with_capacity(1024);
    let mut buf = vec![0; BUFFER];
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let Token(index) = event.token();
            if event.token() != LISTENER {
                // The slot is empty if an earlier event of this batch has closed the connection.
                if let Some(connection) = &mut connections[index]
                    && connection
                        .turn(event, &mut buf, once, &mut answers)
                        .unwrap_or(Turn::Close)
                        == Turn::Close
                {
                    connections[index] = None;
                    free.push(index);
                }
                continue;
            }
            while let Some((mut stream, _)) = unless_blocked(listener.accept())? {
                if !once {
                    stream.set_nodelay(true)?;
                }
                let index = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, Token(index), interest)?;
                connections[index] = Some(Connection {
                    stream,
                    partial: Vec::new(),
                    unsent: Vec::new(),
                });
            }
        }
    }
}

#[derive(PartialEq)]
enum Turn {
    Wait,
    Close,
}

struct Connection {
    stream: mio::net::TcpStream,
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

impl Connection {
    fn turn(
        &mut self,
        event: &Event,
        buf: &mut [u8],
        once: bool,
        answers: &mut impl Answers,
    ) -> io::Result<Turn> {
        if !self.unsent.is_empty() {
            if !event.is_writable() {
                return Ok(Turn::Wait);
            }
            let unsent = std::mem::take(&mut self.unsent);
            if !self.send(&unsent)? {
                return Ok(Turn::Wait);
            }
            if once {
                return Ok(Turn::Close);
            }
        } else if !event.is_readable() {
            return Ok(Turn::Wait);
        }
        while let Some(n) = unless_blocked(self.stream.read(buf))? {
            if n == 0 {
                return Ok(Turn::Close);
            }
            let answer = answers.answer(&mut self.partial, &buf[..n])?;
            let all_sent = self.send(answer)?;
            if all_sent && once {
                return Ok(Turn::Close);
            }
            // A short read has emptied the socket: more data will cause another edge.
            if !all_sent || n < buf.len() {
                break;
            }
        }
        Ok(Turn::Wait)
    }

    /// Sends as many bytes as possible, and keeps the rest. Returns whether no bytes are left.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            match unless_blocked(self.stream.write(bytes))? {
                Some(n) => bytes = &bytes[n..],
                None => break,
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(bytes.is_empty())
    }
}

/// Turns `WouldBlock` into `None`.
pub(crate) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
