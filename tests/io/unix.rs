//! Unix sockets, beyond std's promises: descriptors as messages, full queues.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use greenroom::shims as green;

use green::descriptor::{IntoStd, PassDescriptors};
use green::io::{BufRead, ErrorKind, Read, Write};
use green::net::{TcpListener, TcpStream};
use green::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use green::thread;
use green::time::Duration;

use crate::util::{self, everywhere, noise, on_workers};

// -------------------------------------------------- descriptors as messages

/// The writing end of a new stream. Its other end holds `text` to read.
fn stream_that_says(text: &str) -> OwnedFd {
    let (mut near, far) = UnixStream::pair().unwrap();
    near.write_all(text.as_bytes()).unwrap();
    far.into()
}

fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    UnixStream::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(OwnedFd::as_fd).collect()
}

fn is_closed_on_exec(fd: &OwnedFd) -> bool {
    // SAFETY: the call only reads flags.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
    flags & libc::FD_CLOEXEC != 0
}

#[test]
fn descriptors_arrive_with_the_bytes_they_were_sent_with() {
    everywhere(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let (from, to) = UnixDatagram::pair().unwrap();
        // The receiver has to wait.
        let receiver = thread::spawn(move || {
            let mut buf = [0; 16];
            let (len, fds) = far.recv_fds(2, &mut buf).unwrap();
            assert_eq!(&buf[..len], b"by stream");
            let (len, more) = to.recv_fds(2, &mut buf).unwrap();
            assert_eq!(&buf[..len], b"by datagram");
            let none = to.recv_fds(2, &mut buf).unwrap();
            assert_eq!((none.0, none.1.len()), (0, 0));
            fds.into_iter().chain(more).collect::<Vec<_>>()
        });
        thread::sleep(Duration::from_millis(30));
        let fds = ["one", "two", "three"].map(stream_that_says);
        let sent = near.send_fds(&borrowed(&fds[..2]), b"by stream");
        assert_eq!(sent.unwrap(), 9);
        let sent = from.send_fds(&borrowed(&fds[2..]), b"by datagram");
        assert_eq!(sent.unwrap(), 11);
        drop(fds);
        assert_eq!(from.send_fds(&[], b"").unwrap(), 0);
        let got = receiver.join().unwrap();
        assert!(got.iter().all(is_closed_on_exec));
        let got: Vec<_> = got.into_iter().map(read_all).collect();
        assert_eq!(got, ["one", "two", "three"]);
    });
}

#[test]
fn descriptors_split_the_reads_of_a_stream_and_no_data_is_left() {
    everywhere(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let fd = stream_that_says("");
        // The reader has parked before, so readiness is remembered.
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            for _ in 0..4 {
                let mut buf = [0; 16];
                let len = far.read(&mut buf).unwrap();
                got.push(buf[..len].to_vec());
                if got.len() == 1 {
                    // The other messages are all there by then.
                    thread::sleep(Duration::from_millis(60));
                }
            }
            got
        });
        thread::sleep(Duration::from_millis(30));
        for text in ["0", "one", "two", "three"] {
            near.send_fds(&[fd.as_fd()], text.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        let got = reader.join().unwrap();
        assert_eq!(got, [&b"0"[..], b"one", b"two", b"three"]);
    });
}

#[test]
fn more_descriptors_than_asked_for_are_an_error() {
    everywhere(|| {
        let fds = [(); 3].map(|()| stream_that_says("x"));
        let (near, far) = UnixStream::pair().unwrap();
        // With one too few, with one too many, and with none asked for.
        for max in [2, 1, 0] {
            near.send_fds(&borrowed(&fds[..max + 1]), b"x").unwrap();
            let error = far.recv_fds(max, &mut [0; 4]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        near.send_fds(&borrowed(&fds), b"rest").unwrap();
        assert_eq!(far.recv_fds(3, &mut [0; 4]).unwrap().1.len(), 3);
    });
}

#[test]
fn as_many_descriptors_are_sent_as_the_system_takes() {
    everywhere(|| {
        let fd = stream_that_says("x");
        let (near, far) = UnixStream::pair().unwrap();
        // Credentials need room, too.
        let on: libc::c_int = 1;
        // SAFETY: the option takes an int, and the length is that of an int.
        let done = unsafe {
            libc::setsockopt(
                far.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSCRED,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(done, 0);
        near.send_fds(&vec![fd.as_fd(); 253], b"x").unwrap();
        let (len, got) = far.recv_fds(usize::MAX, &mut [0; 4]).unwrap();
        assert_eq!((len, got.len()), (1, 253));
        let error = near.send_fds(&vec![fd.as_fd(); 254], b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = near.send_fds(&[fd.as_fd()], b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn passing_descriptors_waits_as_reads_and_writes_do() {
    everywhere(|| {
        let fd = stream_that_says("x");
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(len) = (&near).write(&[0; 4096]) {
            filled += len;
        }
        let full = near.send_fds(&[fd.as_fd()], b"x").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        let empty = near.recv_fds(1, &mut [0; 1]).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::WouldBlock);
        near.set_nonblocking(false).unwrap();
        near.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let empty = util::uninterrupted(|| near.recv_fds(1, &mut [0; 1])).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::WouldBlock);
        let sender = thread::spawn(move || near.send_fds(&[fd.as_fd()], b"late").unwrap());
        thread::sleep(Duration::from_millis(30));
        assert!(!sender.is_finished());
        far.read_exact(&mut vec![0; filled]).unwrap();
        let (len, fds) = far.recv_fds(1, &mut [0; 16]).unwrap();
        assert_eq!((len, fds.len()), (4, 1));
        assert_eq!(sender.join().unwrap(), 4);
        let (len, fds) = far.recv_fds(1, &mut [0; 16]).unwrap();
        assert_eq!((len, fds.len()), (0, 0));
    });
}

#[test]
fn a_connection_is_handed_to_another_process_in_mid_conversation() {
    const NAME: &str = "a_connection_is_handed_to_another_process_in_mid_conversation";
    if util::role().is_some() {
        return on_workers(1, go_on_with_the_conversation);
    }
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut file = TcpStream::connect(addr).unwrap().makefile();
            let mut answers = Vec::new();
            for question in ["who?\n", "and now?\n"] {
                file.write_all(question.as_bytes()).unwrap();
                file.flush().unwrap();
                let mut answer = String::new();
                file.read_line(&mut answer).unwrap();
                answers.push(answer);
            }
            assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
            answers
        });
        let mut connection = listener.accept().unwrap().0;
        let mut question = [0; 5];
        connection.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"who?\n");
        writeln!(connection, "{}", std::process::id()).unwrap();

        let (near, far) = UnixStream::pair().unwrap();
        let mut child = util::again!(NAME, "child")
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        near.send_fds(&[connection.as_fd()], b"go on").unwrap();
        drop(connection);
        let answers = client.join().unwrap();
        let pids = [std::process::id(), child.id()];
        assert_eq!(answers, pids.map(|pid| format!("{pid}\n")));
        assert!(child.wait().unwrap().success());
    });
}

/// The child's part. Its standard input is a Unix socket.
fn go_on_with_the_conversation() {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut request = [0; 16];
    let (len, mut fds) = UnixStream::from(stdin).recv_fds(1, &mut request).unwrap();
    assert_eq!(&request[..len], b"go on");
    let mut file = TcpStream::from(fds.remove(0)).makefile();
    let mut question = String::new();
    file.read_line(&mut question).unwrap();
    assert_eq!(question, "and now?\n");
    writeln!(file, "{}", std::process::id()).unwrap();
    file.flush().unwrap();
}

// -------------------------------------------------------------- conversions

#[test]
fn every_socket_can_be_converted_to_std() {
    on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _: std::net::TcpListener = listener.into_std();
        let _: std::net::TcpStream = stream.into_std();
        let udp = green::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let _: std::net::UdpSocket = udp.into_std();
        let (near, far) = UnixStream::pair().unwrap();
        let _: std::os::unix::net::UnixStream = near.into_std();
        let _: std::os::unix::net::UnixDatagram = UnixDatagram::unbound().unwrap().into_std();
        let unnamed = green::os::unix::net::SocketAddr::from_pathname("").unwrap();
        let _: std::os::unix::net::UnixListener =
            UnixListener::bind_addr(&unnamed).unwrap().into_std();
        // A socket that is shared with a file is converted as a duplicate.
        let file = far.makefile();
        let real = far.into_std();
        assert_ne!(real.as_raw_fd(), file.get_ref().as_raw_fd());
    });
}

#[test]
fn a_file_over_a_unix_socket_keeps_it_open() {
    everywhere(|| {
        let (near, far) = UnixStream::pair().unwrap();
        let mut file = near.makefile();
        drop(near);
        let echo = thread::spawn(move || {
            let mut far = far.makefile();
            let mut line = String::new();
            far.read_line(&mut line).unwrap();
            far.write_all(line.as_bytes()).unwrap();
        });
        file.write_all(b"still here\n").unwrap();
        file.flush().unwrap();
        let mut line = String::new();
        file.read_line(&mut line).unwrap();
        assert_eq!(line, "still here\n");
        echo.join().unwrap();
    });
}

// -------------------------------------------------------- where std is silent

/// std refuses to bind such a path, but other programs may bind it.
#[test]
fn a_sender_with_a_path_of_108_bytes_is_received_from() {
    let dir = std::env::temp_dir().join(format!("greenroom-108-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let mut path = dir.join("x").into_os_string();
    path.push("x".repeat(108 - path.len()));
    // SAFETY: all-zero is a valid `sockaddr_un`.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in name.sun_path.iter_mut().zip(path.as_encoded_bytes()) {
        *to = *from as libc::c_char;
    }
    let to = dir.join("receiver");
    on_workers(1, || {
        let receiver = UnixDatagram::bind(&to).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let len = size_of_val(&name) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address is valid and has the given length.
        let done = unsafe { libc::bind(sender.as_raw_fd(), (&raw const name).cast(), len) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        sender.send_to(b"hello", &to).unwrap();
        let (len, from) = receiver.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(len, 5);
        assert!(from.is_unnamed());
        let name = sender.local_addr().unwrap();
        assert_eq!(receiver.send_to_addr(b"back", &name).unwrap(), 4);
        assert_eq!(sender.recv(&mut [0; 8]).unwrap(), 4);
    });
    std::fs::remove_dir_all(dir).unwrap();
}

// ---------------------------------------------------------- where std waits

#[test]
fn more_connects_than_a_queue_takes_all_succeed_while_others_run() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let dir = std::env::temp_dir();
            let path = dir.join(format!("greenroom-connects-{}", std::process::id()));
            let listener = UnixListener::bind(&path).unwrap();
            // SAFETY: the descriptor is open.
            assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 3) }, 0);
            let clients: Vec<_> = (0..300u32)
                .map(|n| {
                    let path = path.clone();
                    thread::spawn(move || {
                        let mut stream = UnixStream::connect(path).unwrap();
                        stream.write_all(&n.to_be_bytes()).unwrap();
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(50));
            let mut got: Vec<_> = (0..300)
                .map(|_| {
                    let mut number = [0; 4];
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut number).unwrap();
                    // The connects leave threads of the pool to other jobs.
                    greenroom::unblock(|| ());
                    u32::from_be_bytes(number)
                })
                .collect();
            got.sort_unstable();
            assert!(got.into_iter().eq(0..300));
            for client in clients {
                client.join().unwrap();
            }
            std::fs::remove_file(path).unwrap();
        });
    }
}

/// The first connect succeeds, and then its worker computes. The next connect does not wait for the first
/// coroutine to run.
#[test]
fn a_queued_connect_gets_its_turn_though_the_one_before_does_not_run() {
    let listener = UnixListener::bind_addr(&any_name()).unwrap();
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let addr = listener.local_addr().unwrap();
    let _fills = std::os::unix::net::UnixStream::connect_addr(&addr).unwrap();
    let computes = AtomicBool::new(false);
    let connected = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            on_workers(1, || {
                let addr = addr.clone();
                let first = greenroom::spawn(move || UnixStream::connect_addr(&addr).map(drop));
                thread::sleep(Duration::from_millis(50));
                computes.store(true, SeqCst);
                while !connected.load(SeqCst) {
                    std::thread::yield_now();
                }
                first.join().unwrap().unwrap();
            });
        });
        util::until("it computes", || computes.load(SeqCst));
        on_workers(1, || {
            let addr = addr.clone();
            let second = greenroom::spawn(move || UnixStream::connect_addr(&addr).map(drop));
            thread::sleep(Duration::from_millis(50));
            for _ in 0..3 {
                listener.accept().unwrap();
            }
            second.join().unwrap().unwrap();
            connected.store(true, SeqCst);
        });
    });
}

/// The earlier listener may accept nothing any more.
#[test]
fn a_connect_does_not_queue_behind_those_to_an_earlier_listener_at_its_path() {
    let dir = util::Scratch::new();
    let path = dir.join("socket");
    let listen = || {
        let new = dir.join("new");
        let listener = UnixListener::bind(&new).unwrap();
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let fills = std::os::unix::net::UnixStream::connect(&new).unwrap();
        // A connect finds a listener at any time.
        std::fs::rename(new, &path).unwrap();
        (listener, fills)
    };
    let connect = || {
        let path = path.clone();
        greenroom::spawn(move || UnixStream::connect(path).map(drop))
    };
    let accept_all = |listener: UnixListener| {
        greenroom::spawn(move || listener.incoming().for_each(|stream| drop(stream.unwrap())))
    };
    on_workers(1, || {
        let (earlier, _fills) = listen();
        let first = connect();
        thread::sleep(Duration::from_millis(50));
        let (later, _fills) = listen();
        let second = connect();
        thread::sleep(Duration::from_millis(5));
        accept_all(later);
        second.join().unwrap().unwrap();
        accept_all(earlier);
        first.join().unwrap().unwrap();
    });
}

/// More than the pool has threads for connects.
const MANY: usize = 257;

fn any_name() -> SocketAddr {
    SocketAddr::from_pathname("").unwrap()
}

/// Runs `test` again, in a process that has all descriptors to itself.
fn alone(test: &str) {
    let status = util::again!(test, "child").status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn connects_to_many_full_queues_leave_the_pool_to_others() {
    if util::role().is_none() {
        return alone("connects_to_many_full_queues_leave_the_pool_to_others");
    }
    on_workers(1, || {
        let full: Vec<_> = (0..MANY)
            .map(|_| {
                let listener = UnixListener::bind_addr(&any_name()).unwrap();
                // SAFETY: the descriptor is open.
                assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
                let addr = listener.local_addr().unwrap();
                (listener, UnixStream::connect_addr(&addr).unwrap())
            })
            .collect();
        let clients: Vec<_> = full
            .iter()
            .map(|(listener, _)| {
                let addr = listener.local_addr().unwrap();
                thread::spawn(move || UnixStream::connect_addr(&addr).map(drop))
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        greenroom::unblock(|| ());
        assert!(clients.iter().all(|client| !client.is_finished()));
        for (listener, _) in &full {
            listener.accept().unwrap();
        }
        for client in clients {
            client.join().unwrap().unwrap();
        }
    });
}

#[test]
fn sends_to_many_full_receivers_leave_the_pool_to_others() {
    if util::role().is_none() {
        return alone("sends_to_many_full_receivers_leave_the_pool_to_others");
    }
    on_workers(1, || {
        let receiver = UnixDatagram::bind_addr(&any_name()).unwrap();
        let addr = receiver.local_addr().unwrap();
        let message = noise(1_000, 1);
        let (senders, peers): (Vec<_>, Vec<_>) = (0..MANY)
            .map(|_| {
                let (sender, peer) = UnixDatagram::pair().unwrap();
                // The smallest buffer. It holds less than the queue of the receiver.
                rustix::net::sockopt::set_socket_send_buffer_size(&sender, 0).unwrap();
                sender.set_nonblocking(true).unwrap();
                while sender.send(&message).is_ok() {}
                sender.set_nonblocking(false).unwrap();
                let (addr, message) = (addr.clone(), message.clone());
                let sends = thread::spawn(move || sender.send_to_addr(&message, &addr).unwrap());
                (sends, peer)
            })
            .unzip();
        thread::sleep(Duration::from_millis(50));
        greenroom::unblock(|| ());
        assert!(senders.iter().all(|sends| !sends.is_finished()));
        drop(peers);
        for _ in 0..MANY {
            assert_eq!(receiver.recv(&mut [0; 1_000]).unwrap(), 1_000);
        }
        for sends in senders {
            assert_eq!(sends.join().unwrap(), 1_000);
        }
    });
}

#[test]
fn the_end_of_a_runtime_unwinds_waits_on_unix_sockets() {
    let path = std::env::temp_dir().join(format!("greenroom-ends-{}", std::process::id()));
    let receiver = UnixDatagram::bind(&path).unwrap();
    let stream_path = path.with_extension("stream");
    let listener = UnixListener::bind(&stream_path).unwrap();
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let (near, _far) = UnixStream::pair().unwrap();
    on_workers(2, || {
        let to = path.clone();
        thread::spawn(move || {
            let socket = UnixDatagram::unbound().unwrap();
            loop {
                socket.send_to(b"x", &to).unwrap();
            }
        });
        let to = stream_path.clone();
        thread::spawn(move || {
            let mut streams = Vec::new();
            loop {
                streams.push(UnixStream::connect(&to).unwrap());
            }
        });
        thread::spawn(move || (&near).write_all(&noise(4 << 20, 1)));
        thread::sleep(Duration::from_millis(50));
    });
    drop((receiver, listener));
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(stream_path).unwrap();
}
