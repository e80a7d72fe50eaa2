//! What UDP sockets promise.

use super::{std, util};
use ::std::io::ErrorKind;
use ::std::os::fd::{AsFd, AsRawFd, OwnedFd};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::sync::Arc;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use util::{
    LOOPBACK, PATIENCE, assert_same_bytes, assert_times_out, everywhere, is_timeout, ms, noise,
    settle, uninterrupted,
};

#[path = "datagram.rs"]
mod datagram;

type Datagram = UdpSocket;

fn datagram_pair() -> (Datagram, Datagram) {
    connected_pair()
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn connected_pair() -> (UdpSocket, UdpSocket) {
    let ((a, a_addr), (b, b_addr)) = (socket(), socket());
    a.connect(b_addr).unwrap();
    b.connect(a_addr).unwrap();
    (a, b)
}

/// A port that is taken but receives nothing: the socket that holds the port is connected to itself, so the
/// kernel refuses datagrams from other sockets.
fn closed_port() -> (UdpSocket, SocketAddr) {
    let (holder, addr) = socket();
    holder.connect(addr).unwrap();
    (holder, addr)
}

// ------------------------------------------------------ sending and receiving

#[test]
fn recv_from_names_the_sender() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let mut buf = [0; 16];
        assert_eq!(a.send_to(b"hello", b_addr).unwrap(), 5);
        assert_eq!(b.recv_from(&mut buf).unwrap(), (5, a_addr));
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(
            b.send_to(b"hi", (LOOPBACK.to_string(), a_addr.port()))
                .unwrap(),
            2
        );
        assert_eq!(a.recv_from(&mut buf).unwrap(), (2, b_addr));
        assert_eq!(&buf[..2], b"hi");
        assert_eq!(a.send_to(b"by text", b_addr.to_string()).unwrap(), 7);
        assert_eq!(b.recv_from(&mut buf).unwrap(), (7, a_addr));
    });
}

#[test]
fn recv_from_waits_for_a_datagram_that_comes_later() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap());
        settle();
        assert!(!receiver.is_finished());
        a.send_to(b"late", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), (4, a_addr));
    });
}

#[test]
fn a_connected_socket_hears_only_its_peer() {
    everywhere(|| {
        let (a, b) = connected_pair();
        assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
        let (stranger, _) = socket();
        let mut buf = [0; 16];
        // The stranger may get an error, and the datagram must not arrive.
        let _ = stranger.send_to(b"psst", b.local_addr().unwrap());
        a.send(b"peer").unwrap();
        assert_eq!(b.recv_from(&mut buf).unwrap(), (4, a.local_addr().unwrap()));
        assert_eq!(&buf[..4], b"peer");
    });
}

#[test]
fn an_unconnected_socket_has_no_peer() {
    everywhere(|| {
        let (a, addr) = socket();
        assert_eq!(a.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        let error = a.send(b"to whom?").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EDESTADDRREQ));
        assert_eq!(a.local_addr().unwrap(), addr);
        assert_eq!(addr.ip(), LOOPBACK);
    });
}

#[test]
fn sending_and_connecting_to_no_address_is_invalid_input() {
    everywhere(|| {
        let (a, _) = socket();
        let none: &[SocketAddr] = &[];
        let kind = a.send_to(b"to whom?", none).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert_eq!(a.connect(none).unwrap_err().kind(), ErrorKind::InvalidInput);
        let kind = UdpSocket::bind(none).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput);
    });
}

#[test]
fn binding_an_address_of_another_machine_is_an_error() {
    everywhere(|| {
        // The address is reserved for documentation, so no machine has it.
        let kind = UdpSocket::bind("203.0.113.1:0").unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn an_address_of_the_other_family_is_an_error() {
    everywhere(|| {
        let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = a.send_to(b"x", (Ipv6Addr::LOCALHOST, 9)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
        let error = a.connect((Ipv6Addr::LOCALHOST, 9)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT));
        // Of a list, the first address that can be connected to is used.
        let list = [
            (Ipv6Addr::LOCALHOST, 9).into(),
            (Ipv4Addr::LOCALHOST, 9).into(),
        ];
        a.connect(&list[..]).unwrap();
        assert_eq!(a.peer_addr().unwrap(), list[1]);
    });
}

#[test]
fn connecting_again_changes_the_peer() {
    everywhere(|| {
        let (a, _) = socket();
        let ((b, b_addr), (c, c_addr)) = (socket(), socket());
        a.connect(b_addr).unwrap();
        a.send(b"b").unwrap();
        a.connect(c_addr).unwrap();
        assert_eq!(a.peer_addr().unwrap(), c_addr);
        a.send(b"cc").unwrap();
        assert_eq!(b.recv(&mut [0; 16]).unwrap(), 1);
        assert_eq!(c.recv(&mut [0; 16]).unwrap(), 2);
    });
}

#[test]
fn a_socket_connected_to_a_closed_port_is_told_that_it_is_refused() {
    everywhere(|| {
        let (_holder, closed) = closed_port();
        let (a, _) = socket();
        a.connect(closed).unwrap();
        a.set_read_timeout(Some(PATIENCE)).unwrap();
        a.send(b"anybody?").unwrap();
        let received = uninterrupted(|| a.recv(&mut [0; 16]));
        assert_eq!(received.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_refusal_wakes_a_parked_receiver() {
    everywhere(|| {
        let (_holder, closed) = closed_port();
        let (a, _) = socket();
        a.connect(closed).unwrap();
        let a = Arc::new(a);
        let receiver = thread::spawn({
            let a = Arc::clone(&a);
            move || a.recv(&mut [0; 16]).unwrap_err().kind()
        });
        settle();
        a.send(b"anybody?").unwrap();
        assert_eq!(receiver.join().unwrap(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_refusal_is_told_once_and_the_socket_goes_on() {
    everywhere(|| {
        let (holder, closed) = closed_port();
        let (a, a_addr) = socket();
        a.connect(closed).unwrap();
        a.send(b"anybody?").unwrap();
        let start = Instant::now();
        let error = loop {
            if let Some(error) = a.take_error().unwrap() {
                break error;
            }
            assert!(start.elapsed() < PATIENCE, "the refusal never shows");
            thread::sleep(ms(1));
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(a.take_error().unwrap().is_none());
        // The socket still works.
        let (b, b_addr) = socket();
        a.connect(b_addr).unwrap();
        b.send_to(b"yes", a_addr).unwrap();
        assert_eq!(a.recv(&mut [0; 16]).unwrap(), 3);
        drop(holder);
    });
}

#[test]
fn a_receiver_with_no_room_takes_a_datagram_all_the_same() {
    everywhere(|| {
        let (a, b) = connected_pair();
        a.send(b"first").unwrap();
        a.send(b"second").unwrap();
        assert_eq!(b.peek(&mut []).unwrap(), 0);
        assert_eq!(b.recv(&mut []).unwrap(), 0);
        let mut buf = [0; 16];
        assert_eq!(b.recv(&mut buf).unwrap(), 6);
        assert_eq!(&buf[..6], b"second");
    });
}

#[test]
fn more_than_a_datagram_can_be_is_refused_and_not_cut() {
    everywhere(|| {
        let (a, b) = connected_pair();
        // The mapping uses address space only: the kernel refuses the datagram before reading the memory.
        let len = i32::MAX as usize + 1;
        // SAFETY: the mapping is new and contains zeros that nothing changes. It stays mapped until after the
        // last use of `data`.
        let data = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let start = libc::mmap(::std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            ::std::slice::from_raw_parts(start.cast::<u8>(), len)
        };
        let error = a.send(data).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        let (c, _) = socket();
        let error = c.send_to(data, b.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        // SAFETY: `data` is the whole mapping, and is not used any more.
        let done = unsafe { libc::munmap(data.as_ptr().cast_mut().cast(), len) };
        assert_eq!(done, 0);
        a.send(b"small").unwrap();
        assert_eq!(b.recv(&mut [0; 16]).unwrap(), 5);
    });
}

#[test]
fn peeking_waits_for_a_datagram_and_leaves_it_there() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let peeker = thread::spawn(move || {
            let mut buf = [0; 16];
            for _ in 0..3 {
                assert_eq!(b.peek_from(&mut buf).unwrap(), (5, a_addr));
                assert_eq!(&buf[..5], b"first");
            }
            assert_eq!(b.peek(&mut buf).unwrap(), 5);
            assert_eq!(b.peek(&mut buf[..2]).unwrap(), 2); // loses nothing
            assert_eq!(b.recv_from(&mut buf).unwrap(), (5, a_addr));
            assert_eq!(&buf[..5], b"first");
            assert_eq!(b.peek(&mut buf).unwrap(), 6);
            assert_eq!(b.recv(&mut buf).unwrap(), 6);
            assert_eq!(&buf[..6], b"second");
        });
        settle();
        a.send_to(b"first", b_addr).unwrap();
        settle();
        a.send_to(b"second", b_addr).unwrap();
        peeker.join().unwrap();
    });
}

#[test]
fn a_large_datagram_arrives_whole_and_one_byte_more_is_an_error() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        // The room in an IPv4 or IPv6 packet beside the headers.
        let most = if LOOPBACK.is_ipv4() { 65_507 } else { 65_527 };
        let data = noise(most + 1, 4);
        assert_eq!(a.send_to(&data[..most], b_addr).unwrap(), most);
        let mut buf = vec![0; 70_000];
        assert_eq!(b.recv_from(&mut buf).unwrap(), (most, a_addr));
        assert_same_bytes(&buf[..most], &data[..most]);
        let error = a.send_to(&data, b_addr).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        // The socket still works.
        a.send_to(b"small", b_addr).unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 5);
    });
}

// ------------------------------------------------------------------ timeouts

#[test]
fn receiving_and_peeking_time_out_and_the_socket_stays_usable() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        b.set_read_timeout(Some(ms(50))).unwrap();
        let mut buf = [0; 16];
        let timed = |attempt: &mut dyn FnMut()| {
            let start = Instant::now();
            attempt();
            let took = start.elapsed();
            assert!(took >= ms(40), "{took:?}");
            assert!(took < PATIENCE, "{took:?}");
        };
        timed(&mut || assert_times_out(|| b.recv_from(&mut buf)));
        timed(&mut || assert_times_out(|| b.recv(&mut buf)));
        timed(&mut || assert_times_out(|| b.peek_from(&mut buf)));
        timed(&mut || assert_times_out(|| b.peek(&mut buf)));
        b.set_read_timeout(Some(PATIENCE)).unwrap();
        a.send_to(b"after", b_addr).unwrap();
        assert_eq!(b.recv_from(&mut buf).unwrap(), (5, a_addr));
        assert_eq!(&buf[..5], b"after");
    });
}

// ------------------------------------------------------- options, conversions

#[test]
fn broadcast_ttl_and_multicast_options_read_back_as_they_were_set() {
    everywhere(|| {
        let (a, _) = socket();
        assert!(!a.broadcast().unwrap());
        for on in [true, false] {
            a.set_broadcast(on).unwrap();
            assert_eq!(a.broadcast().unwrap(), on);
            a.set_multicast_loop_v4(on).unwrap();
            assert_eq!(a.multicast_loop_v4().unwrap(), on);
        }
        for ttl in [64, 7] {
            a.set_ttl(ttl).unwrap();
            assert_eq!(a.ttl().unwrap(), ttl);
            a.set_multicast_ttl_v4(ttl).unwrap();
            assert_eq!(a.multicast_ttl_v4().unwrap(), ttl);
        }
        assert!(a.take_error().unwrap().is_none());
    });
}

#[test]
fn options_are_those_of_the_descriptor_as_the_real_std_sees_it() {
    everywhere(|| {
        let (a, addr) = socket();
        let real = ::std::net::UdpSocket::from(a.as_fd().try_clone_to_owned().unwrap());
        for on in [true, false] {
            a.set_broadcast(on).unwrap();
            assert_eq!(real.broadcast().unwrap(), on);
            real.set_broadcast(!on).unwrap();
            assert_eq!(a.broadcast().unwrap(), !on);
            if addr.is_ipv4() {
                a.set_multicast_loop_v4(on).unwrap();
                assert_eq!(real.multicast_loop_v4().unwrap(), on);
                real.set_multicast_loop_v4(!on).unwrap();
                assert_eq!(a.multicast_loop_v4().unwrap(), !on);
            } else {
                a.set_multicast_loop_v6(on).unwrap();
                assert_eq!(real.multicast_loop_v6().unwrap(), on);
                real.set_multicast_loop_v6(!on).unwrap();
                assert_eq!(a.multicast_loop_v6().unwrap(), !on);
            }
        }
        let raw = |result: ::std::io::Result<bool>| result.map_err(|e| e.raw_os_error());
        assert_eq!(raw(a.multicast_loop_v6()), raw(real.multicast_loop_v6()));
        for (ttl, seconds) in [(77, 3), (78, 4)] {
            let timeout = Some(Duration::from_secs(seconds));
            a.set_ttl(ttl).unwrap();
            a.set_multicast_ttl_v4(ttl).unwrap();
            a.set_read_timeout(timeout).unwrap();
            a.set_write_timeout(timeout).unwrap();
            assert_eq!(real.ttl().unwrap(), ttl);
            assert_eq!(real.multicast_ttl_v4().unwrap(), ttl);
            assert_eq!(real.read_timeout().unwrap(), timeout);
            assert_eq!(real.write_timeout().unwrap(), timeout);
            real.set_ttl(ttl + 100).unwrap();
            real.set_multicast_ttl_v4(ttl + 100).unwrap();
            assert_eq!(a.ttl().unwrap(), ttl + 100);
            assert_eq!(a.multicast_ttl_v4().unwrap(), ttl + 100);
        }
        let (b, b_addr) = socket();
        a.connect(b_addr).unwrap();
        assert_eq!(real.peer_addr().unwrap(), b_addr);
        drop(b);
    });
}

#[test]
fn a_broadcast_needs_permission_and_reaches_a_receiver() {
    everywhere(|| {
        let all = Ipv4Addr::new(127, 255, 255, 255);
        let receiver = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let kind = sender.send_to(b"all", (all, port)).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::PermissionDenied);
        let receiving = thread::spawn(move || {
            let mut buf = [0; 16];
            let (n, from) = receiver.recv_from(&mut buf).unwrap();
            (buf[..n].to_vec(), from)
        });
        settle();
        sender.set_broadcast(true).unwrap();
        assert_eq!(sender.send_to(b"all", (all, port)).unwrap(), 3);
        let (got, from) = receiving.join().unwrap();
        assert_eq!(got, b"all");
        assert_eq!(from, sender.local_addr().unwrap());
    });
}

/// Checks that a member of a group gets the datagrams that are sent to the group, until the member leaves.
fn multicast(
    receiver: UdpSocket,
    sender: UdpSocket,
    group: SocketAddr,
    join: impl Fn(&UdpSocket) -> ::std::io::Result<()>,
    leave: impl Fn(&UdpSocket) -> ::std::io::Result<()>,
) {
    if let Err(error) = join(&receiver) {
        return eprintln!("skipped, no multicast on the loopback: {error}");
    }
    assert_eq!(join(&receiver).unwrap_err().kind(), ErrorKind::AddrInUse);
    let receiver = Arc::new(receiver);
    let receiving = thread::spawn({
        let receiver = Arc::clone(&receiver);
        move || {
            let mut buf = [0; 16];
            let (n, from) = receiver.recv_from(&mut buf).unwrap();
            (buf[..n].to_vec(), from)
        }
    });
    settle();
    sender.send_to(b"member", group).unwrap();
    let (got, from) = receiving.join().unwrap();
    assert_eq!(got, b"member");
    assert_eq!(from.port(), sender.local_addr().unwrap().port());

    leave(&receiver).unwrap();
    let kind = leave(&receiver).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::AddrNotAvailable);
    receiver.set_read_timeout(Some(ms(50))).unwrap();
    sender.send_to(b"left", group).unwrap();
    assert_times_out(|| receiver.recv_from(&mut [0; 16]));
}

#[test]
fn members_of_a_multicast_group_get_what_is_sent_to_it() {
    everywhere(|| {
        let group = Ipv4Addr::new(239, 255, 71, 71);
        let loopback = Ipv4Addr::LOCALHOST;
        // A socket that is bound to the group receives only datagrams to the group.
        let receiver = UdpSocket::bind((group, 0)).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let sender = UdpSocket::bind((loopback, 0)).unwrap();
        multicast(
            receiver,
            sender,
            (group, port).into(),
            |socket| socket.join_multicast_v4(&group, &loopback),
            |socket| socket.leave_multicast_v4(&group, &loopback),
        );
    });
}

#[test]
fn members_of_a_multicast_group_get_what_is_sent_to_it_v6() {
    everywhere(|| {
        let Some((ip, interface)) = util::link_local() else {
            return;
        };
        // The group has the scope of an interface, so the datagrams do not leave the machine.
        let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0x71, 0x71);
        let receiver = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let sender = UdpSocket::bind(SocketAddrV6::new(ip, 0, 0, interface)).unwrap();
        multicast(
            receiver,
            sender,
            SocketAddrV6::new(group, port, 0, interface).into(),
            |socket| socket.join_multicast_v6(&group, interface),
            |socket| socket.leave_multicast_v6(&group, interface),
        );
    });
}

#[test]
fn a_scope_is_kept() {
    everywhere(|| {
        let Some((ip, scope)) = util::link_local() else {
            return;
        };
        let bound = || {
            let socket = UdpSocket::bind(SocketAddrV6::new(ip, 0, 0, scope)).unwrap();
            let addr = socket.local_addr().unwrap();
            (socket, addr)
        };
        let ((a, a_addr), (b, b_addr)) = (bound(), bound());
        match a_addr {
            SocketAddr::V6(v6) => assert_eq!((*v6.ip(), v6.scope_id()), (ip, scope)),
            v4 => panic!("{v4}"),
        }
        a.send_to(b"hello", b_addr).unwrap();
        assert_eq!(b.peek_from(&mut [0; 16]).unwrap(), (5, a_addr));
        assert_eq!(b.recv_from(&mut [0; 16]).unwrap(), (5, a_addr));
        b.connect(a_addr).unwrap();
        assert_eq!(b.peer_addr().unwrap(), a_addr);
    });
}

#[test]
fn binding_a_taken_port_is_addr_in_use_and_a_list_falls_over() {
    everywhere(|| {
        let (_a, addr) = socket();
        let kind = UdpSocket::bind(addr).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AddrInUse);
        let free = SocketAddr::from((LOOPBACK, 0));
        let b = UdpSocket::bind(&[addr, free][..]).unwrap();
        assert_ne!(b.local_addr().unwrap().port(), addr.port());
    });
}

#[test]
fn peeking_does_not_wait_in_nonblocking_mode() {
    everywhere(|| {
        let (b, _) = socket();
        b.set_read_timeout(Some(ms(30_000))).unwrap();
        b.set_nonblocking(true).unwrap();
        let start = Instant::now();
        for result in [
            b.peek(&mut [0; 1]),
            b.peek_from(&mut [0; 1]).map(|(n, _)| n),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn clones_and_converted_sockets_have_the_same_address() {
    everywhere(|| {
        let (a, addr) = socket();
        assert_eq!(a.try_clone().unwrap().local_addr().unwrap(), addr);
        let a = UdpSocket::from(OwnedFd::from(a));
        assert_eq!(a.local_addr().unwrap(), addr);
    });
}

// With the real std, the conversion is the identity.
#[test]
fn sockets_made_by_the_real_std_can_be_moved_in() {
    everywhere(|| {
        let b = UdpSocket::from(::std::net::UdpSocket::bind((LOOPBACK, 0)).unwrap());
        let b_addr = b.local_addr().unwrap();
        let (a, a_addr) = socket();
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap());
        settle();
        a.send_to(b"in", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), (2, a_addr));
    });
}

#[test]
fn debug_output_names_the_address_and_the_descriptor() {
    everywhere(|| {
        let (a, addr) = socket();
        let fd = a.as_raw_fd();
        assert_eq!(
            format!("{a:?}"),
            format!("UdpSocket {{ addr: {addr:?}, fd: {fd} }}")
        );
    });
}

#[test]
fn sockets_have_the_auto_traits_of_std() {
    fn all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + ::std::fmt::Debug>() {}
    all::<UdpSocket>();
}

#[test]
fn two_hundred_queries_half_of_them_unanswered_wait_side_by_side() {
    everywhere(|| {
        const QUERIES: u32 = 200;
        const TIMEOUT: Duration = Duration::from_millis(300);
        let ((answering, answering_addr), (_silent, silent_addr)) = (socket(), socket());
        let tracker = thread::spawn(move || {
            let mut buf = [0; 4];
            loop {
                let (n, from) = answering.recv_from(&mut buf).unwrap();
                match n {
                    0 => return,
                    n => answering.send_to(&buf[..n], from).unwrap(),
                };
            }
        });
        let start = Instant::now();
        let queries: Vec<_> = (0..QUERIES)
            .map(|n| {
                thread::spawn(move || {
                    let (socket, _) = socket();
                    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
                    // UDP may drop datagrams on a busy machine, so a query that gets an answer may have
                    // to be repeated. A query to the silent socket is sent once.
                    let (tracker, tries) = match n % 2 {
                        0 => (answering_addr, 30),
                        _ => (silent_addr, 1),
                    };
                    for _ in 0..tries {
                        socket.send_to(&n.to_be_bytes(), tracker).unwrap();
                        let asked = Instant::now();
                        let mut buf = [0; 16];
                        match uninterrupted(|| socket.recv_from(&mut buf)) {
                            Ok((len, from)) => {
                                assert_eq!(from, tracker);
                                assert_eq!(buf[..len], n.to_be_bytes());
                                return true;
                            }
                            Err(error) => assert!(is_timeout(error.kind()), "{error}"),
                        }
                        assert!(asked.elapsed() >= TIMEOUT * 4 / 5);
                    }
                    false
                })
            })
            .collect();
        for (n, query) in queries.into_iter().enumerate() {
            assert_eq!(query.join().unwrap(), n % 2 == 0, "query {n}");
        }
        let took = start.elapsed();
        let sum = TIMEOUT * QUERIES / 2; // 30 seconds
        assert!(took >= TIMEOUT * 4 / 5, "{took:?}");
        assert!(took < sum / 3, "{took:?}");
        let (stop, _) = socket();
        stop.send_to(&[], answering_addr).unwrap();
        tracker.join().unwrap();
    });
}
