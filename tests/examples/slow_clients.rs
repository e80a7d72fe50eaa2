//! `examples/server.rs`, with clients that take their time over a request.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::PATIENCE;
use crate::restarts::Servers;

/// How long a client may take for a request.
const REQUEST: Duration = Duration::from_secs(10);

/// The bytes that come before the server ends the connection, by an end or a reset.
fn read_to_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    answer
}

#[track_caller]
fn assert_timed_out(answer: &[u8]) {
    let answer = String::from_utf8_lossy(answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn what_is_no_request_is_answered_and_ends_its_own_connection_alone() {
    let servers = Servers::start("server");
    let (process, address) = servers.next();
    let long = format!("GET /100 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for wrong in [
        "\r\n\r\n",
        "GET /much HTTP/1.1\r\n\r\n",
        "GET /1048577 HTTP/1.1\r\n\r\n",
        "GET /100 HTTP/1.1\r\nHost",
        &long,
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(wrong.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    servers.end(process);
}

#[test]
fn a_request_that_takes_too_long_ends_its_own_connection_alone() {
    let servers = Servers::start("server");
    let (process, address) = servers.next();
    let connect = || {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    thread::scope(|s| {
        let silent = s.spawn(|| {
            let mut stream = connect();
            let start = Instant::now();
            stream.write_all(b"GET /100 HT").unwrap();
            assert_timed_out(&read_to_the_end(&mut stream));
            assert!(start.elapsed() >= REQUEST);
        });
        // Each byte comes in time, but not the whole request.
        let trickling = s.spawn(|| {
            let mut stream = connect();
            let start = Instant::now();
            let request = b"GET /100 HTTP/1.1\r\nHost: example\r\nX: ".iter();
            for byte in request.chain(std::iter::repeat(&b'x')) {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "it may go on for ever");
                thread::sleep(Duration::from_millis(200));
            }
            assert_timed_out(&read_to_the_end(&mut stream));
            assert!(start.elapsed() >= REQUEST);
        });
        // A connection that stays is served all the while, also after pauses.
        let mut stream = connect();
        while !(silent.is_finished() && trickling.is_finished()) {
            stream
                .write_all(b"GET /100 HTTP/1.1\r\nHost: example\r\n\r\n")
                .unwrap();
            let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 100\r\n\r\n";
            let mut answer = vec![0; head.len() + 100];
            stream.read_exact(&mut answer).unwrap();
            assert!(answer.starts_with(head.as_bytes()));
            thread::sleep(Duration::from_millis(50));
        }
    });
    servers.end(process);
}
