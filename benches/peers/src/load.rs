//! The client of the TCP works. All servers get the same client.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http;
use crate::server::unless_blocked;
use crate::stats::percentile;

/// The load that a client puts on a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Bytes in a message, which comes back.
    pub(crate) size: usize,
    /// HTTP requests in a message instead, which are answered. 0: there are none.
    pub(crate) requests: usize,
    pub(crate) messages: usize,
    /// Each message has its own connection. The server closes the connection after the message.
    pub(crate) once: bool,
    /// The server is a proxy in front of an echo server.
    pub(crate) proxied: bool,
}

impl Load {
    /// The descriptors that a process may need besides those of its connections.
    pub(crate) const OTHER_DESCRIPTORS: usize = 100;

    /// How many descriptors a process may have.
    pub(crate) fn descriptors() -> usize {
        // SAFETY: `sysconf` only takes a number.
        let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
        // A negative result says that there is no limit.
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// How many pieces of work a message is.
    pub(crate) fn works_per_message(self) -> usize {
        self.requests.max(1)
    }

    /// This load, with no more connections than a process may have.
    pub(crate) fn fitting(self) -> Load {
        let most = Load::descriptors().saturating_sub(Load::OTHER_DESCRIPTORS);
        Load {
            connections: self.connections.min(most.max(1)),
            ..self
        }
    }
}

/// How long one [`Client::send`] may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Warms the server up, prints "ready", waits for a line, and then sends all messages. Each
/// connection sends a message when the previous message has come back.
///
/// Prints the time of all messages in ns, and the 99th percentile of the round trips in µs. Keeps the
/// connections until its standard input ends.
pub(crate) fn run(addr: SocketAddr, load: Load) -> io::Result<()> {
    let (message, answer) = match load.requests {
        0 => (vec![b'm'; load.size], load.size),
        requests => (
            http::REQUEST.repeat(requests),
            http::length_of_answer(addr)? * requests,
        ),
    };
    let mut client = Client {
        addr,
        load,
        poll: Poll::new()?,
        message,
        answer,
        // Longer than an answer, so that a read also finds excess bytes and the end of the stream.
        buf: vec![0; answer + 1],
    };
    let mut connections = Vec::new();
    for index in 0..load.connections {
        connections.push(client.connect(index)?);
        // One connection at a time, so that the connections do not overflow the server's backlog.
        client.send(1, &mut connections[index..], index)?;
    }
    client.send(5 * load.connections, &mut connections, 0)?;
    println!("ready");
    io::stdin().read_line(&mut String::new())?;
    let start = Instant::now();
    let trips = client.send(load.messages, &mut connections, 0)?;
    let elapsed = start.elapsed().as_nanos();
    println!("{elapsed} {}", percentile(&trips, 0.99));
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

struct Client {
    addr: SocketAddr,
    load: Load,
    poll: Poll,
    message: Vec<u8>,
    /// The length of the answer to a message.
    answer: usize,
    buf: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// When the current message was begun, or the connection made for this message.
    since: Instant,
    sent: usize,
    received: usize,
    /// The message has come back. With [`Load::once`], the server has also closed the connection.
    done: bool,
}

impl Client {
    /// Sends `messages` messages over `connections`. The first connection has the number `first`.
    /// Returns the round-trip time of each message, in µs.
    fn send(
        &mut self,
        messages: usize,
        connections: &mut [Connection],
        first: usize,
    ) -> io::Result<Vec<f64>> {
        let start = Instant::now();
        let mut begun = 0;
        for (index, connection) in connections.iter_mut().enumerate().take(messages) {
            self.begin(connection, first + index)?;
            begun += 1;
        }
        let mut trips = Vec::with_capacity(messages);
        let mut events = Events::with_capacity(1024);
        while trips.len() < messages {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if start.elapsed() > PATIENCE {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the server is too slow",
                ));
            }
            for event in &events {
                let Token(number) = event.token();
                // A late event of a connection that is not among `connections` needs no action.
                let Some(connection) = number
                    .checked_sub(first)
                    .and_then(|index| connections.get_mut(index))
                else {
                    continue;
                };
                if connection.done {
                    continue;
                }
                self.write(connection)?;
                self.read(connection)?;
                if connection.done {
                    trips.push(connection.since.elapsed().as_nanos() as f64 / 1e3);
                    if begun < messages {
                        self.begin(connection, number)?;
                        begun += 1;
                    }
                }
            }
        }
        Ok(trips)
    }

    fn connect(&self, number: usize) -> io::Result<Connection> {
        let since = Instant::now();
        let mut stream = TcpStream::connect(self.addr)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(number), interest)?;
        if self.load.once {
            reset_on_close(&stream)?;
        } else {
            stream.set_nodelay(true)?;
        }
        Ok(Connection {
            stream,
            since,
            sent: 0,
            received: 0,
            done: false,
        })
    }

    fn begin(&self, connection: &mut Connection, number: usize) -> io::Result<()> {
        if connection.done && self.load.once {
            *connection = self.connect(number)?;
        } else {
            connection.since = Instant::now();
            connection.sent = 0;
            connection.received = 0;
            connection.done = false;
        }
        self.write(connection)
    }

    fn write(&self, connection: &mut Connection) -> io::Result<()> {
        while connection.sent < self.message.len() {
            match unless_blocked(connection.stream.write(&self.message[connection.sent..]))? {
                Some(n) => connection.sent += n,
                None => break,
            }
        }
        Ok(())
    }

    fn read(&mut self, connection: &mut Connection) -> io::Result<()> {
        let size = self.answer;
        while let Some(n) = unless_blocked(connection.stream.read(&mut self.buf))? {
            if n == 0 {
                if !self.load.once || connection.received < size {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                connection.done = true;
                break;
            }
            connection.received += n;
            let is_right = match self.load.requests {
                0 => self.buf[..n] == self.message[..n],
                _ => connection.received < size || self.buf[..n].ends_with(http::END),
            };
            if connection.received > size || !is_right {
                return Err(io::Error::new(ErrorKind::InvalidData, "not what was sent"));
            }
            if !self.load.once && connection.received == size {
                connection.done = true;
                break;
            }
        }
        Ok(())
    }
}

/// Makes a close reset the connection. Otherwise the ports of thousands of closed connections would
/// stay taken for a minute.
fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the kernel reads as many bytes as `linger` has, and `linger` outlives the call.
    let status = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
