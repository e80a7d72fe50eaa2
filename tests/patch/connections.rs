//! connect(2) and accept(2).

use std::io::{Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use libc::{
    AF_INET, AF_UNIX, EAFNOSUPPORT, EAGAIN, EALREADY, EBADF, ECONNREFUSED, EFAULT, EINPROGRESS,
    EINVAL, EISCONN, ENOENT, ENOTSOCK, EOPNOTSUPP, MSG_FASTOPEN, SO_RCVTIMEO, SO_SNDTIMEO,
    SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, c_int, sockaddr_in, sockaddr_un,
    socklen_t,
};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::calls::{Calls, alike, call, later, nowhere, on_coroutine, patched, pause};
use crate::util::{
    ClosedPort, Scratch, assert_same_bytes, ms, noise, set_socket_timeout, tcp_pair, until,
};

pub(crate) fn socket(family: c_int, kind: c_int) -> OwnedFd {
    // SAFETY: the call takes any numbers, and returns a new descriptor.
    unsafe {
        let fd = libc::socket(family, kind | SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn address(addr: SocketAddr) -> sockaddr_in {
    // SAFETY: all-zero is a valid `sockaddr_in`.
    let mut name: sockaddr_in = unsafe { mem::zeroed() };
    name.sin_family = AF_INET as _;
    name.sin_port = addr.port().to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    name
}

pub(crate) fn connect(c: &Calls, socket: &impl AsRawFd, addr: SocketAddr) -> Result<i64, c_int> {
    let name = address(addr);
    let len = size_of_val(&name) as socklen_t;
    call!(c.connect(socket.as_raw_fd(), (&raw const name).cast(), len))
}

pub(crate) fn connect_to_path(c: &Calls, socket: &impl AsRawFd, path: &Path) -> Result<i64, c_int> {
    // SAFETY: all-zero is a valid `sockaddr_un`.
    let mut name: sockaddr_un = unsafe { mem::zeroed() };
    name.sun_family = AF_UNIX as _;
    let path = path.as_os_str().as_encoded_bytes();
    for (to, &from) in name.sun_path.iter_mut().zip(path) {
        *to = from as _;
    }
    let len = size_of_val(&name) as socklen_t;
    call!(c.connect(socket.as_raw_fd(), (&raw const name).cast(), len))
}

fn is_nonblocking(fd: &impl AsRawFd) -> bool {
    // SAFETY: the call takes any numbers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

#[test]
fn a_connect_establishes_a_connection_once() {
    alike(|c| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let socket = socket(AF_INET, SOCK_STREAM);
        assert_eq!(connect(c, &socket, addr), Ok(0));
        assert!(!is_nonblocking(&socket));
        assert_eq!(connect(c, &socket, addr), Err(EISCONN));
        let mut end = listener.accept().unwrap().0;
        end.write_all(b"x").unwrap();
        TcpStream::from(socket).read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_socket_that_was_refused_can_be_used_again() {
    alike(|c| {
        let port = ClosedPort::new();
        let socket = socket(AF_INET, SOCK_STREAM);
        for _ in 0..2 {
            assert_eq!(connect(c, &socket, port.addr), Err(ECONNREFUSED));
        }
        port.listen_without_accepting();
        assert_eq!(connect(c, &socket, port.addr), Ok(0));
        assert_eq!(connect(c, &socket, port.addr), Err(EISCONN));
    });
}

/// A port that does not answer.
pub(crate) fn silent_port() -> (ClosedPort, Vec<OwnedFd>) {
    let port = ClosedPort::new();
    port.listen_without_accepting();
    let mut fills = Vec::new();
    for _ in 0..8 {
        let filling = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        let name = address(port.addr);
        // SAFETY: the address is valid.
        unsafe { libc::connect(filling.as_raw_fd(), (&raw const name).cast(), 16) };
        fills.push(filling);
    }
    pause();
    (port, fills)
}

#[test]
fn the_timeout_of_a_socket_ends_a_connect() {
    alike(|c| {
        let (port, _fills) = silent_port();
        let socket = socket(AF_INET, SOCK_STREAM);
        set_socket_timeout(&socket, SO_SNDTIMEO, ms(30));
        let begin = Instant::now();
        assert_eq!(connect(c, &socket, port.addr), Err(EINPROGRESS));
        assert!(begin.elapsed() >= ms(30));
        // The next call waits for the same connection.
        assert_eq!(connect(c, &socket, port.addr), Err(EALREADY));
        assert!(begin.elapsed() >= ms(60));
        assert!(!is_nonblocking(&socket));
    });
}

#[test]
fn a_connect_in_non_blocking_mode_does_not_wait() {
    alike(|c| {
        let (port, _fills) = silent_port();
        let socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        assert_eq!(connect(c, &socket, port.addr), Err(EINPROGRESS));
        assert_eq!(connect(c, &socket, port.addr), Err(EALREADY));
        assert!(is_nonblocking(&socket));
        // A call that waits comes when the connection is on its way, and finds how it ends.
        let socket = crate::connections::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        let port = ClosedPort::new();
        assert_eq!(connect(c, &socket, port.addr), Err(EINPROGRESS));
        TcpStream::from(socket.try_clone().unwrap())
            .set_nonblocking(false)
            .unwrap();
        assert_eq!(connect(c, &socket, port.addr), Err(ECONNREFUSED));
    });
}

#[test]
fn a_send_that_connects_waits_for_the_connection() {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen");
    // Others send data with the first packet here.
    if !setting.is_ok_and(|setting| setting.trim() == "1") {
        return eprintln!("not tested: TCP Fast Open is not set as it is by default");
    }
    alike(|c| {
        let send = |socket: &OwnedFd, addr, bytes: &[u8]| {
            let name = address(addr);
            let (from, to) = (bytes.as_ptr().cast(), (&raw const name).cast());
            call!(c.sendto(socket.as_raw_fd(), from, bytes.len(), MSG_FASTOPEN, to, 16))
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let reader = later(move || {
            let (mut stream, mut all) = (listener.accept().unwrap().0, Vec::new());
            stream.read_to_end(&mut all).map(|_| all).unwrap()
        });
        let bytes = noise(8 << 20, 3);
        let client = socket(AF_INET, SOCK_STREAM);
        assert_eq!(send(&client, addr, &bytes), Ok(bytes.len() as i64));
        drop(client);
        assert_same_bytes(&reader.join().unwrap(), &bytes);

        let port = ClosedPort::new();
        let refused = socket(AF_INET, SOCK_STREAM);
        assert_eq!(send(&refused, port.addr, b"x"), Err(ECONNREFUSED));
        let (port, _fills) = silent_port();
        let hasty = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
        assert_eq!(send(&hasty, port.addr, b"x"), Err(EINPROGRESS));
        let patient = socket(AF_INET, SOCK_STREAM);
        set_socket_timeout(&patient, SO_SNDTIMEO, ms(30));
        assert_eq!(send(&patient, port.addr, b"x"), Err(EINPROGRESS));
    });
}

#[test]
fn sockets_without_connections_are_connected_at_once() {
    alike(|c| {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..2 {
            assert_eq!(connect(c, &socket, peer.local_addr().unwrap()), Ok(0));
        }
        socket.send(b"x").unwrap();
        peer.recv(&mut [0]).unwrap();
        // This dissolves it.
        let nobody: libc::sockaddr = no_address();
        let fd = socket.as_raw_fd();
        assert_eq!(call!(c.connect(fd, &raw const nobody, 16)), Ok(0));
        socket.send(b"x").unwrap_err();
    });
}

#[test]
fn connecting_a_datagram_socket_does_not_show_in_its_mode() {
    on_coroutine(|c| {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = peer.local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let other = socket.try_clone().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let observer = std::thread::spawn(move || {
            let mut times = 0;
            while !over.load(SeqCst) {
                times += usize::from(is_nonblocking(&other));
            }
            times
        });
        for _ in 0..20_000 {
            assert_eq!(connect(c, &socket, addr), Ok(0));
        }
        is_over.store(true, SeqCst);
        assert_eq!(observer.join().unwrap(), 0);
    });
}

/// An address of no family.
fn no_address() -> libc::sockaddr {
    // SAFETY: all-zero is a valid `sockaddr`.
    unsafe { mem::zeroed() }
}

#[test]
fn bad_arguments_are_refused() {
    alike(|c| {
        let addr = "127.0.0.1:1".parse().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(connect(c, &file, addr), Err(ENOTSOCK));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(connect(c, &listener, addr), Err(EISCONN));
        let fd = socket(AF_INET, SOCK_STREAM);
        let fd = fd.as_raw_fd();
        let name = address(addr);
        let name = (&raw const name).cast();
        assert_eq!(call!(c.connect(-1, name, 16)), Err(EBADF));
        assert_eq!(call!(c.connect(99_999, name, 16)), Err(EBADF));
        assert_eq!(call!(c.connect(fd, name, 3)), Err(EINVAL));
        assert_eq!(call!(c.connect(fd, nowhere(), 16)), Err(EFAULT));
        let mut other = address(addr);
        other.sin_family = 99;
        let refused = call!(c.connect(fd, (&raw const other).cast(), 16));
        assert_eq!(refused, Err(EAFNOSUPPORT));

        let accept = |fd| {
            [
                call!(c.accept(fd, null_mut(), null_mut())),
                call!(c.accept4(fd, null_mut(), null_mut(), SOCK_CLOEXEC)),
            ]
        };
        let (datagram, closed) = (socket(AF_INET, SOCK_DGRAM), ClosedPort::new());
        assert_eq!(accept(-1), [Err(EBADF); 2]);
        assert_eq!(accept(99_999), [Err(EBADF); 2]);
        assert_eq!(accept(file.as_raw_fd()), [Err(ENOTSOCK); 2]);
        assert_eq!(accept(datagram.as_raw_fd()), [Err(EOPNOTSUPP); 2]);
        assert_eq!(accept(fd), [Err(EINVAL); 2]);
        let (stream, _end) = tcp_pair();
        assert_eq!(accept(stream.as_raw_fd()), [Err(EINVAL); 2]);
        drop(closed);
        let fd = listener.as_raw_fd();
        let refused = call!(c.accept4(fd, null_mut(), null_mut(), 1));
        assert_eq!(refused, Err(EINVAL));
    });
}

#[test]
fn an_accept_waits_and_tells_the_address_of_the_peer() {
    alike(|c| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let clients = later(move || {
            [(); 3].map(|()| {
                let client = TcpStream::connect(addr).unwrap();
                pause();
                client
            })
        });
        let mut from = address(addr);
        let mut len = size_of_val(&from) as socklen_t;
        let (name, name_len) = ((&raw mut from).cast(), &raw mut len);
        let fd = listener.as_raw_fd();
        let one = call!(c.accept(fd, name, name_len)).unwrap();
        let port_of_one = u16::from_be(from.sin_port);
        let two = call!(c.accept4(fd, name, name_len, SOCK_NONBLOCK)).unwrap();
        let port_of_two = u16::from_be(from.sin_port);
        let three = call!(c.accept4(fd, null_mut(), null_mut(), 0)).unwrap();
        assert_eq!(len as usize, size_of_val(&from));
        // SAFETY: the calls have made the descriptors.
        let ends = [one, two, three].map(|fd| unsafe { OwnedFd::from_raw_fd(fd as c_int) });
        assert!(!is_nonblocking(&ends[0]) && is_nonblocking(&ends[1]) && !is_nonblocking(&ends[2]));
        assert!(!is_nonblocking(&listener));
        let clients = clients.join().unwrap();
        let ports = clients
            .each_ref()
            .map(|client| client.local_addr().unwrap().port());
        assert_eq!([port_of_one, port_of_two], ports[..2]);
    });
}

#[test]
fn an_accept_ends_by_the_mode_or_the_timeout_or_the_shutdown_of_the_listener() {
    alike(|c| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        let accept = || call!(c.accept(fd, null_mut(), null_mut()));
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(), Err(EAGAIN));
        listener.set_nonblocking(false).unwrap();
        set_socket_timeout(&listener, SO_RCVTIMEO, ms(30));
        let begin = Instant::now();
        assert_eq!(accept(), Err(EAGAIN));
        assert!(begin.elapsed() >= ms(30));
        set_socket_timeout(&listener, SO_RCVTIMEO, ms(0));
        let closer = later(move || {
            // SAFETY: the call takes any numbers.
            assert_eq!(unsafe { libc::shutdown(fd, libc::SHUT_RD) }, 0);
        });
        assert_eq!(accept(), Err(EINVAL));
        closer.join().unwrap();

        // A Unix socket, after an OS thread has accepted.
        let dir = Scratch::new();
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let fd = listener.as_raw_fd();
        let other = std::thread::spawn(move || listener.accept().map(|_| listener).unwrap());
        let _client = UnixStream::connect(&path).unwrap();
        let _listener = other.join().unwrap();
        let closer = later(move || {
            // SAFETY: the call takes any numbers.
            assert_eq!(unsafe { libc::shutdown(fd, libc::SHUT_RDWR) }, 0);
        });
        assert_eq!(call!(c.accept(fd, null_mut(), null_mut())), Err(EINVAL));
        closer.join().unwrap();
    });
}

#[test]
fn coroutines_and_os_threads_accept_from_one_listener() {
    for timeout in [ms(0), ms(100_000)] {
        coroutines_and_os_threads_accept(timeout);
    }
}

/// From a listener with that timeout.
fn coroutines_and_os_threads_accept(timeout: Duration) {
    on_coroutine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_timeout(&listener, SO_RCVTIMEO, timeout);
        let addr = listener.local_addr().unwrap();
        let serve = |listener: TcpListener| {
            let mut served = 0;
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                if byte[0] == b'q' {
                    return served;
                }
                served += 1;
            }
        };
        let coroutines: Vec<_> = (0..3)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                greenroom::spawn(move || serve(listener))
            })
            .collect();
        let of_thread = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || serve(of_thread));
        let ticks = greenroom::spawn(|| (0..10).for_each(|_| pause()));
        for _ in 0..200 {
            TcpStream::connect(addr).unwrap().write_all(b"x").unwrap();
        }
        // None of the acceptors keeps the worker.
        ticks.join().unwrap();
        for _ in 0..4 {
            TcpStream::connect(addr).unwrap().write_all(b"q").unwrap();
            pause();
        }
        let served: usize = coroutines.into_iter().map(|c| c.join().unwrap()).sum();
        assert_eq!(served + thread.join().unwrap(), 200);
    });
}

#[test]
fn an_accept_parks_if_another_process_takes_the_connection() {
    on_coroutine(|_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let [accepted, turns] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let accept = {
            let accepted = Arc::clone(&accepted);
            move |stream: TcpStream| {
                // The last one is told to each acceptor.
                let is_last = { &stream }.read(&mut [0]).unwrap() == 1;
                accepted.fetch_add(1, SeqCst);
                is_last
            }
        };
        // Another process knows nothing of the patch. Here, that is a thread whose calls bypass it.
        let (of_other, of_coroutine) = (listener.try_clone().unwrap(), accept.clone());
        let other = std::thread::spawn(move || {
            loop {
                let mut entries = [PollFd::new(&of_other, PollFlags::IN)];
                rustix::event::poll(&mut entries, None).unwrap();
                match rustix::net::accept(&of_other).map(|stream| accept(stream.into())) {
                    Ok(true) => return,
                    // A coroutine makes an attempt.
                    Ok(false) | Err(Errno::AGAIN) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let acceptor =
            greenroom::spawn(move || while !of_coroutine(listener.accept().unwrap().0) {});
        let turns_of_worker = Arc::clone(&turns);
        let client = std::thread::spawn(move || {
            let start = Instant::now();
            for n in (1..=3000).take_while(|n| *n < 100 || start.elapsed() < ms(10_000)) {
                drop(TcpStream::connect(addr).unwrap());
                until("either has accepted", || accepted.load(SeqCst) == n);
                // An accept that waits for the next connection waits for ever.
                let before = turns_of_worker.load(SeqCst);
                until("the worker goes on", || {
                    turns_of_worker.load(SeqCst) > before
                });
            }
            for _ in 0..2 {
                TcpStream::connect(addr).unwrap().write_all(b"q").unwrap();
            }
        });
        while !client.is_finished() || !other.is_finished() || !acceptor.is_finished() {
            turns.fetch_add(1, SeqCst);
            greenroom::yield_now();
        }
        client.join().unwrap();
        other.join().unwrap();
        acceptor.join().unwrap();
    });
}

#[test]
fn unix_sockets_are_connected_and_accepted() {
    alike(|c| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let client = socket(AF_UNIX, SOCK_STREAM);
        assert_eq!(connect_to_path(c, &client, &path), Err(ENOENT));
        let listener = UnixListener::bind(&path).unwrap();
        let other = later({
            let path = path.clone();
            move || UnixStream::connect(path).unwrap()
        });
        let fd = listener.as_raw_fd();
        let end = call!(c.accept(fd, null_mut(), null_mut())).unwrap();
        // SAFETY: the call has made the descriptor.
        let mut end = unsafe { UnixStream::from_raw_fd(end as c_int) };
        end.write_all(b"x").unwrap();
        other.join().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(connect_to_path(c, &client, &path), Ok(0));
        assert_eq!(connect_to_path(c, &client, &path), Err(EISCONN));
        // Non-blocking mode, and a queue that is full.
        // SAFETY: the call takes any numbers.
        assert_eq!(unsafe { libc::listen(fd, 0) }, 0);
        let hasty = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK);
        assert_eq!(connect_to_path(c, &hasty, &path), Err(EAGAIN));
        set_socket_timeout(&client, SO_SNDTIMEO, ms(30));
        let patient = socket(AF_UNIX, SOCK_STREAM);
        set_socket_timeout(&patient, SO_SNDTIMEO, ms(30));
        assert_eq!(connect_to_path(c, &patient, &path), Err(EAGAIN));
        set_socket_timeout(&patient, SO_SNDTIMEO, ms(0));
        let acceptor = later(move || {
            listener.accept().unwrap();
            listener
        });
        assert_eq!(connect_to_path(c, &patient, &path), Ok(0));
        let listener = acceptor.join().unwrap();
        drop(listener);
        // A child that another test has just forked has the listener until it executes its program.
        until("it is refused", || {
            let late = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK);
            connect_to_path(c, &late, &path) == Err(ECONNREFUSED)
        });
    });
}

/// A Unix listener whose queue is full, and the client in the queue.
pub(crate) fn full_listener(path: &Path) -> (UnixListener, UnixStream) {
    let listener = UnixListener::bind(path).unwrap();
    // SAFETY: the call takes any numbers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    (listener, UnixStream::connect(path).unwrap())
}

#[test]
fn a_mode_that_is_set_while_a_connect_waits_stays() {
    on_coroutine(|_| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let (listener, _client) = full_listener(&path);
        let socket = UnixStream::from(socket(AF_UNIX, SOCK_STREAM));
        let connecting = socket.try_clone().unwrap();
        let connector = greenroom::spawn(move || connect_to_path(patched(), &connecting, &path));
        pause();
        socket.set_nonblocking(true).unwrap();
        pause();
        listener.accept().unwrap();
        assert_eq!(connector.join().unwrap(), Ok(0));
        assert!(is_nonblocking(&socket));
    });
}

#[test]
fn a_close_ends_a_connect_to_a_full_listener() {
    on_coroutine(|_| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let _listener = full_listener(&path);
        // A number that no other test gets.
        let number = 4700;
        let connecting = socket(AF_UNIX, SOCK_STREAM);
        // SAFETY: the call takes any numbers.
        let fd = unsafe { libc::fcntl(connecting.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
        assert!(fd >= number, "{}", std::io::Error::last_os_error());
        let connector = greenroom::spawn(move || connect_to_path(patched(), &fd, &path));
        pause();
        let c = patched();
        assert_eq!(call!(c.close(fd)), Ok(0));
        assert_eq!(connector.join().unwrap(), Err(EBADF));
    });
}

#[test]
fn a_close_ends_connects_and_accepts() {
    on_coroutine(|_| {
        let (port, _fills) = silent_port();
        let connecting = socket(AF_INET, SOCK_STREAM);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fds = [connecting.into_raw_fd(), listener.into_raw_fd()];
        let connector = greenroom::spawn(move || {
            let name = address(port.addr);
            // SAFETY: the address is valid.
            let done = unsafe { libc::connect(fds[0], (&raw const name).cast(), 16) };
            (done, crate::calls::errno())
        });
        let acceptor = greenroom::spawn(move || {
            // SAFETY: null stands for no address.
            let done = unsafe { libc::accept(fds[1], null_mut(), null_mut()) };
            (done, crate::calls::errno())
        });
        pause();
        for fd in fds {
            // SAFETY: the number is owned here.
            assert_eq!(unsafe { libc::close(fd) }, 0);
        }
        assert_eq!(connector.join().unwrap(), (-1, EBADF));
        assert_eq!(acceptor.join().unwrap(), (-1, EBADF));
    });
}
