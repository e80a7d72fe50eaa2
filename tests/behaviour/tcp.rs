//! What TCP sockets promise.

use super::{std, util};

use ::std::io::{ErrorKind, IoSlice, Read, Write};

use ::std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use ::std::panic::{RefUnwindSafe, UnwindSafe};

use ::std::sync::Arc;

use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustix::net::sockopt::Timeout;

use std::net::{Incoming, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV6};

use std::net::{TcpListener, TcpStream, ToSocketAddrs};

use std::thread;

use std::time::{Duration, Instant};

use util::{
    ClosedPort, LOOPBACK, PATIENCE, assert_times_out, everywhere, ms, reset_on_close, settle, until,
};

#[path = "stream.rs"]
mod stream;

use stream::{
    assert_joined, is_broken, set_by_descriptor, until_readable, until_stuck, write_until_error,
};

type Stream = TcpStream;

fn stream_pair() -> (Stream, Stream) {
    pair()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    pair_from(&listener, addr)
}

fn pair_from(listener: &TcpListener, addr: SocketAddr) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(addr).unwrap();
    let (far, from) = listener.accept().unwrap();
    assert_eq!(from, near.local_addr().unwrap());
    (near, far)
}

// ---------------------------------------------------------------- connecting

#[test]
fn connecting_to_a_closed_port_is_refused() {
    everywhere(|| {
        let closed = ClosedPort::new();
        let error = TcpStream::connect(closed.addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connects_by_host_name_and_port() {
    everywhere(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect(("localhost", addr.port())).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_joined(&near, &far);
        let near = TcpStream::connect(format!("localhost:{}", addr.port())).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_joined(&near, &far);
    });
}

#[test]
fn connects_by_every_way_of_writing_an_address() {
    everywhere(|| {
        let (listener, addr) = listen();
        let check = |near: TcpStream| {
            let (far, _) = listener.accept().unwrap();
            assert_joined(&near, &far);
        };
        check(TcpStream::connect(addr).unwrap());
        check(TcpStream::connect(addr.to_string()).unwrap());
        check(TcpStream::connect(addr.to_string().as_str()).unwrap());
        check(TcpStream::connect((LOOPBACK.to_string(), addr.port())).unwrap());
        check(TcpStream::connect((LOOPBACK, addr.port())).unwrap());
        check(TcpStream::connect(&[addr][..]).unwrap());
        fn generic(to: impl ToSocketAddrs) -> TcpStream {
            TcpStream::connect(to).unwrap()
        }
        check(generic(addr));
    });
}

#[test]
fn a_list_of_addresses_falls_over_to_the_second() {
    everywhere(|| {
        let closed = ClosedPort::new();
        let (listener, addr) = listen();
        let near = TcpStream::connect(&[closed.addr, addr][..]).unwrap();
        assert_eq!(near.peer_addr().unwrap(), addr);
        let (far, _) = listener.accept().unwrap();
        assert_joined(&near, &far);
    });
}

#[test]
fn a_list_of_only_closed_ports_is_refused() {
    everywhere(|| {
        let (a, b) = (ClosedPort::new(), ClosedPort::new());
        let error = TcpStream::connect(&[a.addr, b.addr][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_empty_list_and_a_nonsense_address_are_invalid_input() {
    everywhere(|| {
        let none: &[SocketAddr] = &[];
        let error = TcpStream::connect(none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = TcpListener::bind(none).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for nonsense in ["localhost", "127.0.0.1:port", "127.0.0.1:65536", ""] {
            let error = TcpStream::connect(nonsense).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{nonsense:?}");
        }
    });
}

#[test]
fn connect_succeeds_before_anybody_accepts() {
    everywhere(|| {
        let (listener, addr) = listen();
        let mut near = TcpStream::connect(addr).unwrap();
        near.write_all(b"early").unwrap();
        drop(near);
        let (mut far, _) = listener.accept().unwrap();
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, "early");
    });
}

#[test]
fn connect_timeout_connects_and_leaves_a_stream_that_waits() {
    everywhere(|| {
        let (listener, addr) = listen();
        let near = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let writer = thread::spawn(move || {
            settle();
            far.write_all(b"late").unwrap();
            far
        });
        let mut buf = [0; 4];
        (&near).read_exact(&mut buf).unwrap(); // does not fail with WouldBlock
        assert_eq!(&buf, b"late");
        assert_eq!(near.read_timeout().unwrap(), None);
        assert_eq!(near.write_timeout().unwrap(), None);
        assert_joined(&near, &writer.join().unwrap());
    });
}

#[test]
fn connect_timeout_to_a_closed_port_is_refused_early() {
    everywhere(|| {
        let closed = ClosedPort::new();
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&closed.addr, ms(30_000)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn connect_timeout_of_zero_is_invalid_input() {
    everywhere(|| {
        let (_listener, addr) = listen();
        let error = TcpStream::connect_timeout(&addr, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn connect_timeout_gives_up_on_a_listener_that_does_not_answer() {
    everywhere(|| {
        let port = ClosedPort::new();
        port.listen_without_accepting();
        let mut queued = Vec::new();
        let (error, took) = loop {
            let start = Instant::now();
            match TcpStream::connect_timeout(&port.addr, ms(200)) {
                Ok(stream) => queued.push(stream),
                Err(e) => break (e, start.elapsed()),
            }
            assert!(queued.len() < 16, "the queue does not fill up");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(took >= ms(160), "{took:?}");
        assert!(took < PATIENCE, "{took:?}");
    });
}

#[test]
fn listening_on_an_address_of_another_machine_is_an_error() {
    everywhere(|| {
        // The address is reserved for documentation, so no machine has it.
        let kind = TcpListener::bind("203.0.113.1:0").unwrap_err().kind();
        assert_eq!(kind, ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn connecting_to_no_address_reaches_this_host() {
    everywhere(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let near = TcpStream::connect((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert_joined(&near, &far);
        drop(listener);
        let error = TcpStream::connect((Ipv4Addr::UNSPECIFIED, port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connecting_to_a_peer_that_resets_at_once_gives_a_reset_now_or_later() {
    everywhere(|| {
        const ROUNDS: usize = 50;
        let (listener, addr) = listen();
        let server = thread::spawn(move || {
            for _ in 0..ROUNDS {
                reset_on_close(&listener.accept().unwrap().0);
            }
        });
        for _ in 0..ROUNDS {
            let kind = match TcpStream::connect(addr) {
                Ok(mut stream) => stream.read(&mut [0]).unwrap_err().kind(),
                Err(error) => error.kind(),
            };
            assert_eq!(kind, ErrorKind::ConnectionReset);
        }
        server.join().unwrap();
    });
}

#[test]
fn connections_opened_one_inside_the_other_are_served_in_any_order() {
    everywhere(|| {
        const DEPTH: u8 = 10;
        let (listener, addr) = listen();
        let server = thread::spawn(move || {
            let serving: Vec<_> = (0..DEPTH)
                .map(|n| {
                    let (mut stream, _) = listener.accept().unwrap();
                    thread::spawn(move || {
                        let mut got = [0];
                        stream.read_exact(&mut got).unwrap();
                        assert_eq!(got, [n], "accepted in the order of connecting");
                    })
                })
                .collect();
            for conversation in serving {
                conversation.join().unwrap();
            }
        });
        /// Connects, descends, and writes: the first task to connect is the last to write.
        fn descend(n: u8, addr: SocketAddr) {
            if n < DEPTH {
                let mut stream = TcpStream::connect(addr).unwrap();
                thread::spawn(move || descend(n + 1, addr)).join().unwrap();
                stream.write_all(&[n]).unwrap();
            }
        }
        descend(0, addr);
        server.join().unwrap();
    });
}

#[test]
fn a_socket_that_is_not_connected_says_so() {
    everywhere(|| {
        let mut stream = TcpStream::from(unconnected());
        assert_eq!(stream.local_addr().unwrap().port(), 0);
        let kind = |result: ::std::io::Result<usize>| result.unwrap_err().kind();
        let no_peer = stream.peer_addr().unwrap_err().kind();
        assert_eq!(no_peer, ErrorKind::NotConnected);
        assert_eq!(kind(stream.read(&mut [0])), ErrorKind::NotConnected);
        assert_eq!(kind(stream.peek(&mut [0])), ErrorKind::NotConnected);
        assert_eq!(kind(stream.write(b"x")), ErrorKind::BrokenPipe);
        let shut = stream.shutdown(Shutdown::Both).unwrap_err().kind();
        assert_eq!(shut, ErrorKind::NotConnected);
        let listener = TcpListener::from(unconnected());
        let kind = listener.accept().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput, "it does not listen");
    });
}

/// A TCP socket that was neither bound nor connected.
fn unconnected() -> OwnedFd {
    // SAFETY: `socket` has no preconditions, and nothing else owns the new descriptor.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", ::std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

// ---------------------------------------------------- listening and accepting

#[test]
fn both_sides_agree_on_addresses() {
    everywhere(|| {
        let (listener, addr) = listen();
        assert_eq!(addr.ip(), LOOPBACK);
        assert_ne!(addr.port(), 0);
        let near = TcpStream::connect(addr).unwrap();
        let (far, from) = listener.accept().unwrap();
        assert_eq!(near.peer_addr().unwrap(), addr);
        assert_eq!(far.local_addr().unwrap(), addr);
        assert_eq!(far.peer_addr().unwrap(), near.local_addr().unwrap());
        assert_eq!(from, near.local_addr().unwrap());
    });
}

#[test]
fn binding_a_port_that_is_listened_on_is_addr_in_use() {
    everywhere(|| {
        let (_listener, addr) = listen();
        let error = TcpListener::bind(addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn binding_a_list_takes_the_first_that_is_free() {
    everywhere(|| {
        let (_listener, taken) = listen();
        let free = SocketAddr::from((LOOPBACK, 0));
        let second = TcpListener::bind(&[taken, free][..]).unwrap();
        assert_ne!(second.local_addr().unwrap().port(), taken.port());
    });
}

#[test]
fn accept_waits_for_a_connection_that_comes_later() {
    everywhere(|| {
        let (listener, addr) = listen();
        let acceptor = thread::spawn(move || listener.accept().unwrap());
        settle();
        let near = TcpStream::connect(addr).unwrap();
        let (far, from) = acceptor.join().unwrap();
        assert_eq!(from, near.local_addr().unwrap());
        assert_joined(&near, &far);
    });
}

#[test]
fn incoming_yields_connections_one_after_the_other() {
    everywhere(|| {
        let (listener, addr) = listen();
        let server = thread::spawn(move || {
            let mut said = Vec::new();
            for stream in listener.incoming().take(5) {
                let mut text = String::new();
                stream.unwrap().read_to_string(&mut text).unwrap();
                said.push(text);
            }
            said
        });
        for n in 0..5 {
            let mut near = TcpStream::connect(addr).unwrap();
            write!(near, "number {n}").unwrap();
        }
        let said = server.join().unwrap();
        assert_eq!(
            said,
            ["number 0", "number 1", "number 2", "number 3", "number 4"]
        );
    });
}

/// Runs the acceptors, and makes 40 numbered connections and then one connection that stops each acceptor.
fn several_acceptors(acceptors: Vec<impl FnOnce() -> Vec<u32> + Send + 'static>, addr: SocketAddr) {
    let count = acceptors.len();
    let running: Vec<_> = acceptors.into_iter().map(thread::spawn).collect();
    settle();
    for n in (0..40).chain((0..count).map(|_| u32::MAX)) {
        let mut near = TcpStream::connect(addr).unwrap();
        near.write_all(&n.to_be_bytes()).unwrap();
    }
    let mut all: Vec<u32> = running
        .into_iter()
        .flat_map(|acceptor| acceptor.join().unwrap())
        .collect();
    all.sort();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
}

fn accept_until_stopped(listener: &TcpListener) -> Vec<u32> {
    let mut seen = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut number = [0; 4];
        stream.read_exact(&mut number).unwrap();
        match u32::from_be_bytes(number) {
            u32::MAX => return seen,
            n => seen.push(n),
        }
    }
}

#[test]
fn acceptors_sharing_a_listener_get_each_connection_once() {
    everywhere(|| {
        let (listener, addr) = listen();
        let listener = Arc::new(listener);
        let acceptors = (0..4).map(|_| {
            let listener = Arc::clone(&listener);
            move || accept_until_stopped(&listener)
        });
        several_acceptors(acceptors.collect(), addr);
    });
}

#[test]
fn acceptors_on_clones_of_a_listener_get_each_connection_once() {
    everywhere(|| {
        let (listener, addr) = listen();
        let acceptors = (0..4).map(|_| {
            let listener = listener.try_clone().unwrap();
            move || accept_until_stopped(&listener)
        });
        several_acceptors(acceptors.collect(), addr);
    });
}

#[test]
fn a_clone_of_a_listener_goes_on_when_the_original_is_dropped() {
    everywhere(|| {
        let (listener, addr) = listen();
        let clone = listener.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), addr);
        let acceptor = thread::spawn(move || clone.accept().unwrap());
        settle();
        drop(listener);
        settle();
        let near = TcpStream::connect(addr).unwrap();
        let (far, _) = acceptor.join().unwrap();
        assert_joined(&near, &far);
    });
}

#[test]
fn a_clone_of_a_listener_that_is_given_away_does_not_change_how_the_others_wait() {
    everywhere(|| {
        let (listener, addr) = listen();
        let accept = || {
            // The other task connects while this one waits.
            let connector = thread::spawn(move || {
                settle();
                TcpStream::connect(addr).unwrap()
            });
            let (far, _) = listener.accept().unwrap();
            assert_joined(&connector.join().unwrap(), &far);
        };
        accept();
        drop(OwnedFd::from(listener.try_clone().unwrap()));
        accept();
        let given_away = OwnedFd::from(listener.try_clone().unwrap());
        for _ in 0..3 {
            accept();
            listener.set_nonblocking(true).unwrap();
            let kind = listener.accept().unwrap_err().kind();
            assert_eq!(kind, ErrorKind::WouldBlock);
            listener.set_nonblocking(false).unwrap();
        }
        // The listener that was given away is still in the mode that the user has set.
        let given_away = ::std::net::TcpListener::from(given_away);
        let acceptor = ::std::thread::spawn(move || given_away.accept().unwrap());
        ::std::thread::sleep(ms(50));
        let near = TcpStream::connect(addr).unwrap();
        let (far, _) = acceptor.join().unwrap();
        assert_joined(&near, &TcpStream::from(far));
        accept();
    });
}

#[test]
fn the_last_of_a_listeners_clones_leaves_a_duplicate_in_the_mode_that_was_set() {
    everywhere(|| {
        for nonblocking in [false, true] {
            let (listener, addr) = listen();
            let clone = listener.try_clone().unwrap();
            let duplicate = listener.as_fd().try_clone_to_owned().unwrap();
            pair_from(&listener, addr);
            listener.set_nonblocking(nonblocking).unwrap();
            drop(listener);
            drop(clone);
            let flags = rustix::fs::fcntl_getfl(&duplicate).unwrap();
            let is_nonblocking = flags.contains(rustix::fs::OFlags::NONBLOCK);
            assert_eq!(is_nonblocking, nonblocking);
        }
    });
}

#[test]
fn a_dropped_listener_resets_what_it_had_not_accepted() {
    everywhere(|| {
        let (listener, addr) = listen();
        let mut waiting = TcpStream::connect(addr).unwrap();
        drop(listener);
        let error = waiting.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_connection_that_is_reset_before_it_is_accepted_is_accepted_and_reset() {
    everywhere(|| {
        let (listener, addr) = listen();
        let mut near = TcpStream::connect(addr).unwrap();
        near.write_all(b"lost").unwrap();
        let from = near.local_addr().unwrap();
        reset_on_close(&near);
        drop(near);
        settle();
        let (mut far, peer) = listener.accept().unwrap();
        assert_eq!(peer, from);
        let mut got = Vec::new();
        let error = far.read_to_end(&mut got).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The listener still works.
        let (near, far) = pair_from(&listener, addr);
        assert_joined(&near, &far);
    });
}

#[test]
fn shutting_a_listener_down_by_its_descriptor_wakes_every_acceptor() {
    everywhere(|| {
        let (listener, _) = listen();
        let listener = Arc::new(listener);
        let acceptors: Vec<_> = (0..3)
            .map(|_| {
                let listener = Arc::clone(&listener);
                thread::spawn(move || listener.accept().unwrap_err().kind())
            })
            .collect();
        settle();
        // SAFETY: the listener's descriptor is open.
        let done = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        for acceptor in acceptors {
            assert_eq!(acceptor.join().unwrap(), ErrorKind::InvalidInput);
        }
        let kind = listener.accept().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::InvalidInput);
    });
}

#[test]
fn a_reset_is_an_error_to_the_next_read() {
    everywhere(|| {
        let (near, mut far) = pair();
        reset_on_close(&near);
        drop(near);
        let error = far.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_wakes_a_parked_reader_with_an_error() {
    everywhere(|| {
        let (near, mut far) = pair();
        let reader = thread::spawn(move || far.read(&mut [0; 8]).unwrap_err());
        settle();
        reset_on_close(&near);
        drop(near);
        assert_eq!(reader.join().unwrap().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_wakes_a_parked_writer_with_an_error() {
    everywhere(|| {
        let (near, far) = pair();
        let sent = Arc::new(AtomicUsize::new(0));
        let writer = thread::spawn({
            let sent = Arc::clone(&sent);
            move || write_until_error(&far, &sent)
        });
        until_stuck(&sent);
        reset_on_close(&near);
        drop(near);
        let kind = writer.join().unwrap();
        assert!(is_broken(kind), "{kind:?}");
    });
}

#[test]
fn writing_after_a_reset_is_an_error_and_not_a_signal() {
    everywhere(|| {
        let (near, mut far) = pair();
        reset_on_close(&near);
        drop(near);
        let start = Instant::now();
        let first = loop {
            match far.write(b"anybody?") {
                Ok(_) => assert!(start.elapsed() < PATIENCE, "writes go on succeeding"),
                Err(e) => break e.kind(),
            }
            thread::sleep(ms(1));
        };
        assert!(is_broken(first), "{first:?}");
        for _ in 0..5 {
            let kind = far.write(b"again").unwrap_err().kind();
            assert!(is_broken(kind), "{kind:?}");
            let slices = [IoSlice::new(b"and"), IoSlice::new(b"again")];
            let kind = far.write_vectored(&slices).unwrap_err().kind();
            assert!(is_broken(kind), "{kind:?}");
        }
    });
}

#[test]
fn what_came_before_a_reset_is_read_before_the_reset() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.write_all(b"the rest").unwrap();
        until_readable(&far, 8);
        reset_on_close(&near);
        drop(near);
        settle();
        let mut buf = [0; 5];
        assert_eq!(far.read(&mut buf).unwrap(), 5);
        assert_eq!(&buf, b"the r");
        let mut buf = [0; 100];
        assert_eq!(far.read(&mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"est");
        let error = far.read(&mut buf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(far.read(&mut buf).unwrap(), 0, "it is told once");
    });
}

#[test]
fn a_reset_between_two_reads_is_an_error_to_the_second() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let reader = thread::spawn(move || {
            // Parks before each of the two reads.
            let first = far.read(&mut [0; 8]).unwrap();
            (first, far.read(&mut [0; 8]).unwrap_err().kind())
        });
        settle();
        near.write_all(b"first").unwrap();
        settle();
        reset_on_close(&near);
        drop(near);
        assert_eq!(reader.join().unwrap(), (5, ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_reset_wakes_one_parked_reader_with_the_error_and_the_others_with_zero() {
    everywhere(|| {
        let (near, far) = pair();
        let far = Arc::new(far);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let far = Arc::clone(&far);
                thread::spawn(move || (&*far).read(&mut [0; 8]).map_err(|e| e.kind()))
            })
            .collect();
        settle();
        reset_on_close(&near);
        drop(near);
        let mut results: Vec<_> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        results.sort();
        assert_eq!(results, [Ok(0), Ok(0), Err(ErrorKind::ConnectionReset)]);
    });
}

#[test]
fn a_reset_wakes_a_parked_peek() {
    everywhere(|| {
        let (near, far) = pair();
        let peeker = thread::spawn(move || far.peek(&mut [0; 8]).unwrap_err().kind());
        settle();
        reset_on_close(&near);
        drop(near);
        assert_eq!(peeker.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn after_a_reset_there_is_no_peer_to_name_or_to_shut_down() {
    everywhere(|| {
        let (near, mut far) = pair();
        let addr = far.local_addr().unwrap();
        reset_on_close(&near);
        drop(near);
        assert!(far.read(&mut [0]).is_err());
        let kind = far.peer_addr().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::NotConnected);
        let kind = far.shutdown(Shutdown::Both).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::NotConnected);
        assert_eq!(far.local_addr().unwrap(), addr);
    });
}

#[test]
fn unread_data_at_the_end_gives_the_peer_a_reset() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let reader = thread::spawn(move || {
            far.write_all(b"unread").unwrap();
            far.read(&mut [0; 8]).unwrap_err().kind()
        });
        near.peek(&mut [0]).unwrap();
        settle();
        near.flush().unwrap();
        drop(near);
        assert_eq!(reader.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn peek_waits_for_data_and_does_not_consume_it() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let peeker = thread::spawn(move || {
            let mut buf = [0; 16];
            let n = far.peek(&mut buf).unwrap();
            assert_eq!(buf[0], b's');
            assert!((1..=4).contains(&n));
            until_readable(&far, 4);
            for _ in 0..3 {
                assert_eq!(far.peek(&mut buf).unwrap(), 4);
                assert_eq!(&buf[..4], b"same");
            }
            assert_eq!(far.peek(&mut buf[..2]).unwrap(), 2);
            assert_eq!(far.read(&mut buf).unwrap(), 4);
            assert_eq!(&buf[..4], b"same");
            assert_eq!(far.read(&mut buf).unwrap(), 0);
            far.peek(&mut buf).unwrap()
        });
        settle();
        near.write_all(b"same").unwrap();
        settle();
        drop(near);
        assert_eq!(peeker.join().unwrap(), 0);
    });
}

#[test]
fn peek_obeys_the_read_timeout_and_the_mode() {
    everywhere(|| {
        let (_near, far) = pair();
        far.set_read_timeout(Some(ms(50))).unwrap();
        let start = Instant::now();
        assert_times_out(|| far.peek(&mut [0; 4]));
        assert!(start.elapsed() >= ms(40));
        assert!(start.elapsed() < PATIENCE);
        far.set_read_timeout(Some(ms(30_000))).unwrap();
        far.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let kind = far.peek(&mut [0; 4]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::WouldBlock);
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn a_clone_has_the_same_addresses_and_options() {
    everywhere(|| {
        let (near, _far) = pair();
        let clone = near.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), near.local_addr().unwrap());
        assert_eq!(clone.peer_addr().unwrap(), near.peer_addr().unwrap());
        near.set_nodelay(true).unwrap();
        assert!(clone.nodelay().unwrap());
    });
}

#[test]
fn accepting_heeds_a_timeout_set_by_the_descriptor_and_hands_it_on() {
    everywhere(|| {
        let (listener, addr) = listen();
        set_by_descriptor(&listener, Timeout::Recv, Some(ms(60)));
        let start = Instant::now();
        assert_times_out(|| listener.accept());
        assert!(start.elapsed() >= ms(40));
        // An OS thread heeds the timeout, too, after a coroutine has accepted.
        ::std::thread::scope(|s| {
            s.spawn(|| assert_times_out(|| listener.accept()));
        });
        let (_near, far) = pair_from(&listener, addr);
        assert_eq!(far.read_timeout().unwrap(), Some(ms(60)));
        assert_times_out(|| (&far).read(&mut [0]));

        set_by_descriptor(&listener, Timeout::Recv, None);
        let acceptor = thread::spawn(move || listener.accept().unwrap().0);
        thread::sleep(ms(100));
        assert!(!acceptor.is_finished());
        let near = TcpStream::connect(addr).unwrap();
        assert_joined(&near, &acceptor.join().unwrap());
    });
}

#[test]
fn what_comes_after_shutdown_read_is_still_read() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
        far.write_all(b"late").unwrap();
        let mut buf = [0; 8];
        until("it arrives", || near.peek(&mut [0; 8]).unwrap() == 4);
        assert_eq!(near.read(&mut buf).unwrap(), 4);
        assert_eq!(near.read(&mut buf).unwrap(), 0);
    });
}

// --------------------------------------------------------------- urgent data

fn send_urgent(stream: &TcpStream, byte: u8) {
    // SAFETY: the descriptor of `stream` is open, and the buffer is valid for reads of one byte.
    let sent = unsafe {
        let fd = stream.as_raw_fd();
        libc::send(fd, (&raw const byte).cast(), 1, libc::MSG_OOB)
    };
    assert_eq!(sent, 1, "{}", ::std::io::Error::last_os_error());
}

fn take_urgent(stream: &TcpStream, how: i32) -> Option<u8> {
    let mut byte = 0_u8;
    // SAFETY: the descriptor of `stream` is open, and the buffer is valid for writes of one byte.
    let got = unsafe {
        let fd = stream.as_raw_fd();
        let flags = libc::MSG_OOB | libc::MSG_DONTWAIT | how;
        libc::recv(fd, (&raw mut byte).cast(), 1, flags)
    };
    (got == 1).then_some(byte)
}

#[test]
fn bytes_behind_urgent_data_are_not_lost() {
    everywhere(|| {
        const ROUNDS: u8 = 100;
        let (mut near, far) = pair();
        let reader = thread::spawn(move || {
            let mut far = far;
            for round in 0..ROUNDS {
                let mut got = Vec::new();
                while got.len() < 9 {
                    let mut buf = [0; 64];
                    let n = far.read(&mut buf).unwrap();
                    assert_ne!(n, 0);
                    got.extend_from_slice(&buf[..n]);
                }
                assert_eq!(got, b"inlineyes", "what is urgent is not among it");
                far.write_all(&[round]).unwrap();
            }
        });
        for round in 0..ROUNDS {
            // The reader may be parked or not, before the urgent mark or at the mark.
            near.write_all(b"inline").unwrap();
            if round % 3 == 0 {
                thread::sleep(ms(1));
            }
            send_urgent(&near, round);
            if round % 5 == 0 {
                thread::sleep(ms(1));
            }
            near.write_all(b"yes").unwrap();
            near.read_exact(&mut [0]).unwrap();
        }
        reader.join().unwrap();
    });
}

#[test]
fn urgent_data_alone_is_nothing_to_read() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let reader = thread::spawn(move || {
            let mut buf = [0; 64];
            let n = far.read(&mut buf).unwrap();
            (far, buf[..n].to_vec())
        });
        settle();
        send_urgent(&near, b'!');
        settle();
        assert!(!reader.is_finished());
        near.write_all(b"plain").unwrap();
        let (mut far, got) = reader.join().unwrap();
        assert_eq!(got, b"plain");

        far.set_read_timeout(Some(ms(50))).unwrap();
        send_urgent(&near, b'?');
        assert_times_out(|| far.read(&mut [0; 64]));
        drop(near);
        assert_eq!(far.read(&mut [0; 64]).unwrap(), 0);
    });
}

#[test]
fn urgent_data_is_there_on_request_and_splits_reads() {
    let taken = |early: bool| {
        let (mut near, mut far) = pair();
        far.set_read_timeout(Some(ms(1))).unwrap();
        assert_times_out(|| far.read(&mut [0; 64]));
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        near.write_all(b"ahead").unwrap();
        send_urgent(&near, b'!');
        near.write_all(b"behind").unwrap();
        until("it arrives", || take_urgent(&far, libc::MSG_PEEK).is_some());
        if !early {
            settle();
        }
        assert_eq!(take_urgent(&far, 0), Some(b'!'));
        let mut buf = [0; 64];
        assert_eq!(far.read(&mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"ahead");
        assert_eq!(far.read(&mut buf).unwrap(), 6);
        assert_eq!(&buf[..6], b"behind");
    };
    everywhere(|| {
        taken(true);
        taken(false);
    });
}

// ------------------------------------------------------------------- options

#[test]
fn nodelay_and_ttl_read_back_as_they_were_set() {
    everywhere(|| {
        let (listener, addr) = listen();
        let (near, _far) = pair_from(&listener, addr);
        for on in [true, false, true] {
            near.set_nodelay(on).unwrap();
            assert_eq!(near.nodelay().unwrap(), on);
        }
        for ttl in [64, 7] {
            near.set_ttl(ttl).unwrap();
            assert_eq!(near.ttl().unwrap(), ttl);
            listener.set_ttl(ttl).unwrap();
            assert_eq!(listener.ttl().unwrap(), ttl);
        }
    });
}

#[test]
fn options_are_those_of_the_descriptor_as_the_real_std_sees_it() {
    everywhere(|| {
        let (listener, addr) = listen();
        let (near, _far) = pair_from(&listener, addr);
        let real = ::std::net::TcpStream::from(near.as_fd().try_clone_to_owned().unwrap());
        let real_listener =
            ::std::net::TcpListener::from(listener.as_fd().try_clone_to_owned().unwrap());
        for on in [true, false] {
            near.set_nodelay(on).unwrap();
            assert_eq!(real.nodelay().unwrap(), on);
            real.set_nodelay(!on).unwrap();
            assert_eq!(near.nodelay().unwrap(), !on);
        }
        for (ttl, seconds) in [(77, 3), (78, 4)] {
            let timeout = Some(Duration::from_secs(seconds));
            near.set_ttl(ttl).unwrap();
            near.set_read_timeout(timeout).unwrap();
            near.set_write_timeout(timeout).unwrap();
            listener.set_ttl(ttl).unwrap();
            assert_eq!(real.ttl().unwrap(), ttl);
            assert_eq!(real.read_timeout().unwrap(), timeout);
            assert_eq!(real.write_timeout().unwrap(), timeout);
            assert_eq!(real_listener.ttl().unwrap(), ttl);
            real.set_ttl(ttl + 100).unwrap();
            real_listener.set_ttl(ttl + 100).unwrap();
            assert_eq!(near.ttl().unwrap(), ttl + 100);
            assert_eq!(listener.ttl().unwrap(), ttl + 100);
        }
        assert_eq!(real.local_addr().unwrap(), near.local_addr().unwrap());
        assert_eq!(real.peer_addr().unwrap(), near.peer_addr().unwrap());
    });
}

#[test]
#[allow(deprecated, reason = "it is still there")]
fn only_v6_is_read_back_and_cannot_be_set_any_more() {
    everywhere(|| {
        let (listener, addr) = listen();
        let real = ::std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
        let raw = |result: ::std::io::Result<bool>| result.map_err(|e| e.raw_os_error());
        assert_eq!(raw(listener.only_v6()), raw(real.only_v6()));
        assert_eq!(listener.only_v6().is_ok(), addr.is_ipv6());
        assert!(listener.set_only_v6(true).is_err());
    });
}

#[test]
fn a_scope_is_kept() {
    everywhere(|| {
        let Some((ip, scope)) = util::link_local() else {
            return;
        };
        let listener = TcpListener::bind(SocketAddrV6::new(ip, 0, 0, scope)).unwrap();
        let addr = listener.local_addr().unwrap();
        let near = TcpStream::connect(addr).unwrap();
        let (far, from) = listener.accept().unwrap();
        let ends = [
            addr,
            from,
            near.local_addr().unwrap(),
            far.peer_addr().unwrap(),
        ];
        for end in ends.into_iter().chain([near.peer_addr().unwrap()]) {
            match end {
                SocketAddr::V6(v6) => assert_eq!((*v6.ip(), v6.scope_id()), (ip, scope)),
                v4 => panic!("{v4}"),
            }
        }
        let near = TcpStream::connect(addr.to_string()).unwrap();
        assert_eq!(near.peer_addr().unwrap(), addr);
    });
}

#[test]
fn take_error_is_none_when_nothing_went_wrong() {
    everywhere(|| {
        let (listener, addr) = listen();
        let (near, far) = pair_from(&listener, addr);
        assert!(listener.take_error().unwrap().is_none());
        assert!(near.take_error().unwrap().is_none());
        assert_joined(&near, &far);
        drop(far);
        assert_eq!((&near).read(&mut [0; 1]).unwrap(), 0);
        assert!(near.take_error().unwrap().is_none());
    });
}

#[test]
fn take_error_takes_a_reset_once() {
    everywhere(|| {
        let (near, far) = pair();
        reset_on_close(&near);
        drop(near);
        let start = Instant::now();
        let error = loop {
            if let Some(e) = far.take_error().unwrap() {
                break e;
            }
            assert!(start.elapsed() < PATIENCE, "the reset never shows");
            thread::sleep(ms(1));
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(far.take_error().unwrap().is_none());
        assert_eq!((&far).read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn a_mode_set_by_the_descriptor_of_a_new_listener_is_heeded() {
    everywhere(|| {
        let (listener, addr) = listen();
        rustix::io::ioctl_fionbio(&listener, true).unwrap();
        for _ in 0..2 {
            let kind = listener.accept().unwrap_err().kind();
            assert_eq!(kind, ErrorKind::WouldBlock);
        }
        listener.set_nonblocking(false).unwrap();
        let acceptor = thread::spawn(move || listener.accept().unwrap().0);
        thread::sleep(ms(100));
        assert!(!acceptor.is_finished());
        let near = TcpStream::connect(addr).unwrap();
        assert_joined(&near, &acceptor.join().unwrap());
    });
}

#[test]
fn a_stream_accepted_by_a_nonblocking_listener_waits() {
    everywhere(|| {
        let (listener, addr) = listen();
        listener.set_nonblocking(true).unwrap();
        let mut near = TcpStream::connect(addr).unwrap();
        let start = Instant::now();
        let mut far = loop {
            match listener.accept() {
                Ok((far, _)) => break far,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < PATIENCE, "the connection never comes");
            thread::sleep(ms(1));
        };
        let reader = thread::spawn(move || far.read(&mut [0; 8]).unwrap());
        settle();
        near.write_all(b"late").unwrap();
        assert_eq!(reader.join().unwrap(), 4);
    });
}

#[test]
fn a_nonblocking_listener_does_not_wait_until_it_is_made_to_again() {
    everywhere(|| {
        let (listener, addr) = listen();
        listener.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let kind = listener.accept().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::WouldBlock);
        let kind = listener.incoming().next().unwrap().unwrap_err().kind();
        assert_eq!(kind, ErrorKind::WouldBlock);
        assert!(start.elapsed() < PATIENCE);

        // Accepted streams are in blocking mode.
        let mut near = TcpStream::connect(addr).unwrap();
        let start = Instant::now();
        let mut far = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(ms(1));
        };
        let reader = thread::spawn(move || far.read_exact(&mut [0; 1]).unwrap());
        settle();
        near.write_all(b"w").unwrap();
        reader.join().unwrap();

        listener.set_nonblocking(false).unwrap();
        let acceptor = thread::spawn(move || listener.accept().map(|_| ()).unwrap());
        thread::sleep(ms(100));
        assert!(!acceptor.is_finished());
        let _near = TcpStream::connect(addr).unwrap();
        acceptor.join().unwrap();
    });
}

#[test]
fn a_listener_survives_becoming_an_owned_descriptor_and_back() {
    everywhere(|| {
        let (listener, addr) = listen();
        let fd: OwnedFd = listener.into();
        let listener = TcpListener::from(fd);
        let (near, far) = pair_from(&listener, addr);
        assert_joined(&near, &far);
        // SAFETY: the descriptor is open, and `into_raw_fd` has given up the ownership.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        assert_eq!(listener.local_addr().unwrap(), addr);
        let acceptor = thread::spawn(move || listener.accept().unwrap());
        settle();
        let near = TcpStream::connect(addr).unwrap();
        assert_joined(&near, &acceptor.join().unwrap().0);
    });
}

// With the real std, the conversions are the identity.
#[test]
fn sockets_made_by_the_real_std_can_be_moved_in() {
    everywhere(|| {
        let real = ::std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
        let addr = real.local_addr().unwrap();
        let listener = TcpListener::from(real);
        let real = ::std::net::TcpStream::connect(addr).unwrap();
        let near = TcpStream::from(real);
        let (far, _) = listener.accept().unwrap();
        assert_joined(&near, &far);
        let reader = thread::spawn(move || (&near).read(&mut [0; 1]).unwrap());
        settle();
        drop(far);
        assert_eq!(reader.join().unwrap(), 0);
        let real = ::std::net::TcpStream::from(TcpStream::connect(addr).unwrap());
        assert_eq!(real.peer_addr().unwrap(), addr);
    });
}

#[test]
fn debug_output_names_the_addresses_and_the_descriptor() {
    everywhere(|| {
        let (listener, addr) = listen();
        let (near, far) = pair_from(&listener, addr);
        let fd = listener.as_raw_fd();
        let expected = format!("TcpListener {{ addr: {addr:?}, fd: {fd} }}");
        assert_eq!(format!("{listener:?}"), expected);
        assert_eq!(
            format!("{:?}", listener.incoming()),
            format!("Incoming {{ listener: {expected} }}")
        );
        let (peer, fd) = (near.local_addr().unwrap(), far.as_raw_fd());
        assert_eq!(
            format!("{far:?}"),
            format!("TcpStream {{ addr: {addr:?}, peer: {peer:?}, fd: {fd} }}")
        );
        // Without a peer, the output has no `peer`.
        reset_on_close(&near);
        drop(near);
        assert!((&far).read(&mut [0]).is_err());
        assert_eq!(
            format!("{far:?}"),
            format!("TcpStream {{ addr: {addr:?}, fd: {fd} }}")
        );
    });
}

#[test]
fn sockets_have_the_auto_traits_of_std() {
    fn all<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + ::std::fmt::Debug>() {}
    fn fused<T: ::std::iter::FusedIterator>() {}
    all::<TcpStream>();
    all::<TcpListener>();
    all::<Incoming<'static>>();
    fused::<Incoming<'static>>();
}

// ------------------------------------------------------------ many connections

#[test]
fn a_hundred_connections_play_ping_pong_at_once() {
    everywhere(|| {
        const CLIENTS: usize = 100;
        const ROUNDS: u32 = 20;
        let (listener, addr) = listen();
        let go = Arc::new(AtomicBool::new(false));
        let server = thread::spawn(move || {
            let mut players = Vec::new();
            for _ in 0..CLIENTS {
                let (mut stream, _) = listener.accept().unwrap();
                players.push(thread::spawn(move || {
                    let mut ball = [0; 4];
                    let mut hits = 0;
                    while stream.read_exact(&mut ball).is_ok() {
                        let n = u32::from_be_bytes(ball) + 1;
                        stream.write_all(&n.to_be_bytes()).unwrap();
                        hits += 1;
                    }
                    hits
                }));
            }
            players.into_iter().map(|p| p.join().unwrap()).sum::<u32>()
        });
        let clients: Vec<_> = (0..CLIENTS as u32)
            .map(|id| {
                let go = Arc::clone(&go);
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    until("all are connected", || go.load(SeqCst));
                    for round in 0..ROUNDS {
                        let ball = id * 1000 + round;
                        stream.write_all(&ball.to_be_bytes()).unwrap();
                        let mut back = [0; 4];
                        stream.read_exact(&mut back).unwrap();
                        assert_eq!(u32::from_be_bytes(back), ball + 1);
                    }
                })
            })
            .collect();
        settle();
        go.store(true, SeqCst);
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(server.join().unwrap(), CLIENTS as u32 * ROUNDS);
    });
}
