//! When descriptors run out, operations that need one return an error, and all others work.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use greenroom::shims::fs::File;
use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::os::unix::net::UnixDatagram;
use greenroom::shims::process::{ChildExt, Command, Stdio};
use greenroom::shims::thread;
use greenroom::{ConnectWithin, Interest, ListenOptions, wait_fd};

use crate::util;

/// Takes all descriptors that the process can have.
struct Hogs(Vec<OwnedFd>);

impl Hogs {
    fn new() -> Hogs {
        let mut hogs = Vec::new();
        let error = loop {
            // SAFETY: nobody else owns a new descriptor.
            match unsafe { libc::dup(2) } {
                -1 => break io::Error::last_os_error(),
                // SAFETY: as above.
                fd => hogs.push(unsafe { OwnedFd::from_raw_fd(fd) }),
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        Hogs(hogs)
    }

    fn free_one(&mut self) {
        self.0.pop().expect("there is one left");
    }
}

#[track_caller]
fn assert_too_many<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("there is no descriptor left");
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
}

/// A socket that can connect without another descriptor.
fn unconnected() -> OwnedFd {
    // SAFETY: the call has no preconditions, and nobody else owns a new descriptor.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn connect(socket: OwnedFd, addr: SocketAddr) -> TcpStream {
    rustix::net::connect(&socket, &addr).unwrap();
    TcpStream::from(socket)
}

/// Checks both directions of a connection.
#[track_caller]
fn assert_joined(mut near: &TcpStream, far: TcpStream) {
    let echo = thread::spawn(move || {
        let (mut far, mut buf) = (far, [0; 4]);
        far.read_exact(&mut buf).unwrap();
        far.write_all(&buf).unwrap();
    });
    thread::sleep(Duration::from_millis(1));
    near.write_all(b"ping").unwrap();
    let mut buf = [0; 4];
    near.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"ping");
    echo.join().unwrap();
}

/// A socket connected to a receiver that has no room until it receives.
struct FullDatagrams {
    sender: UnixDatagram,
    receiver: Arc<std::os::unix::net::UnixDatagram>,
    size: usize,
    sent: usize,
}

impl FullDatagrams {
    /// With small datagrams, the receiver's queue is full. With large ones, the sender's buffer is full.
    fn new(size: usize) -> FullDatagrams {
        let any = std::os::unix::net::SocketAddr::from_pathname("").unwrap();
        let receiver = std::os::unix::net::UnixDatagram::bind_addr(&any).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender
            .connect_addr(&receiver.local_addr().unwrap())
            .unwrap();
        sender.set_nonblocking(true).unwrap();
        let sent = std::iter::from_fn(|| sender.send(&vec![7; size]).ok()).count();
        sender.set_nonblocking(false).unwrap();
        FullDatagrams {
            sender,
            receiver: Arc::new(receiver),
            size,
            sent,
        }
    }

    fn assert_waits(&self) {
        let (buf, to) = (vec![7; self.size], self.receiver.local_addr().unwrap());
        self.sender
            .set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        util::assert_times_out(|| self.sender.send_to_addr(&buf, &to));
        self.sender.set_write_timeout(None).unwrap();
        let receiving = thread::spawn({
            let (receiver, size, sent) = (Arc::clone(&self.receiver), self.size, self.sent);
            move || {
                thread::sleep(Duration::from_millis(20));
                for _ in 0..sent {
                    assert_eq!(receiver.recv(&mut vec![0; size]).unwrap(), size);
                }
            }
        });
        assert_eq!(self.sender.send_to_addr(&buf, &to).unwrap(), self.size);
        receiving.join().unwrap();
    }
}

fn run_out_and_recover() {
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    let near = TcpStream::connect(addr).unwrap();
    let (far, _) = listener.accept().unwrap();
    let queued = TcpStream::connect(addr).unwrap();
    let (late, later) = (unconnected(), unconnected());
    let mut pty = util::Pty::new();
    let mut terminal = File::from(pty.open());
    let mut status = File::open("/proc/self/status").unwrap();
    let executable = std::env::current_exe().unwrap();
    let [held, wanted] = [(); 2].map(|()| File::open(&executable).unwrap());
    held.lock().unwrap();
    let full = [1, 60_000].map(FullDatagrams::new);
    let mut children = [(); 2].map(|()| {
        let mut sleep = Command::new("sleep");
        sleep.arg("60").stdout(Stdio::null()).stderr(Stdio::null());
        sleep.spawn().unwrap()
    });

    let mut hogs = Hogs::new();
    for _ in 0..3 {
        assert_too_many(listener.accept());
        assert_too_many(listener.incoming().next().unwrap());
        assert_too_many(listener.try_clone());
        assert_too_many(near.try_clone());
        assert_too_many(TcpStream::connect(addr));
        assert_too_many(TcpStream::connect_timeout(&addr, Duration::from_secs(9)));
        assert_too_many(TcpStream::connect_within(addr, Duration::from_secs(9)));
        assert_too_many(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        assert_too_many(ListenOptions::new().listen((Ipv4Addr::LOCALHOST, 0)));
        assert_too_many(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    }
    assert_joined(&near, far);

    // A file that may have to wait needs no descriptor besides its own.
    terminal.write_all(b"shown").unwrap();
    pty.user.write_all(b"typed\n").unwrap();
    let mut typed = [0; 10];
    assert_eq!(terminal.read(&mut typed).unwrap(), 6);
    assert_eq!(status.read(&mut typed).unwrap(), 10);
    assert!(status.read_to_string(&mut String::new()).unwrap() > 0);

    // Operations that would use another descriptor do without it.
    hogs.0.extend(Hogs::new().0);
    full.iter().for_each(FullDatagrams::assert_waits);
    wait_fd(&status, Interest::READABLE, None).unwrap();
    let [one, other] = &mut children;
    assert!(
        one.wait_timeout(Duration::from_millis(20))
            .unwrap()
            .is_none()
    );
    one.kill().unwrap();
    assert!(one.wait_timeout(util::PATIENCE).unwrap().is_some());
    other.kill().unwrap();
    assert!(!other.wait().unwrap().success());

    // A wait for a file lock takes no other descriptor either.
    hogs.0.extend(Hogs::new().0);
    let locking = thread::spawn(move || wanted.lock_shared());
    thread::sleep(Duration::from_millis(20));
    assert!(!locking.is_finished());
    held.unlock().unwrap();
    locking.join().unwrap().unwrap();

    // The connection that was queued has not been lost.
    hogs.free_one();
    let (far, from) = listener.accept().unwrap();
    assert_eq!(from, queued.local_addr().unwrap());
    assert_joined(&queued, far);

    // Neither is a connection that arrives while a coroutine accepts.
    hogs.0.extend(Hogs::new().0);
    let accepting = thread::spawn({
        let listener = Arc::clone(&listener);
        move || {
            assert_too_many(listener.accept());
            assert_too_many(listener.accept());
        }
    });
    thread::sleep(Duration::from_millis(20));
    let late = connect(late, addr);
    accepting.join().unwrap();
    hogs.free_one();
    assert_joined(&late, listener.accept().unwrap().0);

    // The listener works as before.
    drop(hogs);
    let accepting = thread::spawn(move || listener.accept().unwrap().0);
    thread::sleep(Duration::from_millis(20));
    let later = connect(later, addr);
    assert_joined(&later, accepting.join().unwrap());
    assert!(later.as_raw_fd() >= 0);
}

#[test]
fn running_out_of_descriptors_is_an_error_that_passes() {
    const NAME: &str = "running_out_of_descriptors_is_an_error_that_passes";
    if util::role().is_some() {
        let few = libc::rlimit {
            rlim_cur: 128,
            rlim_max: 128,
        };
        // SAFETY: the limits are valid.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) };
        assert_eq!(done, 0);
        // The default runtime starts before the descriptors run out.
        greenroom::spawn(|| ()).join().unwrap();
        util::on_an_os_thread(run_out_and_recover);
        util::on_workers(1, run_out_and_recover);
        util::on_workers(4, run_out_and_recover);
        eprintln!("end of child");
        return;
    }
    let output = util::again!(NAME, "child").output().unwrap();
    let output = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.contains("end of child"), "{output}");
}
