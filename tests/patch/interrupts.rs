//! Timeouts and cancellation around functions of the C library: each fails, once, and nothing is unwound.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use libc::{
    AF_INET, AF_UNIX, ECANCELED, ETIMEDOUT, LOCK_EX, MSG_PEEK, MSG_WAITALL, POLLIN, SOCK_STREAM,
    c_int, c_void, fd_set, mmsghdr, pollfd,
};

use crate::calls::{Calls, call, on_coroutine, patched, pause, returned, set_errno};
use crate::connections::{connect, connect_to_path, full_listener, silent_port, socket};
use crate::util::{ClosedPort, Scratch, counter, iovecs, ms, noise, tcp_pair, until};

/// Descriptors that are ready for nothing.
struct Idle {
    stream: UnixStream,
    end: UnixStream,
    /// Without room.
    full: UnixStream,
    _full_end: UnixStream,
    reader: PipeReader,
    _writer: PipeWriter,
    full_pipe: PipeWriter,
    _reader_of_full: PipeReader,
    listener: TcpListener,
    silent: ClosedPort,
    _connections: Vec<std::os::fd::OwnedFd>,
    _full_queue: (UnixListener, UnixStream),
    datagrams: UdpSocket,
    epoll: std::os::fd::OwnedFd,
    child: Reader,
    /// Locked by other open files.
    file: File,
    _locks: [File; 2],
    dir: Scratch,
}

impl Idle {
    fn new() -> Idle {
        let (stream, end) = UnixStream::pair().unwrap();
        let (full, full_end) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while (&full).write(&[0; 1000]).is_ok() {}
        full.set_nonblocking(false).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let (reader_of_full, mut full_pipe) = io::pipe().unwrap();
        full_pipe.write_all(&[0; 1 << 16]).unwrap();
        let (silent, connections) = silent_port();
        let dir = Scratch::new();
        let path = dir.join("file");
        let [file, flocked, locked] = [(); 3].map(|()| File::create(&path).unwrap());
        // SAFETY: the calls take any numbers, and a pointer to a lock.
        let epoll = unsafe {
            assert_eq!(libc::flock(flocked.as_raw_fd(), LOCK_EX), 0);
            let lock = whole_file();
            assert_eq!(
                libc::fcntl(locked.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock),
                0
            );
            std::os::fd::FromRawFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC))
        };
        Idle {
            stream,
            end,
            full,
            _full_end: full_end,
            reader,
            _writer: writer,
            full_pipe,
            _reader_of_full: reader_of_full,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            silent,
            _connections: connections,
            _full_queue: full_listener(&dir.join("full")),
            datagrams: UdpSocket::bind("127.0.0.1:0").unwrap(),
            epoll,
            child: Reader::new(),
            file,
            _locks: [flocked, locked],
            dir,
        }
    }
}

/// A child that does not end by itself.
struct Reader(Child);

impl Reader {
    fn new() -> Reader {
        let mut cat = Command::new("cat");
        Reader(cat.stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A lock for writing.
fn whole_file() -> libc::flock {
    // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    lock
}

/// A call that waits, for ever, and what it returns.
type Wait = fn(&Calls, &Idle, *mut c_void) -> Result<i64, c_int>;

/// Each of them. The pointer is to 4096 bytes.
const WAITS: &[(&str, Wait)] = &[
    ("recv", |c, idle, buf| {
        call!(c.recv(idle.stream.as_raw_fd(), buf, 9, 0))
    }),
    ("recv all", |c, idle, buf| {
        call!(c.recv(idle.stream.as_raw_fd(), buf, 9, MSG_WAITALL))
    }),
    ("recv all, peek", |c, idle, buf| {
        call!(c.recv(idle.stream.as_raw_fd(), buf, 9, MSG_WAITALL | MSG_PEEK))
    }),
    ("recvfrom", |c, idle, buf| {
        let fd = idle.datagrams.as_raw_fd();
        call!(c.recvfrom(fd, buf, 9, 0, null_mut(), null_mut()))
    }),
    ("recvmsg", |c, idle, buf| {
        let mut message = message(buf);
        call!(c.recvmsg(idle.stream.as_raw_fd(), &raw mut message.1.msg_hdr, 0))
    }),
    ("recvmmsg", |c, idle, buf| {
        let mut message = message(buf);
        let fd = idle.datagrams.as_raw_fd();
        call!(c.recvmmsg(fd, &raw mut message.1, 1, 0, null_mut()))
    }),
    ("send", |c, idle, buf| {
        call!(c.send(idle.full.as_raw_fd(), buf, 4096, 0))
    }),
    ("sendto", |c, idle, buf| {
        call!(c.sendto(idle.full.as_raw_fd(), buf, 4096, 0, null(), 0))
    }),
    ("sendmsg", |c, idle, buf| {
        let message = message(buf);
        call!(c.sendmsg(idle.full.as_raw_fd(), &raw const message.1.msg_hdr, 0))
    }),
    ("sendmmsg", |c, idle, buf| {
        let mut message = message(buf);
        call!(c.sendmmsg(idle.full.as_raw_fd(), &raw mut message.1, 1, 0))
    }),
    ("connect", |c, idle, _| {
        connect(c, &socket(AF_INET, SOCK_STREAM), idle.silent.addr)
    }),
    ("connect to a full queue", |c, idle, _| {
        let path = idle.dir.join("full");
        connect_to_path(c, &socket(AF_UNIX, SOCK_STREAM), &path)
    }),
    ("accept", |c, idle, _| {
        call!(c.accept(idle.listener.as_raw_fd(), null_mut(), null_mut()))
    }),
    ("accept4", |c, idle, _| {
        call!(c.accept4(idle.listener.as_raw_fd(), null_mut(), null_mut(), 0))
    }),
    ("read", |c, idle, buf| {
        call!(c.read(idle.reader.as_raw_fd(), buf, 9))
    }),
    ("readv", |c, idle, buf| {
        let message = message(buf);
        call!(c.readv(idle.reader.as_raw_fd(), &raw const message.0[0], 1))
    }),
    ("write", |c, idle, buf| {
        call!(c.write(idle.full_pipe.as_raw_fd(), buf, 4096))
    }),
    ("writev", |c, idle, buf| {
        let message = message(buf);
        call!(c.writev(idle.full_pipe.as_raw_fd(), &raw const message.0[0], 1))
    }),
    ("poll", |c, idle, _| call!(c.poll(&mut polled(idle), 1, -1))),
    ("poll of nothing", |c, _, _| {
        call!(c.poll(null_mut(), 0, -1))
    }),
    ("poll with a time", |c, idle, _| {
        call!(c.poll(&mut polled(idle), 1, 60_000))
    }),
    ("ppoll", |c, idle, _| {
        call!(c.ppoll(&mut polled(idle), 1, null(), null()))
    }),
    ("select", |c, idle, _| {
        let (mut set, none) = (set(idle), null_mut());
        call!(c.select(1024, &raw mut set, none, none, null_mut()))
    }),
    ("pselect", |c, idle, _| {
        let (mut set, none) = (set(idle), null_mut());
        call!(c.pselect(1024, &raw mut set, none, none, null(), null()))
    }),
    ("epoll_wait", |c, idle, buf| {
        call!(c.epoll_wait(idle.epoll.as_raw_fd(), buf.cast(), 9, -1))
    }),
    ("epoll_pwait", |c, idle, buf| {
        call!(c.epoll_pwait(idle.epoll.as_raw_fd(), buf.cast(), 9, 60_000, null()))
    }),
    ("epoll_pwait2", |c, idle, buf| {
        call!(c.epoll_pwait2(idle.epoll.as_raw_fd(), buf.cast(), 9, null(), null()))
    }),
    ("waitpid", |c, idle, _| {
        call!(c.waitpid(idle.child.0.id() as _, null_mut(), 0))
    }),
    ("waitid", |c, idle, _| {
        let (kind, child) = (libc::P_PID, idle.child.0.id());
        call!(c.waitid(kind, child, null_mut(), libc::WEXITED))
    }),
    ("flock", |c, idle, _| {
        call!(c.flock(idle.file.as_raw_fd(), LOCK_EX))
    }),
    ("fcntl", |c, idle, _| {
        let lock = whole_file();
        let argument = (&raw const lock).expose_provenance();
        call!(c.fcntl(idle.file.as_raw_fd(), libc::F_OFD_SETLKW, argument))
    }),
];

/// A message of 4096 bytes, and its buffer.
fn message(buf: *mut c_void) -> (Box<[libc::iovec; 1]>, mmsghdr) {
    let mut list = Box::new([libc::iovec {
        iov_base: buf,
        iov_len: 4096,
    }]);
    // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
    let mut message: mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = list.as_mut_ptr();
    message.msg_hdr.msg_iovlen = 1;
    (list, message)
}

fn polled(idle: &Idle) -> pollfd {
    pollfd {
        fd: idle.stream.as_raw_fd(),
        events: POLLIN,
        revents: 0,
    }
}

fn set(idle: &Idle) -> fd_set {
    // SAFETY: the set is filled by the first call, and the number is below the limit.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::FD_ZERO(&raw mut set);
        libc::FD_SET(idle.stream.as_raw_fd(), &raw mut set);
        set
    }
}

/// Waits for nothing, for a while.
fn is_told_again(c: &Calls) -> bool {
    call!(c.poll(null_mut(), 0, 5)) != Ok(0)
}

#[test]
fn a_timeout_makes_each_wait_fail() {
    on_coroutine(|c| {
        let idle = Idle::new();
        let mut buf = [0u64; 512];
        let buf: *mut c_void = buf.as_mut_ptr().cast();
        for (name, wait) in WAITS {
            let timed_out = greenroom::timeout(ms(10), || wait(c, &idle, buf));
            assert_eq!(timed_out, Ok(Err(ETIMEDOUT)), "{name}");
            assert!(!is_told_again(c), "{name}");
        }
        // Nothing of that is left.
        (&idle.end).write_all(b"x").unwrap();
        assert_eq!(call!(c.recv(idle.stream.as_raw_fd(), buf, 9, 0)), Ok(1));
    });
}

#[test]
fn a_cancellation_makes_each_wait_fail_once() {
    on_coroutine(|c| {
        let idle = Arc::new(Idle::new());
        let cancelled = |begin: bool, wait: Wait| {
            let idle = Arc::clone(&idle);
            let task = greenroom::spawn(move || {
                let c = patched();
                if begin {
                    // The cancellation comes now, before the wait.
                    greenroom::yield_now();
                }
                let mut buf = [0u64; 512];
                let first = wait(c, &idle, buf.as_mut_ptr().cast());
                (first, is_told_again(c))
            });
            match begin {
                true => greenroom::yield_now(),
                false => pause(),
            }
            task.cancel();
            task.join()
        };
        for (name, wait) in WAITS {
            let ended = cancelled(false, *wait).unwrap();
            assert_eq!(ended, (Err(ECANCELED), false), "{name}");
            let ended = cancelled(true, *wait);
            // `yield_now` is an interruption point, too.
            if let Ok(ended) = ended {
                assert_eq!(ended, (Err(ECANCELED), false), "{name}");
            }
        }
        let mut byte = 0u8;
        let to = (&raw mut byte).cast();
        (&idle.end).write_all(b"x").unwrap();
        assert_eq!(call!(c.recv(idle.stream.as_raw_fd(), to, 1, 0)), Ok(1));
    });
}

#[test]
fn what_was_moved_before_an_interrupt_is_told_first() {
    on_coroutine(|_| {
        let (stream, mut end) = tcp_pair();
        let task = greenroom::spawn(move || {
            let c = patched();
            let mut bytes = noise(16 << 20, 4);
            let (fd, len) = (stream.as_raw_fd(), bytes.len());
            let mut bufs = [&mut bytes[..]];
            let vecs = iovecs(&mut bufs);
            let sent = call!(c.send(fd, vecs[0].iov_base, len, 0));
            let then = call!(c.send(fd, vecs[0].iov_base, len, 0));
            assert!(
                sent.is_ok_and(|sent| sent > 0 && sent < len as i64),
                "{sent:?}"
            );
            assert_eq!(then, Err(ECANCELED));
            sent.unwrap()
        });
        pause();
        task.cancel();
        let sent = task.join().unwrap();
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert_eq!(got.len() as i64, sent);

        let (stream, mut end) = tcp_pair();
        for flags in [MSG_WAITALL | MSG_PEEK, MSG_WAITALL] {
            let stream = stream.try_clone().unwrap();
            let task = greenroom::spawn(move || {
                let (c, mut buf) = (patched(), [0u8; 100]);
                let (fd, to) = (stream.as_raw_fd(), buf.as_mut_ptr().cast());
                let part = call!(c.recv(fd, to, 100, flags));
                (part, call!(c.poll(null_mut(), 0, 10_000)), is_told_again(c))
            });
            if flags & MSG_PEEK != 0 {
                end.write_all(b"a part").unwrap();
            }
            pause();
            task.cancel();
            assert_eq!(task.join().unwrap(), (Ok(6), Err(ECANCELED), false));
        }
    });
}

#[test]
fn an_interrupted_sleep_ends_and_the_next_wait_is_told() {
    on_coroutine(|c| {
        type Sleep = fn(&Calls) -> Result<i64, c_int>;
        let sleeps: [Sleep; 4] = [
            |c| call!(c.sleep(1000)),
            |c| call!(c.usleep(1_000_000_000)),
            |c| {
                let time = libc::timespec {
                    tv_sec: 1000,
                    tv_nsec: 0,
                };
                call!(c.nanosleep(&raw const time, null_mut()))
            },
            |c| {
                let time = libc::timespec {
                    tv_sec: 1000,
                    tv_nsec: 0,
                };
                let clock = libc::CLOCK_MONOTONIC;
                call!(c.clock_nanosleep(clock, 0, &raw const time, null_mut()))
            },
        ];
        for sleep in sleeps {
            let task = greenroom::spawn(move || {
                let c = patched();
                let begin = Instant::now();
                assert_eq!(sleep(c), Ok(0));
                assert!(begin.elapsed() < Duration::from_secs(500));
                (call!(c.poll(null_mut(), 0, 10_000)), is_told_again(c))
            });
            pause();
            task.cancel();
            assert_eq!(task.join().unwrap(), (Err(ECANCELED), false));
            let begin = Instant::now();
            let told = greenroom::timeout(ms(10), || {
                assert_eq!(sleep(c), Ok(0));
                call!(c.poll(null_mut(), 0, 10_000))
            });
            assert_eq!(told, Ok(Err(ETIMEDOUT)));
            assert!(begin.elapsed() < Duration::from_secs(500));
        }
    });
}

#[test]
fn an_interrupted_lookup_fails_once() {
    fn look_up(c: &Calls) -> (i64, c_int) {
        let (name, mut found) = (c"localhost".as_ptr(), null_mut());
        set_errno(0);
        let done = returned!(c.getaddrinfo(name, null(), null(), &raw mut found));
        let errno = crate::calls::errno();
        if done == 0 {
            // SAFETY: the list was made by the call.
            unsafe { libc::freeaddrinfo(found) };
        }
        (done, errno)
    }
    on_coroutine(|c| {
        let failed = i64::from(libc::EAI_SYSTEM);
        // One that is done before its caller looks has not waited, and so was not interrupted.
        let first_failure = move |c| loop {
            let (done, errno) = look_up(c);
            if done == failed {
                return errno;
            }
        };
        let timed_out = greenroom::timeout(Duration::ZERO, || first_failure(c));
        assert_eq!(timed_out, Ok(ETIMEDOUT));
        let task = greenroom::spawn(move || {
            let c = patched();
            assert_eq!(call!(c.sleep(1000)), Ok(0));
            (first_failure(c), look_up(c).0)
        });
        pause();
        task.cancel();
        assert_eq!(task.join().unwrap(), (ECANCELED, 0));
        assert_eq!(look_up(c).0, 0);
    });
}

#[test]
fn the_end_of_the_runtime_ends_waits_by_an_error() {
    let (told, errors) = std::sync::mpsc::channel();
    on_coroutine(|_| {
        let idle = Arc::new(Idle::new());
        let begun = counter();
        for (name, wait) in WAITS {
            let (idle, told, begun) = (Arc::clone(&idle), told.clone(), Arc::clone(&begun));
            greenroom::spawn(move || {
                begun.fetch_add(1, SeqCst);
                let mut buf = [0u64; 512];
                told.send((*name, wait(patched(), &idle, buf.as_mut_ptr().cast())))
            });
        }
        until("all wait", || begun.load(SeqCst) == WAITS.len());
    });
    let errors: Vec<_> = errors.try_iter().collect();
    assert_eq!(errors.len(), WAITS.len());
    for (name, ended) in errors {
        assert_eq!(ended, Err(ECANCELED), "{name}");
    }
}

#[test]
fn a_shield_keeps_interrupts_away() {
    on_coroutine(|c| {
        let waited = greenroom::timeout(ms(5), || {
            greenroom::shield(|| call!(c.poll(null_mut(), 0, 30)))
        });
        assert_eq!(waited, Ok(Ok(0)));
        let (mut stream, mut end): (TcpStream, TcpStream) = tcp_pair();
        end.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
}
