//! Sockets of the crate socket2 convert to the shims' sockets and back. Needs the feature `socket2`.

#![cfg(feature = "socket2")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenroom::shims::thread;
use socket2::{Domain, SockRef, Socket, Type};

use crate::util::{self, everywhere, ms};

#[test]
fn a_socket_from_socket2_parks_as_the_shims_do() {
    everywhere(|| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = (util::LOOPBACK, 0).into();
        listener.bind(&any.into()).unwrap();
        listener.listen(8).unwrap();
        let listener = TcpListener::from(listener);
        let addr = listener.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
            listener
        });
        util::settle();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.connect(&addr.into()).unwrap();
        let mut client = TcpStream::from(client);
        let reads = thread::spawn({
            let mut client = client.try_clone().unwrap();
            move || {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                byte
            }
        });
        util::settle();
        client.write_all(b"x").unwrap();
        assert_eq!(reads.join().unwrap(), *b"x");
        let listener = Socket::from(answers.join().unwrap());
        assert_eq!(listener.local_addr().unwrap().as_socket(), Some(addr));
    });
}

#[test]
fn timeouts_and_modes_are_kept_both_ways() {
    everywhere(|| {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let (near, far) = (OwnedFd::from(near), OwnedFd::from(far));
        let (near, far) = (Socket::from(near), Socket::from(far));
        near.set_read_timeout(Some(ms(20))).unwrap();
        far.set_nonblocking(true).unwrap();
        let (mut near, mut far) = (UnixStream::from(near), UnixStream::from(far));
        assert_eq!(near.read_timeout().unwrap(), Some(ms(20)));
        util::assert_times_out(|| near.read(&mut [0]));
        util::assert_times_out(|| far.read(&mut [0]));

        // What is set through a reference holds from the next wait on.
        SockRef::from(&near).set_read_timeout(Some(ms(40))).unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(ms(40)));
        util::assert_times_out(|| near.read(&mut [0]));

        near.set_write_timeout(Some(Duration::from_secs(7)))
            .unwrap();
        far.set_nonblocking(false).unwrap();
        let (near, far) = (Socket::from(near), Socket::from(far));
        assert_eq!(near.read_timeout().unwrap(), Some(ms(40)));
        assert_eq!(near.write_timeout().unwrap(), Some(Duration::from_secs(7)));
        let flags = rustix::fs::fcntl_getfl(&far).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    });
}

/// Converts there and back, and checks that the descriptor is the same.
fn round_trip<T>(socket: Socket) -> Socket
where
    T: From<Socket> + AsRawFd,
    Socket: From<T>,
{
    let number = socket.as_raw_fd();
    let shim = T::from(socket);
    assert_eq!(shim.as_raw_fd(), number);
    let socket = Socket::from(shim);
    assert_eq!(socket.as_raw_fd(), number);
    socket
}

#[test]
fn the_conversions_are_those_of_std() {
    everywhere(|| {
        let new = |domain, kind| Socket::new(domain, kind, None).unwrap();
        for _ in 0..2 {
            round_trip::<TcpStream>(new(Domain::IPV4, Type::STREAM));
            round_trip::<TcpListener>(new(Domain::IPV4, Type::STREAM));
            round_trip::<UdpSocket>(new(Domain::IPV4, Type::DGRAM));
            round_trip::<UnixStream>(new(Domain::UNIX, Type::STREAM));
            round_trip::<UnixListener>(new(Domain::UNIX, Type::STREAM));
            round_trip::<UnixDatagram>(new(Domain::UNIX, Type::DGRAM));
        }
    });
}
