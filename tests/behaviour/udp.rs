// What UDP sockets promise. Included by ../udp.rs, once for std and once for the shims: `use std::…`
// names the one or the other, `::std::…` is always the real one. (Nested modules would not inherit
// the name: there are none.)

use ::std::io::ErrorKind;
use ::std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use util::{assert_same_bytes, everywhere, noise};

const PATIENCE: Duration = Duration::from_secs(10);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Gives a task that is about to wait the time to do so. No test is wrong when
/// this was too short, only weaker.
fn settle() {
    thread::sleep(ms(50));
}

#[track_caller]
fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(ms(1));
    }
}

fn socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn connected_pair() -> (UdpSocket, UdpSocket) {
    let ((a, a_addr), (b, b_addr)) = (socket(), socket());
    a.connect(b_addr).unwrap();
    b.connect(a_addr).unwrap();
    (a, b)
}

/// A port nobody else can get and nobody receives on: the socket holding it
/// is connected to itself, so datagrams from elsewhere are turned away.
fn closed_port() -> (UdpSocket, SocketAddr) {
    let (holder, addr) = socket();
    holder.connect(addr).unwrap();
    (holder, addr)
}

#[track_caller]
fn assert_timed_out<T: ::std::fmt::Debug>(result: ::std::io::Result<T>) {
    let kind = result.expect_err("this should have timed out").kind();
    let timeout = matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(timeout, "{kind:?}");
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
        assert_eq!(b.send_to(b"hi", ("127.0.0.1", a_addr.port())).unwrap(), 2);
        assert_eq!(a.recv_from(&mut buf).unwrap(), (2, b_addr));
        assert_eq!(&buf[..2], b"hi");
        assert_eq!(a.send_to(b"by text", b_addr.to_string()).unwrap(), 7);
        assert_eq!(b.recv_from(&mut buf).unwrap(), (7, a_addr));
    });
}

#[test]
fn recv_from_names_the_sender_v6() {
    everywhere(|| {
        let a = match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
            Ok(socket) => socket,
            Err(e) => return eprintln!("skipped, no IPv6 on the loopback: {e}"),
        };
        let b = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        a.send_to(b"six", b.local_addr().unwrap()).unwrap();
        let (n, from) = b.recv_from(&mut [0; 16]).unwrap();
        assert_eq!((n, from), (3, a.local_addr().unwrap()));
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
fn connected_sockets_send_and_receive_without_addresses() {
    everywhere(|| {
        let (a, b) = connected_pair();
        assert_eq!(a.peer_addr().unwrap(), b.local_addr().unwrap());
        let echo = thread::spawn(move || {
            let mut buf = [0; 16];
            let n = b.recv(&mut buf).unwrap();
            b.send(&buf[..n]).unwrap();
            b
        });
        settle();
        assert_eq!(a.send(b"round trip").unwrap(), 10);
        let mut buf = [0; 16];
        assert_eq!(a.recv(&mut buf).unwrap(), 10);
        assert_eq!(&buf[..10], b"round trip");
        echo.join().unwrap();
    });
}

#[test]
fn a_connected_socket_hears_only_its_peer() {
    everywhere(|| {
        let (a, b) = connected_pair();
        let (stranger, _) = socket();
        let mut buf = [0; 16];
        // May or may not be told that nobody wants it; it must not arrive.
        let _ = stranger.send_to(b"psst", b.local_addr().unwrap());
        a.send(b"peer").unwrap();
        assert_eq!(b.recv_from(&mut buf).unwrap(), (4, a.local_addr().unwrap()));
        assert_eq!(&buf[..4], b"peer");
    });
}

#[test]
fn an_unconnected_socket_has_no_peer() {
    everywhere(|| {
        let (a, _) = socket();
        assert_eq!(a.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(a.send(b"to whom?").is_err());
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
        let kind = a.recv(&mut [0; 16]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ConnectionRefused);
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
fn a_datagram_too_long_for_the_buffer_is_cut_and_the_rest_is_dropped() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        a.send_to(b"too long for that", b_addr).unwrap();
        a.send_to(b"next", b_addr).unwrap();
        let mut buf = [0; 8];
        assert_eq!(b.recv_from(&mut buf).unwrap(), (8, a_addr));
        assert_eq!(&buf, b"too long");
        assert_eq!(b.recv_from(&mut buf).unwrap(), (4, a_addr));
        assert_eq!(&buf[..4], b"next");
        // The same connected, and with no room at all.
        let (a, b) = connected_pair();
        a.send(b"too long for that").unwrap();
        a.send(b"vanishes").unwrap();
        a.send(b"next").unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 8);
        assert_eq!(b.recv(&mut []).unwrap(), 0);
        assert_eq!(b.recv(&mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"next");
    });
}

#[test]
fn a_datagram_of_no_bytes_is_a_datagram() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let receiver = thread::spawn(move || {
            let first = b.recv_from(&mut [0; 16]).unwrap();
            let second = b.recv_from(&mut [0; 16]).unwrap();
            (first, second)
        });
        settle();
        assert_eq!(a.send_to(&[], b_addr).unwrap(), 0);
        settle();
        a.send_to(b"x", b_addr).unwrap();
        let got = receiver.join().unwrap();
        assert_eq!(got, ((0, a_addr), (1, a_addr)));

        let (a, b) = connected_pair();
        assert_eq!(a.send(&[]).unwrap(), 0);
        b.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(b.recv(&mut [0; 16]).unwrap(), 0);
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
            assert_eq!(b.peek(&mut buf[..2]).unwrap(), 2); // cut, but not lost
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
        let data = noise(65_508, 4);
        assert_eq!(a.send_to(&data[..65_507], b_addr).unwrap(), 65_507);
        let mut buf = vec![0; 70_000];
        assert_eq!(b.recv_from(&mut buf).unwrap(), (65_507, a_addr));
        assert_same_bytes(&buf[..65_507], &data[..65_507]);
        let error = a.send_to(&data, b_addr).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        // The socket is none the worse.
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
        timed(&mut || assert_timed_out(b.recv_from(&mut buf)));
        timed(&mut || assert_timed_out(b.recv(&mut buf)));
        timed(&mut || assert_timed_out(b.peek_from(&mut buf)));
        timed(&mut || assert_timed_out(b.peek(&mut buf)));
        b.set_read_timeout(Some(PATIENCE)).unwrap();
        a.send_to(b"after", b_addr).unwrap();
        assert_eq!(b.recv_from(&mut buf).unwrap(), (5, a_addr));
        assert_eq!(&buf[..5], b"after");
    });
}

#[test]
fn timeouts_read_back_as_they_were_set_and_zero_is_invalid_input() {
    everywhere(|| {
        let (a, _) = socket();
        assert_eq!(a.read_timeout().unwrap(), None);
        assert_eq!(a.write_timeout().unwrap(), None);
        a.set_read_timeout(Some(ms(1500))).unwrap();
        a.set_write_timeout(Some(ms(2500))).unwrap();
        for refused in [
            a.set_read_timeout(Some(Duration::ZERO)),
            a.set_write_timeout(Some(Duration::ZERO)),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(a.read_timeout().unwrap(), Some(ms(1500)));
        assert_eq!(a.write_timeout().unwrap(), Some(ms(2500)));
        a.set_read_timeout(None).unwrap();
        a.set_write_timeout(None).unwrap();
        assert_eq!(a.read_timeout().unwrap(), None);
        assert_eq!(a.write_timeout().unwrap(), None);
    });
}

#[test]
fn a_nonblocking_socket_does_not_wait_until_it_is_made_to_again() {
    everywhere(|| {
        let ((a, _), (b, b_addr)) = (socket(), socket());
        b.set_nonblocking(true).unwrap();
        let start = Instant::now();
        for result in [
            b.recv(&mut [0; 1]),
            b.peek(&mut [0; 1]),
            b.recv_from(&mut [0; 1]).map(|(n, _)| n),
            b.peek_from(&mut [0; 1]).map(|(n, _)| n),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert!(start.elapsed() < PATIENCE);
        b.set_nonblocking(false).unwrap();
        let receiver = thread::spawn(move || b.recv(&mut [0; 16]).unwrap());
        thread::sleep(ms(100));
        assert!(!receiver.is_finished());
        a.send_to(b"now", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), 3);
    });
}

// -------------------------------------------------------------------- clones

#[test]
fn two_receivers_on_clones_of_one_socket_get_one_datagram_each() {
    everywhere(|| {
        let ((a, _), (b, b_addr)) = (socket(), socket());
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = [b.try_clone().unwrap(), b]
            .into_iter()
            .map(|b| {
                let got = Arc::clone(&got);
                thread::spawn(move || {
                    let mut buf = [0; 16];
                    let n = b.recv(&mut buf).unwrap();
                    got.fetch_add(1, SeqCst);
                    buf[..n].to_vec()
                })
            })
            .collect();
        settle();
        a.send_to(b"one", b_addr).unwrap();
        until("one receiver is served", || got.load(SeqCst) == 1);
        settle();
        assert_eq!(got.load(SeqCst), 1, "one datagram served two receivers");
        a.send_to(b"two", b_addr).unwrap();
        let mut both: Vec<_> = receivers.into_iter().map(|r| r.join().unwrap()).collect();
        both.sort();
        assert_eq!(both, [b"one", b"two"]);
    });
}

#[test]
fn receivers_sharing_a_socket_get_each_datagram_exactly_once() {
    everywhere(|| {
        const COUNT: u32 = 300;
        let ((a, _), (b, b_addr)) = (socket(), socket());
        let b = Arc::new(b);
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (b, got) = (Arc::clone(&b), Arc::clone(&got));
                thread::spawn(move || {
                    let mut seen = Vec::new();
                    let mut buf = [0; 4];
                    loop {
                        assert_eq!(b.recv(&mut buf).unwrap(), 4);
                        match u32::from_be_bytes(buf) {
                            u32::MAX => return seen,
                            n => seen.push(n),
                        }
                        got.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for n in 0..COUNT {
            // Never more than fit: UDP would drop them.
            until("they keep up", || got.load(SeqCst) + 32 > n as usize);
            a.send_to(&n.to_be_bytes(), b_addr).unwrap();
        }
        for _ in &receivers {
            a.send_to(&u32::MAX.to_be_bytes(), b_addr).unwrap();
        }
        let mut all: Vec<u32> = receivers
            .into_iter()
            .flat_map(|r| r.join().unwrap())
            .collect();
        all.sort();
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
    });
}

#[test]
fn a_receiver_parked_on_one_clone_goes_on_when_the_other_is_dropped() {
    everywhere(|| {
        let ((a, _), (b, b_addr)) = (socket(), socket());
        let clone = b.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), b_addr);
        let receiver = thread::spawn(move || b.recv(&mut [0; 16]).unwrap());
        settle();
        drop(clone);
        settle();
        assert!(!receiver.is_finished());
        a.send_to(b"still", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), 5);
    });
}

#[test]
fn one_task_receives_while_another_sends_on_the_same_socket() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let a = Arc::new(a);
        let receiver = thread::spawn({
            let a = Arc::clone(&a);
            move || a.recv_from(&mut [0; 16]).unwrap()
        });
        settle();
        a.send_to(b"out", b_addr).unwrap();
        assert_eq!(b.recv_from(&mut [0; 16]).unwrap(), (3, a_addr));
        b.send_to(b"back", a_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), (4, b_addr));
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
fn binding_a_taken_port_is_addr_in_use_and_a_list_falls_over() {
    everywhere(|| {
        let (_a, addr) = socket();
        let kind = UdpSocket::bind(addr).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AddrInUse);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let b = UdpSocket::bind(&[addr, free][..]).unwrap();
        assert_ne!(b.local_addr().unwrap().port(), addr.port());
    });
}

#[test]
fn a_socket_survives_becoming_an_owned_descriptor_and_back() {
    everywhere(|| {
        let ((a, a_addr), (b, b_addr)) = (socket(), socket());
        let fd: OwnedFd = b.into();
        let b = UdpSocket::from(fd);
        assert_eq!(b.local_addr().unwrap(), b_addr);
        let raw = b.into_raw_fd();
        // SAFETY: the descriptor is open, and nobody else\'s.
        let b = unsafe { UdpSocket::from_raw_fd(raw) };
        assert_eq!(b.as_raw_fd(), raw);
        assert_eq!(b.as_fd().as_raw_fd(), raw);
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap());
        settle();
        a.send_to(b"same", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), (4, a_addr));
    });
}

// HOOK: see the test of the same name in tcp.rs.
#[test]
fn sockets_made_by_the_real_std_can_be_moved_in() {
    everywhere(|| {
        let b = UdpSocket::from(::std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let b_addr = b.local_addr().unwrap();
        let (a, a_addr) = socket();
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap());
        settle();
        a.send_to(b"in", b_addr).unwrap();
        assert_eq!(receiver.join().unwrap(), (2, a_addr));
    });
}

#[test]
fn debug_output_does_not_panic_and_says_something() {
    everywhere(|| {
        let (a, b) = connected_pair();
        assert!(!format!("{a:?} {b:#?}").trim().is_empty());
    });
}

// ------------------------------------------------------------------ in number

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
                    // A query that gets an answer may have to be repeated:
                    // the machine is busy, and UDP may drop. One that gets
                    // none is sent once.
                    let (tracker, tries) = match n % 2 {
                        0 => (answering_addr, 10),
                        _ => (silent_addr, 1),
                    };
                    for _ in 0..tries {
                        socket.send_to(&n.to_be_bytes(), tracker).unwrap();
                        let asked = Instant::now();
                        let mut buf = [0; 16];
                        match socket.recv_from(&mut buf) {
                            Ok((len, from)) => {
                                assert_eq!(from, tracker);
                                assert_eq!(buf[..len], n.to_be_bytes());
                                return true;
                            }
                            error => assert_timed_out(error),
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
