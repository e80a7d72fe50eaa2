//! The kernel decides whether a timeout has passed: what has arrived by the deadline is returned, even if
//! no poll has reported it.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenroom::shims::thread;
use serial_test::serial;

use crate::util::{self, ms};

/// How long the waits may last.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Waits, at most for `TIMEOUT`.
type Take = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Ends one such wait. For an OS thread.
type Give = Box<dyn FnMut() + Send>;

/// What is waited for, and how to make it.
type Kind = (&'static str, fn() -> (Take, Give));

const KINDS: [Kind; 8] = [
    ("a byte by TCP", || {
        let (near, mut far) = tcp();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        (
            Arc::new(move || (&near).read_exact(&mut [0])),
            Box::new(move || far.write_all(b"x").unwrap()),
        )
    }),
    ("a byte in a file over TCP", || {
        let (near, mut far) = tcp();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        (
            Arc::new(move || near.makefile().read_exact(&mut [0])),
            Box::new(move || far.write_all(b"x").unwrap()),
        )
    }),
    ("a byte to peek at", || {
        let (near, mut far) = tcp();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        (
            Arc::new(move || {
                near.peek(&mut [0])?;
                (&near).read_exact(&mut [0])
            }),
            Box::new(move || far.write_all(b"x").unwrap()),
        )
    }),
    ("a byte by a Unix stream", || {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        let near = UnixStream::from(near);
        (
            Arc::new(move || (&near).read_exact(&mut [0])),
            Box::new(move || far.write_all(b"x").unwrap()),
        )
    }),
    ("a datagram by UDP", || {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        (
            Arc::new(move || near.recv_from(&mut [0]).map(drop)),
            Box::new(move || assert_eq!(far.send(b"x").unwrap(), 1)),
        )
    }),
    ("a Unix datagram", || {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        let near = UnixDatagram::from(near);
        (
            Arc::new(move || near.recv(&mut [0]).map(drop)),
            Box::new(move || assert_eq!(far.send(b"x").unwrap(), 1)),
        )
    }),
    ("a TCP connection", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        patient(&listener);
        let mut connected = Vec::new();
        (
            Arc::new(move || listener.accept().map(drop)),
            Box::new(move || connected.push(std::net::TcpStream::connect(addr).unwrap())),
        )
    }),
    ("a Unix connection", || {
        let any = std::os::unix::net::SocketAddr::from_pathname("").unwrap();
        let listener = UnixListener::bind_addr(&any).unwrap();
        let addr = listener.local_addr().unwrap();
        patient(&listener);
        let mut connected = Vec::new();
        (
            Arc::new(move || listener.accept().map(drop)),
            Box::new(move || {
                let stream = std::os::unix::net::UnixStream::connect_addr(&addr);
                connected.push(stream.unwrap());
            }),
        )
    }),
];

fn tcp() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0.into(), far)
}

/// As `set_read_timeout`, which listeners do not have.
fn patient(socket: &impl AsRawFd) {
    let timeout = libc::timeval {
        tv_sec: TIMEOUT.as_secs() as libc::time_t,
        tv_usec: 0,
    };
    // SAFETY: the option takes a `timeval`, and the length is that of `timeval`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of_val(&timeout) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn compute_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::hint::spin_loop();
    }
}

/// The worker that waited first computes, so it polls for nobody.
#[test]
#[serial]
fn data_is_returned_though_the_worker_that_polls_for_it_computes() {
    for (what, make) in KINDS {
        util::on_workers(2, || {
            let (take, mut give) = make();
            let [waits, computes, over] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
            let first = thread::spawn({
                let (waits, computes, over) = (waits.clone(), computes.clone(), over.clone());
                let take = Arc::clone(&take);
                move || {
                    waits.store(true, SeqCst);
                    take().unwrap();
                    computes.store(true, SeqCst);
                    compute_until(|| over.load(SeqCst));
                }
            });
            // This worker is busy, so the other one steals the coroutine.
            compute_until(|| waits.load(SeqCst));
            std::thread::sleep(ms(20));
            give();
            compute_until(|| computes.load(SeqCst));
            let giver = std::thread::spawn(move || {
                std::thread::sleep(ms(20));
                give();
                give
            });
            let taken = take();
            over.store(true, SeqCst);
            first.join().unwrap();
            let _open = giver.join().unwrap();
            assert!(taken.is_ok(), "{what}: {taken:?}");
            // Each wait takes as long as the others, so one of them is enough.
            if what == "a byte by TCP" {
                util::assert_times_out(|| take());
            }
        });
    }
}

/// Other coroutines keep all workers busy, from before the event to after the deadline.
#[test]
#[serial]
fn data_that_came_in_time_is_returned_though_all_workers_compute_past_the_deadline() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (takes, gives): (Vec<_>, Vec<_>) =
                KINDS.map(|(_, make)| make()).into_iter().unzip();
            let waiters: Vec<_> = takes
                .into_iter()
                .map(|take| thread::spawn(move || take()))
                .collect();
            util::settle();
            // Twice as many as there are workers, because a worker that has run one steals another.
            let start = Instant::now();
            let hogs: Vec<_> = (0..2 * workers)
                .map(|_| thread::spawn(move || compute_until(|| start.elapsed() > 2 * TIMEOUT)))
                .collect();
            let giver = std::thread::spawn(move || {
                std::thread::sleep(ms(20));
                let give = |mut give: Give| {
                    give();
                    give
                };
                gives.into_iter().map(give).collect::<Vec<_>>()
            });
            for ((what, _), waiter) in KINDS.into_iter().zip(waiters) {
                let taken = waiter.join().unwrap();
                assert!(taken.is_ok(), "{what} on {workers}: {taken:?}");
            }
            for hog in hogs {
                hog.join().unwrap();
            }
            drop(giver.join().unwrap());
        });
    }
}
