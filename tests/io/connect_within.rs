//! Connects with one deadline for the name and all its addresses.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use greenroom::ConnectWithin;
use greenroom::shims::net::{TcpListener, TcpStream};

use crate::util::{self, ClosedPort};

const PATIENCE: Duration = Duration::from_secs(30);

/// An address that does not answer, as long as this value lives.
struct Silent {
    port: ClosedPort,
    _queued: Vec<std::net::TcpStream>,
}

impl Silent {
    fn new() -> Silent {
        let port = ClosedPort::new();
        port.listen_without_accepting();
        let mut queued = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&port.addr, Duration::from_millis(100))
        {
            queued.push(stream);
            assert!(queued.len() < 10, "a queue of length 0 took 10");
        }
        Silent {
            port,
            _queued: queued,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.port.addr
    }
}

#[test]
fn a_connection_made_within_a_deadline_works_as_any_other() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for timeout in [PATIENCE, Duration::MAX] {
            let mut near = TcpStream::connect_within(addr, timeout).unwrap();
            assert_eq!(near.read_timeout().unwrap(), None);
            let (mut far, _) = listener.accept().unwrap();
            near.write_all(b"ping").unwrap();
            let mut got = [0; 4];
            far.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"ping");
        }
    });
}

#[test]
fn a_name_is_resolved_and_connected_to() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect_within(("localhost", port), PATIENCE).unwrap();
        TcpStream::connect_within(format!("localhost:{port}"), PATIENCE).unwrap();
    });
}

#[test]
fn a_timeout_of_zero_is_invalid_input() {
    util::everywhere(|| {
        let error = TcpStream::connect_within("127.0.0.1:1", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn refused_addresses_are_skipped_and_the_last_refusal_is_returned() {
    util::everywhere(|| {
        let (a, b) = (ClosedPort::new(), ClosedPort::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect_within(&[a.addr, b.addr, addr][..], PATIENCE).unwrap();
        assert_eq!(near.peer_addr().unwrap(), addr);
        let error = TcpStream::connect_within(&[a.addr, b.addr][..], PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn all_addresses_share_one_timeout() {
    util::everywhere(|| {
        let (a, b) = (Silent::new(), Silent::new());
        let addrs = [a.addr(), b.addr(), a.addr(), b.addr()];
        let timeout = Duration::from_millis(100);
        let start = Instant::now();
        let error = TcpStream::connect_within(&addrs[..], timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= timeout);
    });
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    util::on_workers(1, || {
        let silent = Silent::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect_within(&[silent.addr(), addr][..], PATIENCE / 3).unwrap();
        assert_eq!(near.peer_addr().unwrap(), addr);
    });
}
