//! What Unix sockets promise.

use super::{std, util};
use ::std::io::ErrorKind;
use ::std::path::{Path, PathBuf};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::{SocketAddrExt, TcpStreamExt};
use std::os::unix::net::{Incoming, SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::Instant;
use util::{Scratch, assert_same_bytes, assert_times_out, everywhere, ms, noise, settle, until};

#[path = "datagram.rs"]
mod datagram;
#[path = "stream.rs"]
mod stream;

type Stream = UnixStream;
type Datagram = UnixDatagram;

fn stream_pair() -> (Stream, Stream) {
    UnixStream::pair().unwrap()
}

fn datagram_pair() -> (Datagram, Datagram) {
    UnixDatagram::pair().unwrap()
}

/// An abstract address that nothing else uses.
fn abstract_address() -> SocketAddr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, SeqCst);
    let name = format!("{} {} {number}", module_path!(), ::std::process::id());
    SocketAddr::from_abstract_name(name).unwrap()
}

fn connected_pair(path: &Path) -> (UnixStream, UnixStream) {
    let listener = UnixListener::bind(path).unwrap();
    let near = UnixStream::connect(path).unwrap();
    (near, listener.accept().unwrap().0)
}

#[track_caller]
fn assert_kind<T: ::std::fmt::Debug>(result: ::std::io::Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

/// Whether the open file description of `socket` is in non-blocking mode.
fn is_nonblocking(socket: &impl AsRawFd) -> bool {
    // SAFETY: F_GETFL only reads flags.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    assert!(flags >= 0, "{}", ::std::io::Error::last_os_error());
    flags & libc::O_NONBLOCK != 0
}

/// Does `work` beside a task that ticks, and checks that the task goes on ticking.
fn while_ticking<T>(work: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = thread::spawn({
        let (over, ticks) = (Arc::clone(&over), Arc::clone(&ticks));
        move || {
            while !over.load(SeqCst) {
                ticks.fetch_add(1, SeqCst);
                thread::sleep(ms(1));
            }
        }
    });
    until("it ticks", || ticks.load(SeqCst) > 0);
    let before = ticks.load(SeqCst);
    let done = work();
    until("it goes on", || ticks.load(SeqCst) > before);
    over.store(true, SeqCst);
    ticker.join().unwrap();
    done
}

// -------------------------------------------------------------- stream basics

#[test]
fn a_stream_connects_by_path_and_carries_bytes_both_ways() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        let server = thread::spawn(move || {
            let (mut stream, from) = listener.accept().unwrap();
            assert!(from.is_unnamed());
            let mut question = [0; 8];
            stream.read_exact(&mut question).unwrap();
            assert_eq!(&question, b"question");
            stream.write_all(b"answer").unwrap();
        });
        let mut stream = UnixStream::connect(&path).unwrap();
        assert_eq!(stream.peer_addr().unwrap().as_pathname(), Some(&*path));
        assert!(stream.local_addr().unwrap().is_unnamed());
        stream.write_all(b"question").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
        server.join().unwrap();
    });
}

#[test]
fn a_pair_is_connected_and_has_no_names() {
    everywhere(|| {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        for socket in [&a, &b] {
            assert!(socket.local_addr().unwrap().is_unnamed());
            assert!(socket.peer_addr().unwrap().is_unnamed());
            assert!(socket.take_error().unwrap().is_none());
        }
        let echo = thread::spawn(move || {
            let mut buf = [0; 5];
            b.read_exact(&mut buf).unwrap();
            b.write_all(&buf).unwrap();
        });
        settle();
        a.write_all(b"hello").unwrap();
        let mut back = String::new();
        a.read_to_string(&mut back).unwrap();
        assert_eq!(back, "hello");
        echo.join().unwrap();
    });
}

#[test]
fn names_that_do_not_fit_or_have_a_nul_are_invalid_input() {
    everywhere(|| {
        let dir = Scratch::new();
        for path in [dir.join("a".repeat(108)), PathBuf::from("with\0nul")] {
            assert_kind(UnixStream::connect(&path), ErrorKind::InvalidInput);
            assert_kind(UnixListener::bind(&path), ErrorKind::InvalidInput);
            assert_kind(UnixDatagram::bind(&path), ErrorKind::InvalidInput);
            let socket = UnixDatagram::unbound().unwrap();
            assert_kind(socket.connect(&path), ErrorKind::InvalidInput);
            assert_kind(socket.send_to(b"x", &path), ErrorKind::InvalidInput);
            assert_kind(SocketAddr::from_pathname(&path), ErrorKind::InvalidInput);
        }
        let long = SocketAddr::from_abstract_name([b'a'; 108]);
        assert_kind(long, ErrorKind::InvalidInput);
    });
}

#[test]
fn names_of_the_full_length_work() {
    everywhere(|| {
        let dir = Scratch::new();
        let room = 107 - dir.join("").as_os_str().len();
        let path = dir.join("p".repeat(room));
        let (near, _far) = connected_pair(&path);
        assert_eq!(near.peer_addr().unwrap().as_pathname(), Some(&*path));

        let from = dir.join("f".repeat(room));
        let (from, to) = (
            UnixDatagram::bind(from).unwrap(),
            dir.join("t".repeat(room)),
        );
        let receiver = UnixDatagram::bind(&to).unwrap();
        from.send_to(b"x", &to).unwrap();
        let (_, sender) = receiver.recv_from(&mut [0; 1]).unwrap();
        let name = from.local_addr().unwrap();
        assert_eq!(sender.as_pathname().unwrap(), name.as_pathname().unwrap());

        let mut name = noise(107, 5);
        name[..8].copy_from_slice(&(abstract_address().as_abstract_name().unwrap())[..8]);
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&addr).unwrap();
        let near = UnixStream::connect_addr(&addr).unwrap();
        let _far = listener.accept().unwrap();
        assert_eq!(near.peer_addr().unwrap().as_abstract_name(), Some(&*name));
    });
}

#[test]
fn abstract_names_need_no_file() {
    everywhere(|| {
        let addr = abstract_address();
        assert!(!addr.is_unnamed() && addr.as_pathname().is_none());
        let listener = UnixListener::bind_addr(&addr).unwrap();
        let local = listener.local_addr().unwrap();
        assert_eq!(local.as_abstract_name(), addr.as_abstract_name());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"from nowhere").unwrap();
        });
        let mut stream = UnixStream::connect_addr(&addr).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, "from nowhere");
        server.join().unwrap();
        assert_kind(
            UnixStream::connect_addr(&addr),
            ErrorKind::ConnectionRefused,
        );
    });
}

#[test]
fn connecting_and_binding_fail_as_the_system_says() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        assert_kind(UnixStream::connect(&path), ErrorKind::NotFound);
        let addr = SocketAddr::from_pathname(&path).unwrap();
        assert_kind(UnixStream::connect_addr(&addr), ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        assert_kind(UnixListener::bind(&path), ErrorKind::AddrInUse);
        assert_kind(UnixListener::bind_addr(&addr), ErrorKind::AddrInUse);
        assert_kind(UnixDatagram::bind_addr(&addr), ErrorKind::AddrInUse);
        drop(listener);
        assert_kind(UnixStream::connect(&path), ErrorKind::ConnectionRefused);
        // A socket of another type, and an empty name.
        let other = dir.join("datagram");
        let _datagram = UnixDatagram::bind(&other).unwrap();
        let error = UnixStream::connect(&other).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
        assert_kind(UnixStream::connect(""), ErrorKind::InvalidInput);
    });
}

#[test]
fn sockets_debug_as_their_descriptor_and_addresses() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let datagram = UnixDatagram::unbound().unwrap();
        for (shown, name) in [
            (format!("{listener:?}"), "UnixListener { fd: "),
            (format!("{stream:?}"), "UnixStream { fd: "),
            (format!("{datagram:?}"), "UnixDatagram { fd: "),
        ] {
            assert!(shown.starts_with(name), "{shown}");
        }
        assert!(format!("{stream:?}").contains("(pathname)"));
    });
}

#[test]
fn the_types_have_the_auto_traits_and_conversions_of_std() {
    fn auto<T: Send + Sync + Unpin + ::std::panic::UnwindSafe + ::std::panic::RefUnwindSafe>() {}
    fn converts<T: AsFd + AsRawFd + FromRawFd + IntoRawFd + From<OwnedFd> + Into<OwnedFd>>() {}
    auto::<UnixStream>();
    auto::<UnixListener>();
    auto::<UnixDatagram>();
    auto::<Incoming<'_>>();
    converts::<UnixStream>();
    converts::<UnixListener>();
    converts::<UnixDatagram>();
}

// ------------------------------------------------------------------ listeners

#[test]
fn a_listener_iterates_over_its_connections() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(listener.incoming().size_hint(), (usize::MAX, None));
        let server = thread::spawn(move || {
            let mut got = Vec::new();
            for stream in listener.incoming().take(2) {
                stream.unwrap().read_to_end(&mut got).unwrap();
            }
            for stream in &listener {
                stream.unwrap().read_to_end(&mut got).unwrap();
                if got.len() == 3 {
                    break;
                }
            }
            got
        });
        for byte in b"abc" {
            UnixStream::connect(&path)
                .unwrap()
                .write_all(&[*byte])
                .unwrap();
        }
        assert_eq!(server.join().unwrap(), b"abc");
    });
}

#[test]
fn acceptors_on_clones_get_one_connection_each() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let acceptors: Vec<_> = [listener.try_clone().unwrap(), listener]
            .into_iter()
            .map(|listener| {
                let accepted = Arc::clone(&accepted);
                thread::spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    accepted.fetch_add(1, SeqCst);
                    stream.write_all(b"!").unwrap();
                })
            })
            .collect();
        settle();
        for count in 1..=2 {
            let mut stream = UnixStream::connect(&path).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);
            settle();
            assert_eq!(accepted.load(SeqCst), count);
        }
        for acceptor in acceptors {
            acceptor.join().unwrap();
        }
    });
}

#[test]
fn a_nonblocking_listener_does_not_wait_until_it_is_made_to_again() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_kind(listener.accept(), ErrorKind::WouldBlock);
        assert!(is_nonblocking(&listener));
        let mut near = UnixStream::connect(&path).unwrap();
        // The accepted stream is in blocking mode.
        let (mut far, _) = listener.accept().unwrap();
        let reader = thread::spawn(move || far.read(&mut [0; 4]).unwrap());
        settle();
        near.write_all(b"late").unwrap();
        assert_eq!(reader.join().unwrap(), 4);
        listener.set_nonblocking(false).unwrap();
        let acceptor = thread::spawn(move || listener.accept().map(drop).unwrap());
        settle();
        assert!(!acceptor.is_finished());
        let _stream = UnixStream::connect(&path).unwrap();
        acceptor.join().unwrap();
    });
}

#[test]
fn shutting_a_listener_down_by_its_descriptor_ends_accepting() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = Arc::new(UnixListener::bind(&path).unwrap());
        let _queued = UnixStream::connect(&path).unwrap();
        let acceptor = thread::spawn({
            let listener = Arc::clone(&listener);
            move || {
                listener.accept().unwrap();
                listener.accept().map(drop)
            }
        });
        settle();
        // SAFETY: the listener's descriptor is open.
        let done = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        assert_kind(acceptor.join().unwrap(), ErrorKind::InvalidInput);
        assert_kind(listener.accept().map(drop), ErrorKind::InvalidInput);
        assert_kind(UnixStream::connect(&path), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connecting_waits_for_room_in_a_full_queue() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: the listener's descriptor is open.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let connected = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..4u8)
            .map(|n| {
                let (path, connected) = (path.clone(), Arc::clone(&connected));
                thread::spawn(move || {
                    let mut stream = match n % 2 {
                        0 => UnixStream::connect(path).unwrap(),
                        _ => {
                            let addr = SocketAddr::from_pathname(path).unwrap();
                            UnixStream::connect_addr(&addr).unwrap()
                        }
                    };
                    connected.fetch_add(1, SeqCst);
                    assert!(!is_nonblocking(&stream));
                    stream.write_all(&[n]).unwrap();
                })
            })
            .collect();
        until("one is in the queue", || connected.load(SeqCst) == 1);
        while_ticking(settle);
        assert_eq!(connected.load(SeqCst), 1, "the queue is of one");
        let mut got: Vec<_> = (0..4)
            .map(|_| {
                let mut byte = [0];
                listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
                byte[0]
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 3]);
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn dropping_the_listener_refuses_connections_in_its_queue_and_waiting_ones() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: the listener's descriptor is open.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut queued = UnixStream::connect(&path).unwrap();
        let waiting = thread::spawn(move || UnixStream::connect(path).map(drop));
        settle();
        drop(listener);
        assert_kind(queued.read(&mut [0; 1]), ErrorKind::ConnectionReset);
        assert_kind(waiting.join().unwrap(), ErrorKind::ConnectionRefused);
    });
}

// ----------------------------------------------------- the end of connections

#[test]
fn dropping_the_peer_ends_a_parked_read_and_breaks_writes() {
    everywhere(|| {
        let (a, mut b) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let end = b.read(&mut [0; 16]).unwrap();
            (end, b)
        });
        settle();
        drop(a);
        let (end, mut b) = reader.join().unwrap();
        assert_eq!(end, 0);
        assert_eq!(b.read(&mut [0; 16]).unwrap(), 0);
        assert_kind(b.write(b"x"), ErrorKind::BrokenPipe);
        assert_kind(
            b.write_vectored(&[IoSlice::new(b"x")]),
            ErrorKind::BrokenPipe,
        );
    });
}

#[test]
fn a_peer_that_goes_with_bytes_unread_resets_the_connection() {
    everywhere(|| {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(b"never read").unwrap();
        drop(b);
        assert_kind(a.read(&mut [0; 1]), ErrorKind::ConnectionReset);
    });
}

// -------------------------------------------------------------------- modes

#[test]
fn descriptors_stay_in_blocking_mode() {
    everywhere(|| {
        let dir = Scratch::new();
        let (near, mut far) = connected_pair(&dir.join("stream"));
        let (a, b) = UnixDatagram::pair().unwrap();
        let mut clone = near.try_clone().unwrap();
        let reader = thread::spawn(move || clone.read(&mut [0; 1]).unwrap());
        let receiver = thread::spawn({
            let b = b.try_clone().unwrap();
            move || b.recv(&mut [0; 1]).unwrap()
        });
        settle();
        assert!(!is_nonblocking(&near) && !is_nonblocking(&far));
        assert!(!is_nonblocking(&a) && !is_nonblocking(&b));
        far.write_all(b"x").unwrap();
        a.send(b"x").unwrap();
        assert_eq!(reader.join().unwrap() + receiver.join().unwrap(), 2);
    });
}

#[test]
fn conversions_keep_the_mode_and_the_timeouts() {
    everywhere(|| {
        let (mut peer, stream) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(ms(40))).unwrap();
        assert_times_out(|| (&stream).read(&mut [0; 1]));
        // To std and back.
        let real = ::std::os::unix::net::UnixStream::from(stream);
        assert_eq!(real.read_timeout().unwrap(), Some(ms(40)));
        assert!(!is_nonblocking(&real));
        let mut stream = UnixStream::from(real);
        assert_times_out(|| stream.read(&mut [0; 1]));
        // Through an owned descriptor.
        stream.set_read_timeout(None).unwrap();
        stream.set_nonblocking(true).unwrap();
        let fd = OwnedFd::from(stream);
        assert!(is_nonblocking(&fd));
        let mut stream = UnixStream::from(fd);
        assert_kind(stream.read(&mut [0; 1]), ErrorKind::WouldBlock);
        // Through a raw descriptor.
        stream.set_nonblocking(false).unwrap();
        // SAFETY: the descriptor is open, and `into_raw_fd` has given up the ownership.
        let mut stream = unsafe { UnixStream::from_raw_fd(stream.into_raw_fd()) };
        assert_eq!(stream.as_fd().as_raw_fd(), stream.as_raw_fd());
        peer.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 1);

        let (a, b) = UnixDatagram::pair().unwrap();
        b.set_read_timeout(Some(ms(40))).unwrap();
        let real = ::std::os::unix::net::UnixDatagram::from(b);
        assert_eq!(real.read_timeout().unwrap(), Some(ms(40)));
        let b = UnixDatagram::from(OwnedFd::from(real));
        assert_times_out(|| b.recv(&mut [0; 1]));
        a.send(b"x").unwrap();
        assert_eq!(b.recv(&mut [0; 1]).unwrap(), 1);
    });
}

#[test]
fn a_listener_that_was_accepted_from_is_given_away_in_the_users_mode() {
    everywhere(|| {
        let addr = abstract_address();
        for nonblocking in [false, true] {
            let listener = UnixListener::bind_addr(&addr).unwrap();
            let _queued = UnixStream::connect_addr(&addr).unwrap();
            listener.accept().unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let real = ::std::os::unix::net::UnixListener::from(listener);
            assert_eq!(is_nonblocking(&real), nonblocking);
            let listener = UnixListener::from(real);
            if nonblocking {
                assert_kind(listener.accept().map(drop), ErrorKind::WouldBlock);
            }
            let _queued = UnixStream::connect_addr(&addr).unwrap();
            listener.accept().unwrap();
            assert_eq!(is_nonblocking(&OwnedFd::from(listener)), nonblocking);
        }
    });
}

// ------------------------------------------------------------------ datagrams

#[test]
fn datagrams_go_to_paths_and_tell_where_from() {
    everywhere(|| {
        let dir = Scratch::new();
        let (a_path, b_path) = (dir.join("a"), dir.join("b"));
        let a = UnixDatagram::bind(&a_path).unwrap();
        let b = UnixDatagram::bind(&b_path).unwrap();
        let mut buf = [0; 16];
        assert_eq!(a.send_to(b"hello", &b_path).unwrap(), 5);
        let (len, from) = b.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"hello");
        assert_eq!(from.as_pathname(), Some(&*a_path));
        assert_eq!(b.send_to_addr(b"back", &from).unwrap(), 4);
        assert_eq!(a.recv(&mut buf).unwrap(), 4);
        // From a socket without a name, while the receiver waits.
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap());
        settle();
        let nobody = UnixDatagram::unbound().unwrap();
        nobody.send_to(b"psst", &b_path).unwrap();
        let (len, from) = receiver.join().unwrap();
        assert_eq!(len, 4);
        assert!(from.is_unnamed());
        // From a socket with an abstract name.
        let addr = abstract_address();
        let named = UnixDatagram::bind_addr(&addr).unwrap();
        named.send_to(b"x", &a_path).unwrap();
        let (_, from) = a.recv_from(&mut buf).unwrap();
        assert_eq!(from.as_abstract_name(), addr.as_abstract_name());
        assert_eq!(a.send_to_addr(b"yz", &addr).unwrap(), 2);
        assert_eq!(named.recv(&mut buf).unwrap(), 2);
    });
}

#[test]
fn a_connected_socket_sends_without_addresses_and_may_change_its_peer() {
    everywhere(|| {
        let dir = Scratch::new();
        let (a_path, b_path) = (dir.join("a"), dir.join("b"));
        let a = UnixDatagram::bind(&a_path).unwrap();
        let b = UnixDatagram::bind(&b_path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        assert_kind(socket.send(b"whom?"), ErrorKind::NotConnected);
        assert_kind(socket.peer_addr().map(drop), ErrorKind::NotConnected);
        socket.connect(&a_path).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_pathname(), Some(&*a_path));
        assert_eq!(socket.send(b"a").unwrap(), 1);
        socket.connect_addr(&b.local_addr().unwrap()).unwrap();
        assert_eq!(socket.send(b"bb").unwrap(), 2);
        assert_eq!(a.recv(&mut [0; 16]).unwrap(), 1);
        assert_eq!(b.recv(&mut [0; 16]).unwrap(), 2);
    });
}

#[test]
fn a_datagram_of_16_mib_is_refused() {
    everywhere(|| {
        let (a, _b) = UnixDatagram::pair().unwrap();
        let huge = vec![0; 16 << 20];
        let error = a.send(&huge).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    });
}

#[test]
fn datagrams_to_an_address_without_a_socket_are_refused() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let socket = UnixDatagram::unbound().unwrap();
        assert_kind(socket.send_to(b"x", &path), ErrorKind::NotFound);
        assert_kind(socket.connect(&path), ErrorKind::NotFound);
        let receiver = UnixDatagram::bind(&path).unwrap();
        socket.connect(&path).unwrap();
        drop(receiver);
        assert_kind(socket.send(b"x"), ErrorKind::ConnectionRefused);
        assert_kind(socket.send_to(b"x", &path), ErrorKind::ConnectionRefused);
    });
}

/// Calls `send` until it would wait. Returns how many datagrams were sent.
fn fill(socket: &UnixDatagram, send: impl Fn() -> ::std::io::Result<usize>) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let full = loop {
        match send() {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn sending_to_a_full_peer_waits_for_room() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let queued = fill(&sender, || sender.send(b"early"));
        let sending = thread::spawn(move || {
            for _ in 0..10 {
                sender.send(b"late").unwrap();
            }
        });
        while_ticking(settle);
        assert!(!sending.is_finished());
        let mut buf = [0; 16];
        for n in 0..queued + 10 {
            let len = receiver.recv(&mut buf).unwrap();
            let wanted = if n < queued { &b"early"[..] } else { b"late" };
            assert_eq!(&buf[..len], wanted);
        }
        sending.join().unwrap();
    });
}

#[test]
fn sending_more_than_may_be_under_way_waits_for_the_receiver() {
    everywhere(|| {
        let (a, b) = UnixDatagram::pair().unwrap();
        let message = noise(10_000, 1);
        let queued = fill(&a, || a.send(&message));
        let sending = thread::spawn(move || {
            for _ in 0..queued {
                a.send(&noise(10_000, 2)).unwrap();
            }
        });
        while_ticking(settle);
        assert!(!sending.is_finished());
        let mut buf = [0; 20_000];
        for n in 0..2 * queued {
            let len = b.recv(&mut buf).unwrap();
            assert_same_bytes(&buf[..len], &noise(10_000, if n < queued { 1 } else { 2 }));
        }
        sending.join().unwrap();
    });
}

#[test]
fn sending_to_the_address_of_a_full_receiver_waits_for_room() {
    everywhere(|| {
        // A few long datagrams fill the sender's buffer. Many short ones fill the receiver's queue.
        for len in [1, 30_000] {
            let dir = Scratch::new();
            let (path, spare) = (dir.join("socket"), dir.join("spare"));
            let receiver = UnixDatagram::bind(&path).unwrap();
            let other = UnixDatagram::bind(&spare).unwrap();
            let sender = Arc::new(UnixDatagram::unbound().unwrap());
            let queued = fill(&sender, || sender.send_to(&noise(len, 1), &path));
            let sending = thread::spawn({
                let sender = Arc::clone(&sender);
                move || {
                    for _ in 0..10 {
                        sender.send_to(&noise(len, 2), &path).unwrap();
                    }
                }
            });
            while_ticking(settle);
            assert!(!sending.is_finished());
            if len == 1 {
                // Another receiver has room.
                assert_eq!(sender.send_to(b"aside", &spare).unwrap(), 5);
                assert_eq!(other.recv(&mut [0; 8]).unwrap(), 5);
            }
            let mut buf = vec![0; len + 1];
            for n in 0..queued + 10 {
                let got = receiver.recv(&mut buf).unwrap();
                assert_same_bytes(&buf[..got], &noise(len, if n < queued { 1 } else { 2 }));
            }
            sending.join().unwrap();
        }
    });
}

#[test]
fn a_socket_with_a_full_peer_sends_to_another_receiver_as_soon_as_that_has_room() {
    everywhere(|| {
        for len in [1, 30_000] {
            let dir = Scratch::new();
            let (peer_path, path) = (dir.join("peer"), dir.join("socket"));
            let _peer = UnixDatagram::bind(&peer_path).unwrap();
            let receiver = UnixDatagram::bind(&path).unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            sender.connect(&peer_path).unwrap();
            let filler = UnixDatagram::unbound().unwrap();
            fill(&filler, || filler.send_to(b"x", &peer_path));
            let queued = fill(&sender, || sender.send_to(&noise(len, 1), &path));
            let sending = thread::spawn(move || {
                sender.send_to(&noise(len, 2), &path).unwrap();
            });
            settle();
            assert!(!sending.is_finished());
            let mut buf = vec![0; len + 1];
            for n in 0..queued + 1 {
                let got = receiver.recv(&mut buf).unwrap();
                assert_same_bytes(&buf[..got], &noise(len, if n < queued { 1 } else { 2 }));
            }
            sending.join().unwrap();
        }
    });
}

#[test]
fn a_socket_that_turns_from_a_full_peer_to_another_sends_at_once() {
    everywhere(|| {
        let dir = Scratch::new();
        let (full, path) = (dir.join("full"), dir.join("socket"));
        let _full = UnixDatagram::bind(&full).unwrap();
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = Arc::new(UnixDatagram::unbound().unwrap());
        sender.connect(&full).unwrap();
        fill(&sender, || sender.send(b"x"));
        sender.set_write_timeout(Some(ms(40))).unwrap();
        assert_times_out(|| sender.send(b"x"));
        sender.set_write_timeout(None).unwrap();
        // The socket sends to an address although its peer is full.
        assert_eq!(sender.send_to(b"one", &path).unwrap(), 3);
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 3);
        // The socket sends to a new peer.
        sender.connect(&path).unwrap();
        assert_eq!(sender.send(b"two!").unwrap(), 4);
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 4);
    });
}

#[test]
fn many_senders_to_one_receiver_all_get_through() {
    everywhere(|| {
        const SENDERS: u32 = 20;
        const EACH: u32 = 50;
        let dir = Scratch::new();
        let path = dir.join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let path = path.clone();
                thread::spawn(move || {
                    let socket = UnixDatagram::unbound().unwrap();
                    if sender % 2 == 0 {
                        socket.connect(&path).unwrap();
                    }
                    for n in 0..EACH {
                        let message = (sender * EACH + n).to_be_bytes();
                        match sender % 2 {
                            0 => socket.send(&message).unwrap(),
                            _ => socket.send_to(&message, &path).unwrap(),
                        };
                    }
                })
            })
            .collect();
        let mut got = Vec::new();
        for _ in 0..SENDERS * EACH {
            let mut message = [0; 4];
            assert_eq!(receiver.recv(&mut message).unwrap(), 4);
            got.push(u32::from_be_bytes(message));
        }
        for sender in senders {
            sender.join().unwrap();
        }
        // All datagrams of each sender have come, in order.
        for sender in 0..SENDERS {
            let of_sender = got.iter().copied().filter(|n| n / EACH == sender);
            assert!(of_sender.eq(sender * EACH..(sender + 1) * EACH));
        }
    });
}

#[test]
fn sending_to_a_full_receiver_times_out() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        fill(&sender, || sender.send_to(b"x", &path));
        sender.set_write_timeout(Some(ms(50))).unwrap();
        let start = Instant::now();
        assert_times_out(|| sender.send_to(b"y", &path));
        assert!(start.elapsed() >= ms(40));
        sender.connect(&path).unwrap();
        assert_times_out(|| sender.send(b"y"));
        assert_times_out(|| sender.send_to(b"y", &path));
        let (a, _b) = UnixDatagram::pair().unwrap();
        fill(&a, || a.send(&noise(10_000, 1)));
        a.set_write_timeout(Some(ms(50))).unwrap();
        assert_times_out(|| a.send(&noise(10_000, 1)));
    });
}

#[test]
fn the_end_of_a_full_receiver_ends_the_wait_for_it() {
    everywhere(|| {
        for connected in [false, true] {
            let dir = Scratch::new();
            let path = dir.join("socket");
            let receiver = UnixDatagram::bind(&path).unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            fill(&sender, || sender.send_to(b"x", &path));
            if connected {
                sender.connect(&path).unwrap();
            }
            let sending = thread::spawn(move || match connected {
                true => sender.send(b"y"),
                false => sender.send_to(b"y", path),
            });
            settle();
            assert!(!sending.is_finished());
            drop(receiver);
            assert_kind(sending.join().unwrap(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn shutdown_wakes_a_parked_receiver_of_datagrams() {
    everywhere(|| {
        for from in [false, true] {
            let (a, b) = UnixDatagram::pair().unwrap();
            let receiver = thread::spawn({
                let b = b.try_clone().unwrap();
                move || match from {
                    false => b.recv(&mut [0; 4]).unwrap(),
                    true => {
                        let (len, from) = b.recv_from(&mut [0; 4]).unwrap();
                        assert!(from.is_unnamed());
                        len
                    }
                }
            });
            settle();
            b.shutdown(Shutdown::Read).unwrap();
            assert_eq!(receiver.join().unwrap(), 0);
            assert_eq!(b.recv(&mut [0; 4]).unwrap(), 0);
            assert_kind(a.send(b"x"), ErrorKind::BrokenPipe);
            // A non-blocking receive does not report the end.
            b.set_nonblocking(true).unwrap();
            assert_kind(b.recv(&mut [0; 4]), ErrorKind::WouldBlock);
            a.shutdown(Shutdown::Both).unwrap();
            assert_kind(a.send(b"x"), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn what_came_before_the_shutdown_is_received_before_the_end() {
    everywhere(|| {
        let (a, b) = UnixDatagram::pair().unwrap();
        a.send(b"one").unwrap();
        a.send(b"three").unwrap();
        b.shutdown(Shutdown::Read).unwrap();
        let mut buf = [0; 8];
        assert_eq!(b.recv(&mut buf).unwrap(), 3);
        assert_eq!(b.recv_from(&mut buf).unwrap().0, 5);
        assert_eq!(b.recv(&mut buf).unwrap(), 0);
    });
}

// ------------------------------------------------------------- the rest of os

#[test]
fn what_does_not_wait_is_found_where_it_is_in_std() {
    use std::os::linux::fs::MetadataExt as _;
    use std::os::raw::c_int;
    use std::os::unix::prelude::*;
    use std::os::unix::{fs::symlink, io::BorrowedFd, process::parent_id};

    let dir = Scratch::new();
    symlink("target", dir.join("link")).unwrap();
    let metadata = ::std::fs::symlink_metadata(dir.join("link")).unwrap();
    assert!(metadata.file_type().is_symlink() && metadata.st_size() == 6);
    assert_eq!(::std::ffi::OsString::from_vec(b"link".to_vec()), "link");
    let (near, _far) = UnixStream::pair().unwrap();
    let raw: c_int = BorrowedFd::as_raw_fd(&near.as_fd());
    assert!(raw >= 0 && parent_id() > 0);
}

#[test]
fn quick_acknowledgement_of_a_tcp_stream_can_be_switched() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_quickack(false).unwrap();
        assert!(!stream.quickack().unwrap());
        stream.set_quickack(true).unwrap();
        assert!(stream.quickack().unwrap());
    });
}
