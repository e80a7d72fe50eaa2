//! Connections and sockets that end leave the right result, and nothing else.

use greenroom::shims as std;
use serial_test::serial;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::util;

#[test]
#[serial]
fn a_server_that_writes_and_closes_gives_its_data_and_then_the_end_for_ever() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"DATA").unwrap();
        });
        let mut client = TcpStream::connect(addr).unwrap();
        let mut data = Vec::new();
        client.read_to_end(&mut data).unwrap();
        assert_eq!(data, b"DATA");
        for _ in 0..10 {
            assert_eq!(client.read(&mut [0; 4]).unwrap(), 0);
        }
        server.join().unwrap();
    });
}

#[test]
#[serial]
fn a_server_that_closes_with_unread_data_resets_the_connection() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            // Waits for the data, and leaves it unread.
            stream.peek(&mut [0]).unwrap();
        });
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(b"unread").unwrap();
        server.join().unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

/// Ten thousand sockets come and go: waited on, timed out, unwound by a panic.
#[test]
#[serial]
fn sockets_leave_no_descriptor_behind_however_their_coroutine_ends() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let before = util::open_descriptors();
            let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
            let addr = peer.local_addr().unwrap();
            for _ in 0..100 {
                let round: Vec<_> = (0..100)
                    .map(|n| {
                        thread::spawn(move || {
                            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                            socket.connect(addr).unwrap();
                            socket
                                .set_read_timeout(Some(Duration::from_millis(1)))
                                .unwrap();
                            let error = socket.recv(&mut [0; 8]).unwrap_err();
                            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                            if n % 10 == 0 {
                                std::panic::resume_unwind(Box::new(n));
                            }
                        })
                    })
                    .collect();
                let panics = round
                    .into_iter()
                    .filter_map(|handle| handle.join().err())
                    .count();
                assert_eq!(panics, 10);
            }
            drop(peer);
            assert_eq!(util::open_descriptors(), before);
        });
    }
}

#[test]
#[serial]
fn a_runtime_that_ends_closes_what_its_coroutines_were_waiting_on() {
    let before = util::open_descriptors();
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for _ in 0..100 {
                thread::spawn(|| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let unwound = catch_unwind(AssertUnwindSafe(|| socket.recv(&mut [0])));
                    // Swallowed once; the next interruption point unwinds again.
                    assert!(unwound.is_err());
                    let _ = socket.recv(&mut [0]);
                    unreachable!("an interrupted coroutine cannot wait for I/O");
                });
            }
            thread::sleep(Duration::from_millis(20));
        });
    }
    let start = Instant::now();
    while util::open_descriptors() != before {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "descriptors are left open"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// `SO_LINGER`: the close waits until what was written has arrived, or for a time.
#[test]
#[serial]
fn a_stream_that_lingers_when_it_is_dropped_keeps_no_other_coroutine_waiting() {
    const LINGER: Duration = Duration::from_secs(1);
    let full_stream = || {
        let listener = std::real::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[7; 65_536]).is_ok() {}
        near.set_nonblocking(false).unwrap();
        rustix::net::sockopt::set_socket_linger(&near, Some(LINGER)).unwrap();
        (near, far)
    };
    util::on_workers(1, || {
        let (near, _far) = full_stream();
        let start = Instant::now();
        let dropping = thread::spawn(move || drop(near));
        let mut ticks = 0;
        while !dropping.is_finished() {
            thread::sleep(Duration::from_millis(1));
            ticks += 1;
        }
        assert!(start.elapsed() >= LINGER, "{:?}", start.elapsed());
        assert!(ticks >= 10, "{ticks} while it lingered");

        // Amid a panic others run only when that is over, which is soon.
        let (near, _far) = full_stream();
        let panicking = thread::spawn(move || {
            let _near = near;
            panic!("this is the panic that was asked for");
        });
        let start = Instant::now();
        assert!(panicking.join().is_err());
        eprintln!("dropped amid a panic after {:?}", start.elapsed());
    });
}
