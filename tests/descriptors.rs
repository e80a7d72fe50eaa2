//! Sockets that are dropped, in whatever state, leave no descriptor open.
//!
//! This counts the descriptors of the whole process, so it must stay the only test of this file.

mod util;

use greenroom::shims as std;

use ::std::io::{Read, Write};
use ::std::os::fd::{AsFd, AsRawFd};
use std::descriptor::PassDescriptors;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};
use util::{everywhere, open_descriptors};

/// Uses `count` connections, one after the other, in every way that holds a descriptor.
fn use_connections(count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    for n in 0..count {
        let mut near = TcpStream::connect(addr).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        match n % 4 {
            0 => {
                near.write_all(b"x").unwrap();
                far.read_exact(&mut [0; 1]).unwrap();
            }
            1 => drop((near.try_clone().unwrap(), far.try_clone().unwrap())),
            2 => {
                // Another task waits on it, and drops it.
                let reader = thread::spawn(move || far.read(&mut [0; 1]).unwrap());
                thread::yield_now();
                drop(near);
                assert_eq!(reader.join().unwrap(), 0);
            }
            _ => {
                far.set_read_timeout(Some(Duration::from_millis(1)))
                    .unwrap();
                assert!(far.read(&mut [0; 1]).is_err());
            }
        }
    }
}

/// The same with Unix sockets.
fn use_unix_sockets(count: usize) {
    let name = format!("greenroom descriptors {}", ::std::process::id());
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let receiver = {
        let addr = SocketAddr::from_pathname("").unwrap(); // any name
        UnixDatagram::bind_addr(&addr).unwrap()
    };
    let to = receiver.local_addr().unwrap();
    for n in 0..count {
        match n % 6 {
            0 => {
                // The second connect has to wait until there is room in the queue.
                let clients = [(); 2].map(|()| {
                    let name = name.clone();
                    thread::spawn(move || UnixStream::connect_addr(&name).unwrap())
                });
                let accepted = [(); 2].map(|()| listener.accept().unwrap());
                let connected = clients.map(|client| client.join().unwrap());
                drop((accepted, connected));
            }
            1 => {
                let (near, mut far) = UnixStream::pair().unwrap();
                let reader = thread::spawn(move || far.read(&mut [0; 1]).unwrap());
                thread::yield_now();
                let file = near.makefile();
                drop((near.try_clone().unwrap(), near, file));
                assert_eq!(reader.join().unwrap(), 0);
            }
            2 => {
                // This send waits until the receiver has room.
                let socket = UnixDatagram::unbound().unwrap();
                let to = to.clone();
                let sender = thread::spawn(move || {
                    for _ in 0..50 {
                        socket.send_to_addr(b"x", &to).unwrap();
                    }
                });
                for _ in 0..50 {
                    receiver.recv(&mut [0; 1]).unwrap();
                }
                sender.join().unwrap();
            }
            3 => {
                let (near, far) = UnixStream::pair().unwrap();
                let fds = [near.as_fd(), far.as_fd(), receiver.as_fd()];
                for (max, received) in [(3, true), (2, false), (0, false)] {
                    near.send_fds(&fds, b"x").unwrap();
                    assert_eq!(far.recv_fds(max, &mut [0; 1]).is_ok(), received);
                }
                // One message is received without asking for descriptors, the other is never received.
                near.send_fds(&fds, b"x").unwrap();
                assert_eq!((&far).read(&mut [0; 1]).unwrap(), 1);
                near.send_fds(&[receiver.as_fd()], b"x").unwrap();
            }
            4 => {
                let (near, far) = UnixDatagram::pair().unwrap();
                far.set_read_timeout(Some(Duration::from_millis(1)))
                    .unwrap();
                assert!(far.recv_fds(1, &mut [0; 1]).is_err());
                assert!(near.connect("/no/such/socket").is_err());
            }
            _ => {
                assert!(UnixStream::connect("/no/such/socket").is_err());
                assert!(UnixListener::bind_addr(&name).is_err());
            }
        }
    }
}

#[test]
fn dropping_sockets_releases_their_descriptors() {
    everywhere(|| {
        // Opens what is opened once and kept.
        use_connections(4);
        use_unix_sockets(6);
        let before = open_descriptors();
        use_connections(200);
        use_unix_sockets(120);
        let start = Instant::now();
        loop {
            let after = open_descriptors();
            if after <= before {
                break;
            }
            let patient = start.elapsed() < Duration::from_secs(10);
            assert!(patient, "{before} descriptors became {after}");
            thread::sleep(Duration::from_millis(10));
        }
    });
}
