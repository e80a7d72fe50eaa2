//! Sockets that are closed give the right result, and leave no descriptor open.

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
fn after_the_peer_writes_and_closes_a_reader_gets_the_data_and_then_the_end() {
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
fn a_close_with_unread_data_resets_the_connection() {
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

/// Ten thousand sockets are made and dropped: after a wait, after a timeout, by a panic.
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
            // What earlier tests have left may be closed meanwhile, too.
            util::until("all are closed", || util::open_descriptors() <= before);
        });
    }
}

#[test]
#[serial]
fn the_end_of_a_runtime_closes_the_sockets_that_its_coroutines_wait_on() {
    let before = util::open_descriptors();
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for _ in 0..100 {
                thread::spawn(|| {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    let unwound = catch_unwind(AssertUnwindSafe(|| socket.recv(&mut [0])));
                    // The coroutine catches the unwind once. The next interruption point unwinds again.
                    assert!(unwound.is_err());
                    let _ = socket.recv(&mut [0]);
                    unreachable!("an interrupted coroutine cannot wait for I/O");
                });
            }
            thread::sleep(Duration::from_millis(20));
        });
    }
    let start = Instant::now();
    while util::open_descriptors() > before {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "descriptors are left open"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// With `SO_LINGER`, a close waits until the peer has acknowledged what was written, or until the time is
/// over.
#[test]
#[serial]
fn a_stream_that_lingers_when_dropped_does_not_hold_up_other_coroutines() {
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
    let drop_one = || {
        let (near, _far) = full_stream();
        let start = Instant::now();
        let dropping = thread::spawn(move || drop(near));
        let mut ticks = 0;
        while !dropping.is_finished() {
            thread::sleep(Duration::from_millis(1));
            ticks += 1;
        }
        eprintln!("{ticks} ticks in {:?}", start.elapsed());
        // Otherwise one. More than a few need a machine that does not stand still for long.
        start.elapsed() >= LINGER && ticks >= 4
    };
    util::on_workers(1, || {
        // The kernel ends the close early if it stops the process meanwhile.
        assert!((0..10).any(|_| drop_one()));

        // During a panic, others do not run, but the drop returns soon.
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
