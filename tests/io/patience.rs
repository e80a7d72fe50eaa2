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

/// Attempts until the machine does not stand still between the beginning of a wait and the event that ends it. An
/// attempt returns whether that was so.
fn in_time(attempt: impl Fn() -> bool) {
    assert!((0..10).any(|_| attempt()), "the machine is too slow");
}

/// The worker that waited first computes, so it polls for nobody.
#[test]
#[serial]
fn data_is_returned_though_the_worker_that_polls_for_it_computes() {
    for (what, make) in KINDS {
        in_time(|| is_returned_though_a_worker_computes(what, make));
    }
}

fn is_returned_though_a_worker_computes(what: &str, make: fn() -> (Take, Give)) -> bool {
    util::on_workers(2, || {
        let (take, mut give) = make();
        let [waits, computes, over] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let begun = Instant::now();
        let first = thread::spawn({
            let (waits, computes, over) = (waits.clone(), computes.clone(), over.clone());
            let take = Arc::clone(&take);
            move || {
                waits.store(true, SeqCst);
                let taken = take();
                computes.store(true, SeqCst);
                compute_until(|| over.load(SeqCst));
                taken
            }
        });
        // This worker is busy, so the other one steals the coroutine.
        compute_until(|| waits.load(SeqCst));
        std::thread::sleep(ms(20));
        give();
        let given = Instant::now();
        compute_until(|| computes.load(SeqCst));
        let begun_again = Instant::now();
        let giver = std::thread::spawn(move || {
            std::thread::sleep(ms(20));
            give();
            (give, Instant::now())
        });
        let taken = take();
        over.store(true, SeqCst);
        let taken_first = first.join().unwrap();
        let (_open, given_again) = giver.join().unwrap();
        if given - begun >= TIMEOUT || given_again - begun_again >= TIMEOUT {
            return false;
        }
        assert!(taken_first.is_ok(), "{what}: {taken_first:?}");
        assert!(taken.is_ok(), "{what}: {taken:?}");
        // Each wait takes as long as the others, so one of them is enough.
        if what == "a byte by TCP" {
            util::assert_times_out(|| take());
        }
        true
    })
}

/// Other coroutines keep all workers busy, from before the event to after the deadline.
#[test]
#[serial]
fn data_that_came_in_time_is_returned_though_all_workers_compute_past_the_deadline() {
    for workers in [1, 4] {
        in_time(|| is_returned_though_all_compute(workers));
    }
}

fn is_returned_though_all_compute(workers: usize) -> bool {
    util::on_workers(workers, || {
        let (takes, gives): (Vec<_>, Vec<_>) = KINDS.map(|(_, make)| make()).into_iter().unzip();
        let begun = Instant::now();
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
            let open = gives.into_iter().map(give).collect::<Vec<_>>();
            (open, Instant::now())
        });
        let taken = waiters.into_iter().map(|waiter| waiter.join().unwrap());
        let taken: Vec<_> = taken.collect();
        for hog in hogs {
            hog.join().unwrap();
        }
        let (_open, given) = giver.join().unwrap();
        if given - begun >= TIMEOUT {
            return false;
        }
        for ((what, _), taken) in KINDS.into_iter().zip(taken) {
            assert!(taken.is_ok(), "{what} on {workers}: {taken:?}");
        }
        true
    })
}
