//! The options that a listener can get before it listens.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use greenroom::ListenOptions;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use rustix::net::sockopt;

use crate::util;

const ANY: &str = "127.0.0.1:0";

#[test]
fn without_options_a_listener_is_as_std_binds_it() {
    util::everywhere(|| {
        let stds = std::net::TcpListener::bind(ANY).unwrap();
        let ours = ListenOptions::new().listen(ANY).unwrap();
        assert!(sockopt::socket_reuseaddr(&ours).unwrap());
        assert_eq!(
            sockopt::socket_reuseaddr(&ours).unwrap(),
            sockopt::socket_reuseaddr(&stds).unwrap()
        );
        assert_eq!(
            sockopt::socket_reuseport(&ours).unwrap(),
            sockopt::socket_reuseport(&stds).unwrap()
        );
        let flags = |fd: &dyn std::os::fd::AsFd| {
            let fd = fd.as_fd();
            let of_descriptor = rustix::io::fcntl_getfd(fd).unwrap();
            (of_descriptor, rustix::fs::fcntl_getfl(fd).unwrap())
        };
        assert_eq!(flags(&ours), flags(&stds), "closed on exec, and blocking");
        let mut near = TcpStream::connect(ours.local_addr().unwrap()).unwrap();
        let (mut far, _) = ours.accept().unwrap();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn of_several_addresses_the_first_free_one_is_bound() {
    util::everywhere(|| {
        let holder = TcpListener::bind(ANY).unwrap();
        let taken = holder.local_addr().unwrap();
        let error = ListenOptions::new().listen(taken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let free: SocketAddr = ANY.parse().unwrap();
        let other = ListenOptions::new().listen(&[taken, free][..]).unwrap();
        assert_ne!(other.local_addr().unwrap(), taken);
        let none: &[SocketAddr] = &[];
        let error = ListenOptions::new().listen(none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn the_backlog_limits_how_many_connections_are_queued() {
    util::everywhere(|| {
        let listener = ListenOptions::new().backlog(5).listen(ANY).unwrap();
        let addr = listener.local_addr().unwrap();
        let short = Duration::from_millis(200);
        let mut queued = Vec::new();
        let error = loop {
            match TcpStream::connect_timeout(&addr, short) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 20, "the queue has no end");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(queued.len(), 6, "Linux lets one more wait than was said");

        // Accepted connections leave the queue.
        let accepted: Vec<_> = queued.iter().map(|_| listener.accept().unwrap()).collect();
        TcpStream::connect_timeout(&addr, Duration::from_secs(20)).unwrap();
        drop(accepted);
    });
}

#[test]
fn two_listeners_on_one_port_get_each_connection_once() {
    util::everywhere(|| {
        let shared = ListenOptions::new().reuse_port(true);
        let one = shared.listen(ANY).unwrap();
        let addr = one.local_addr().unwrap();
        let other = shared.listen(addr).unwrap();
        assert_eq!(other.local_addr().unwrap(), addr);
        let error = ListenOptions::new().listen(addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "who did not say so");

        const COUNT: usize = 64;
        let serve = |listener: TcpListener| {
            thread::spawn(move || {
                let mut got = Vec::new();
                loop {
                    let mut byte = [0];
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut byte).unwrap();
                    match byte[0] as usize {
                        COUNT => break got,
                        n => got.push(n),
                    }
                }
            })
        };
        let servers = [serve(one), serve(other)];
        let send = |byte: usize| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(&[byte as u8]).unwrap();
        };
        (0..COUNT).for_each(send);
        while !servers.iter().all(|server| server.is_finished()) {
            // The kernel chooses between the servers that still listen.
            match TcpStream::connect(addr) {
                Ok(mut stream) => drop(stream.write_all(&[COUNT as u8])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
            thread::sleep(Duration::from_millis(1));
        }
        let got = servers.map(|server| server.join().unwrap());
        assert!(got.iter().all(|got| !got.is_empty()), "{got:?}");
        let mut all = got.concat();
        all.sort_unstable();
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
    });
}

#[test]
fn an_address_with_old_connections_can_be_reused_or_not() {
    util::everywhere(|| {
        // Nothing else may take the address meanwhile.
        let listener = TcpListener::bind((util::own_loopback(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect(addr).unwrap();
        // The side that closes first keeps the address in TIME_WAIT.
        drop(listener.accept().unwrap());
        drop(listener);
        assert_eq!((&near).read(&mut [0]).unwrap(), 0);
        drop(near);
        let careful = ListenOptions::new().reuse_address(false);
        assert_eq!(
            careful.listen(addr).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        // A child that another test has just forked has the old listener until it executes its program.
        util::until("the address can be had again", || {
            ListenOptions::new().listen(addr).is_ok()
        });
    });
}

#[test]
fn a_listener_takes_only_ipv6_if_told_to() {
    let any = (Ipv6Addr::UNSPECIFIED, 0);
    if std::net::TcpListener::bind(any).is_err() {
        eprintln!("skipped, no IPv6");
        return;
    }
    util::everywhere(|| {
        for only_v6 in [true, false] {
            let listener = ListenOptions::new().only_v6(only_v6).listen(any).unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            // At 127.0.0.1, another program may have the same port.
            let from_v4 = TcpStream::connect((util::own_loopback(), port));
            match only_v6 {
                true => assert_eq!(from_v4.unwrap_err().kind(), ErrorKind::ConnectionRefused),
                false => drop(from_v4.unwrap()),
            }
        }
        ListenOptions::new().only_v6(true).listen(ANY).unwrap();
    });
}
