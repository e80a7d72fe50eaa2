//! What reads, writes and messages return for no bytes, for too many bytes and for invalid arguments.

use super::{std, util};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use util::{everywhere, uninterrupted};

/// The outcome of an operation that would wait: its timeout passes.
const WAITS: Outcome = Err(ErrorKind::WouldBlock);

type Outcome = Result<usize, ErrorKind>;

/// A description, an operation on a `T`, and the expected outcome.
type Case<T> = (&'static str, fn(&mut T) -> io::Result<usize>, Outcome);

#[track_caller]
fn check<T>(kind: &str, make: impl Fn() -> T, cases: &[Case<T>]) {
    everywhere(|| {
        for (what, op, expected) in cases {
            let outcome = uninterrupted(|| op(&mut make())).map_err(|error| error.kind());
            assert_eq!(outcome, *expected, "{kind}: {what}");
        }
    });
}

const TIMEOUT: Option<Duration> = Some(Duration::from_millis(50));

/// More buffers than the kernel takes in one call. All but the last are empty.
fn empty_up_to_the_limit(last: &mut [u8; 1]) -> Vec<IoSliceMut<'_>> {
    let mut bufs: Vec<_> = (0..1024).map(|_| IoSliceMut::new(&mut [])).collect();
    bufs.push(IoSliceMut::new(last));
    bufs
}

fn empty_up_to_the_limit_to_write() -> Vec<IoSlice<'static>> {
    let mut bufs = vec![IoSlice::new(&[]); 1024];
    bufs.push(IoSlice::new(b"x"));
    bufs
}

/// Splits `buf` into buffers of one byte.
fn bytes_for(buf: &mut [u8]) -> Vec<IoSliceMut<'_>> {
    buf.chunks_mut(1).map(IoSliceMut::new).collect()
}

struct Ends<T> {
    near: T,
    far: T,
}

fn tcp() -> Ends<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_read_timeout(TIMEOUT).unwrap();
    near.set_write_timeout(TIMEOUT).unwrap();
    Ends { near, far }
}

fn unix() -> Ends<UnixStream> {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_read_timeout(TIMEOUT).unwrap();
    near.set_write_timeout(TIMEOUT).unwrap();
    Ends { near, far }
}

/// The cases that hold for all streams.
macro_rules! stream_cases {
    () => {
        [
            (
                "a read into no buffers",
                |it| it.near.read_vectored(&mut []),
                Ok(0),
            ),
            (
                "a read into an empty buffer of a list",
                |it| it.near.read_vectored(&mut [IoSliceMut::new(&mut [])]),
                Ok(0),
            ),
            (
                "a read into buffers that are empty up to the limit",
                |it| it.near.read_vectored(&mut empty_up_to_the_limit(&mut [0])),
                Ok(0),
            ),
            (
                "a read into no buffers in non-blocking mode",
                |it| {
                    it.near.set_nonblocking(true)?;
                    it.near.read_vectored(&mut [])
                },
                Ok(0),
            ),
            (
                "a read into no buffers after the end",
                |it| {
                    it.far.shutdown(Shutdown::Both)?;
                    it.near.read_vectored(&mut [])
                },
                Ok(0),
            ),
            (
                "a read of nothing after the end",
                |it| {
                    it.far.shutdown(Shutdown::Write)?;
                    it.near.read(&mut [])
                },
                Ok(0),
            ),
            (
                "a read of nothing after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Read)?;
                    it.near.read(&mut [])
                },
                Ok(0),
            ),
            (
                "a read of nothing before a byte, and of that",
                |it| {
                    it.far.write_all(b"x")?;
                    let nothing = it.near.read(&mut [])?;
                    Ok(10 * nothing + it.near.read(&mut [0; 9])?)
                },
                Ok(1),
            ),
            (
                "a read into more buffers than the limit",
                |it| {
                    it.far.write_all(&[7; 2000])?;
                    it.near.read_vectored(&mut bytes_for(&mut [0; 2000]))
                },
                Ok(1024),
            ),
            ("a write of nothing", |it| it.near.write(&[]), Ok(0)),
            (
                "a write of no buffers",
                |it| it.near.write_vectored(&[]),
                Ok(0),
            ),
            (
                "a write of an empty buffer",
                |it| it.near.write_vectored(&[IoSlice::new(&[])]),
                Ok(0),
            ),
            (
                "a write of buffers that are empty up to the limit",
                |it| it.near.write_vectored(&empty_up_to_the_limit_to_write()),
                Ok(0),
            ),
            (
                "a write of more buffers than the limit",
                |it| it.near.write_vectored(&[IoSlice::new(b"x"); 2000]),
                Ok(1024),
            ),
            (
                "a write of no buffers after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Write)?;
                    it.near.write_vectored(&[])
                },
                Ok(0),
            ),
            (
                "a write of buffers that are empty up to the limit after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Write)?;
                    it.near.write_vectored(&empty_up_to_the_limit_to_write())
                },
                Ok(0),
            ),
            (
                "a write of a byte after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Write)?;
                    it.near.write(b"x")
                },
                Err(ErrorKind::BrokenPipe),
            ),
            (
                "a write of no buffers where there is no room",
                |it| {
                    while it.near.write(&[7; 65_536]).is_ok() {}
                    it.near.write_vectored(&[IoSlice::new(&[])])
                },
                Ok(0),
            ),
            (
                "a timeout of zero",
                |it| it.near.set_read_timeout(Some(Duration::ZERO)).map(|()| 0),
                Err(ErrorKind::InvalidInput),
            ),
        ]
    };
}

#[test]
fn of_tcp_streams() {
    check("TCP", tcp, &stream_cases!());
    check(
        "TCP",
        tcp,
        &[
            (
                "a write of nothing after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Write)?;
                    it.near.write(&[])
                },
                Err(ErrorKind::BrokenPipe),
            ),
            // A read of no bytes waits, and succeeds when its timeout has passed.
            (
                "a read of nothing with nothing there",
                |it| it.near.read(&mut []),
                Ok(0),
            ),
            (
                "a peek at nothing with nothing there",
                |it| it.near.peek(&mut []),
                Ok(0),
            ),
            (
                "a read of nothing with nothing there in non-blocking mode",
                |it| {
                    it.near.set_nonblocking(true)?;
                    it.near.read(&mut [])
                },
                WAITS,
            ),
            (
                "a peek at nothing of a byte",
                |it| {
                    it.far.write_all(b"x")?;
                    it.near.peek(&mut [])
                },
                Ok(0),
            ),
            (
                "a peek at nothing after the end",
                |it| {
                    it.far.shutdown(Shutdown::Write)?;
                    it.near.peek(&mut [])
                },
                Ok(0),
            ),
        ],
    );
}

#[test]
fn of_unix_streams() {
    check("Unix", unix, &stream_cases!());
    check(
        "Unix",
        unix,
        &[
            (
                "a read of nothing with nothing there",
                |it| it.near.read(&mut []),
                WAITS,
            ),
            (
                "a write of nothing after shutting down",
                |it| {
                    it.near.shutdown(Shutdown::Write)?;
                    it.near.write(&[])
                },
                Err(ErrorKind::BrokenPipe),
            ),
        ],
    );
}

struct Pipe {
    reader: PipeReader,
    writer: Option<PipeWriter>,
}

impl Pipe {
    fn writer(&mut self) -> &mut PipeWriter {
        self.writer.as_mut().unwrap()
    }
}

fn new_pipe() -> Pipe {
    let (reader, writer) = io::pipe().unwrap();
    let writer = Some(writer);
    Pipe { reader, writer }
}

#[test]
fn of_pipes() {
    check(
        "a pipe",
        new_pipe,
        &[
            ("a read of nothing", |it| it.reader.read(&mut []), Ok(0)),
            (
                "a read into no buffers",
                |it| it.reader.read_vectored(&mut []),
                Ok(0),
            ),
            (
                "a read into buffers that are empty up to the limit",
                |it| {
                    it.reader
                        .read_vectored(&mut empty_up_to_the_limit(&mut [0]))
                },
                Ok(0),
            ),
            (
                "a read into more buffers than the limit",
                |it| {
                    it.writer().write_all(&[7; 2000])?;
                    it.reader.read_vectored(&mut bytes_for(&mut [0; 2000]))
                },
                Ok(1024),
            ),
            (
                "a read after the end",
                |it| {
                    it.writer = None;
                    it.reader.read(&mut [0])
                },
                Ok(0),
            ),
            ("a write of nothing", |it| it.writer().write(&[]), Ok(0)),
            (
                "a write of buffers that are empty up to the limit",
                |it| {
                    it.writer()
                        .write_vectored(&empty_up_to_the_limit_to_write())
                },
                Ok(0),
            ),
            (
                "a write of more buffers than the limit",
                |it| it.writer().write_vectored(&[IoSlice::new(b"x"); 2000]),
                Ok(1024),
            ),
            (
                "a write of nothing with no reader",
                |it| {
                    it.reader = io::pipe()?.0;
                    it.writer().write(&[])
                },
                Ok(0),
            ),
            (
                "a write of a byte with no reader",
                |it| {
                    it.reader = io::pipe()?.0;
                    it.writer().write(b"x")
                },
                Err(ErrorKind::BrokenPipe),
            ),
        ],
    );
}

fn udp() -> Ends<UdpSocket> {
    let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    near.set_read_timeout(TIMEOUT).unwrap();
    far.set_read_timeout(TIMEOUT).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    Ends { near, far }
}

fn unix_datagrams() -> Ends<UnixDatagram> {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_read_timeout(TIMEOUT).unwrap();
    far.set_read_timeout(TIMEOUT).unwrap();
    Ends { near, far }
}

/// The cases that hold for all datagram sockets.
macro_rules! datagram_cases {
    () => {
        [
            (
                "nothing is received of nothing",
                |it| it.near.recv(&mut []),
                WAITS,
            ),
            (
                "nothing is received of nothing, with an address",
                |it| Ok(it.near.recv_from(&mut [])?.0),
                WAITS,
            ),
            (
                "nothing is received of a datagram, which has gone then",
                |it| {
                    it.far.send(b"four")?;
                    it.far.send(b"next")?;
                    let nothing = it.near.recv(&mut [])?;
                    let (none, _) = it.near.recv_from(&mut [])?;
                    assert_eq!(nothing + none, 0);
                    it.near.recv(&mut [0; 9])
                },
                WAITS,
            ),
            (
                "a part is received of a datagram, which has gone then",
                |it| {
                    it.far.send(b"four")?;
                    assert_eq!(it.near.recv(&mut [0; 3])?, 3);
                    it.near.recv(&mut [0; 9])
                },
                WAITS,
            ),
            (
                "a datagram of nothing is one",
                |it| {
                    assert_eq!(it.far.send(&[])?, 0);
                    it.near.recv(&mut [0; 9])
                },
                Ok(0),
            ),
        ]
    };
}

#[test]
fn of_udp_sockets() {
    check("UDP", udp, &datagram_cases!());
    check(
        "UDP",
        udp,
        &[
            (
                "a peek at nothing with nothing there",
                |it| it.near.peek(&mut []),
                WAITS,
            ),
            (
                "a peek at nothing with nothing there, with an address",
                |it| Ok(it.near.peek_from(&mut [])?.0),
                WAITS,
            ),
            (
                "peeks at nothing of a datagram, which stays",
                |it| {
                    it.far.send(b"four")?;
                    let nothing = it.near.peek(&mut [])?;
                    assert_eq!(nothing + it.near.peek_from(&mut [])?.0, 0);
                    it.near.recv(&mut [0; 9])
                },
                Ok(4),
            ),
            (
                "a datagram of nothing to an address is one",
                |it| {
                    assert_eq!(it.far.send_to(&[], it.near.local_addr()?)?, 0);
                    it.near.recv(&mut [0; 9])
                },
                Ok(0),
            ),
            (
                "a datagram to nobody",
                |it| it.near.send(b"x"),
                Err(UdpSocket::bind("127.0.0.1:0")
                    .and_then(|socket| socket.send(b"x"))
                    .unwrap_err()
                    .kind()),
            ),
            (
                "a datagram to no address",
                |it| it.near.send_to(b"x", &[][..]),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "a datagram beyond the largest",
                |it| it.far.send(&[7; 70_000]),
                Err(util::kind_of_code(libc::EMSGSIZE)),
            ),
            (
                "a timeout of zero",
                |it| it.near.set_read_timeout(Some(Duration::ZERO)).map(|()| 0),
                Err(ErrorKind::InvalidInput),
            ),
        ],
    );
}

#[test]
fn of_unix_datagram_sockets() {
    check("Unix datagrams", unix_datagrams, &datagram_cases!());
    check(
        "Unix datagrams",
        unix_datagrams,
        &[
            (
                "a datagram to the empty path",
                |it| it.near.send_to(b"x", ""),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "a datagram to a path with a null byte",
                |it| it.near.send_to(b"x", "a\0b"),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "a datagram to too long a path",
                |it| it.near.send_to(b"x", "a".repeat(108)),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "a datagram to nobody",
                |_| UnixDatagram::unbound()?.send(b"x"),
                Err(ErrorKind::NotConnected),
            ),
            (
                "a datagram to a path where nothing is",
                |it| it.near.send_to(b"x", "/nothing/is/here"),
                Err(ErrorKind::NotFound),
            ),
            (
                "a datagram to a peer that has gone",
                |it| {
                    it.far = UnixDatagram::unbound()?;
                    it.near.send(b"x")
                },
                Err(ErrorKind::ConnectionRefused),
            ),
            (
                "a datagram beyond the largest",
                |it| it.far.send(&vec![7; 10 << 20]),
                Err(util::kind_of_code(libc::EMSGSIZE)),
            ),
        ],
    );
}

#[test]
fn of_connecting_and_accepting() {
    check(
        "connections",
        || (),
        &[
            (
                "one to port zero",
                |_| TcpStream::connect("127.0.0.1:0").map(|_| 0),
                Err(ErrorKind::ConnectionRefused),
            ),
            (
                "one to no address",
                |_| TcpStream::connect(&[][..]).map(|_| 0),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "one within no time",
                |_| {
                    let addr = "127.0.0.1:9".parse().unwrap();
                    TcpStream::connect_timeout(&addr, Duration::ZERO).map(|_| 0)
                },
                Err(ErrorKind::InvalidInput),
            ),
            (
                "one to the empty path",
                |_| UnixStream::connect("").map(|_| 0),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "one to a path with a null byte",
                |_| UnixStream::connect("a\0b").map(|_| 0),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "one to too long a path",
                |_| UnixStream::connect("a".repeat(108)).map(|_| 0),
                Err(ErrorKind::InvalidInput),
            ),
            (
                "one to a path where nothing is",
                |_| UnixStream::connect("/nothing/is/here").map(|_| 0),
                Err(ErrorKind::NotFound),
            ),
            (
                "one that nobody has made, by TCP",
                |_| {
                    let listener = TcpListener::bind("127.0.0.1:0")?;
                    listener.set_nonblocking(true)?;
                    listener.accept().map(|_| 0)
                },
                WAITS,
            ),
            (
                "one that nobody has made, by a Unix socket",
                |_| {
                    let any = ::std::os::unix::net::SocketAddr::from_pathname("")?;
                    let listener = UnixListener::bind_addr(&any)?;
                    listener.set_nonblocking(true)?;
                    listener.accept().map(|_| 0)
                },
                WAITS,
            ),
        ],
    );
}
