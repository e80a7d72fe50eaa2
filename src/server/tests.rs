//! What a server does when accepting fails, with a listener that fails as it is told.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{End, Event, Listener, Server, listener};
use crate::coroutine::lacks;
use crate::park::yield_now;
use crate::runtime::{RuntimeBuilder, run};
use crate::shims::net::{TcpListener, TcpStream};
use crate::shims::thread;

const PATIENCE: Duration = Duration::from_secs(10);

/// An address that no other test listens on. Elsewhere, another test could get a port that was closed, and open it
/// again.
fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    Ipv4Addr::new(127, high | 0x80, low, 2 + number as u8)
}

#[derive(Default)]
struct AfterFailure(Mutex<Option<Box<dyn FnMut() + Send>>>);

impl fmt::Debug for AfterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFailure").finish_non_exhaustive()
    }
}

/// A listener whose accepts fail with these codes. When none is left, it accepts.
#[derive(Debug)]
struct Failing {
    codes: Mutex<VecDeque<i32>>,
    /// Called between a failure and its report.
    after_failure: AfterFailure,
    accepts: Arc<AtomicUsize>,
    listener: TcpListener,
}

impl Failing {
    fn with(codes: impl IntoIterator<Item = i32>) -> Failing {
        Failing {
            codes: Mutex::new(codes.into_iter().collect()),
            after_failure: AfterFailure::default(),
            accepts: Arc::default(),
            listener: TcpListener::bind((own_loopback(), 0)).unwrap(),
        }
    }
}

impl listener::sealed::Sealed for Failing {}

impl Listener for Failing {
    type Stream = TcpStream;
    type Addr = SocketAddr;

    fn accept_from(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let code = self.codes.lock().unwrap().pop_front();
        self.accepts.fetch_add(1, Ordering::SeqCst);
        match code {
            Some(code) => {
                let mut called = self.after_failure.0.lock().unwrap().take();
                if let Some(call) = &mut called {
                    call();
                }
                *self.after_failure.0.lock().unwrap() = called;
                Err(io::Error::from_raw_os_error(code))
            }
            None => self.listener.accept_from(),
        }
    }

    fn wait_for_connection(&self) -> io::Result<()> {
        self.listener.wait_for_connection()
    }

    fn is_listening(&self) -> bool {
        self.listener.is_listening()
    }

    fn duplicate(&self) -> io::Result<Failing> {
        unreachable!("no test hands it over")
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Waits until nothing listens there. A child that another test has forked may have the socket for a moment.
#[track_caller]
fn until_refused(addr: &SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(addr).is_ok() {
        assert!(start.elapsed() < 5 * PATIENCE, "it still listens");
        thread::sleep(Duration::from_millis(1));
    }
}

type Told = Arc<Mutex<Vec<(i32, Option<Duration>)>>>;

/// A server that answers a byte with the same byte, and the failures that its log is told.
fn serve(listener: Failing) -> (Server<Failing>, Told) {
    let told = Told::default();
    let log = {
        let told = Arc::clone(&told);
        move |event: &Event<'_>| {
            if let Event::AcceptFailed { error, pause, .. } = event {
                let code = error.raw_os_error().unwrap();
                told.lock().unwrap().push((code, *pause));
            }
        }
    };
    (serve_with_log(listener, log), told)
}

/// A server that answers a byte with the same byte.
fn serve_with_log(
    listener: Failing,
    log: impl Fn(&Event<'_>) + Send + Sync + 'static,
) -> Server<Failing> {
    let server = Server::builder().log(log);
    let server = server.serve(listener, |mut connection| {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        connection.write_all(&byte)
    });
    server.unwrap()
}

/// Runs `f` on the only worker of a runtime.
fn run_on_one_worker(f: impl FnOnce()) {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(f);
}

fn assert_serves(server: &Server<Failing>) {
    let mut client = TcpStream::connect(server.local_addr()).unwrap();
    client.write_all(b"x").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"x");
}

#[test]
fn a_lack_is_waited_for_longer_each_time_until_it_is_over() {
    run(|| {
        let lacks = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
        let (server, told) = serve(Failing::with(lacks));
        assert_serves(&server);
        let pauses = [10, 20, 40, 80].map(|ms| Some(Duration::from_millis(ms)));
        let expected: Vec<_> = lacks.into_iter().zip(pauses).collect();
        assert_eq!(*told.lock().unwrap(), expected);
        assert_eq!(server.stats().accept_failures, 4);
        // The next one begins anew.
        assert_serves(&server);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_pause_is_never_longer_than_a_second_and_begins_anew() {
    let mut pause = super::accept::Pause::new();
    let mut next = || pause.next().as_millis();
    let first: Vec<_> = (0..9).map(|_| next()).collect();
    assert_eq!(first, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    pause.reset();
    assert_eq!(pause.next().as_millis(), 10);
}

#[test]
fn the_failure_of_one_connection_does_not_delay_the_next() {
    run(|| {
        let codes = [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EHOSTUNREACH,
            libc::EINTR,
        ];
        let (server, told) = serve(Failing::with(codes));
        assert_serves(&server);
        let expected = codes.map(|code| (code, Some(Duration::ZERO)));
        assert_eq!(*told.lock().unwrap(), expected);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_connection_that_ends_ends_the_pause() {
    run(|| {
        const CLIENTS: usize = 6;
        let lacks = [libc::EMFILE; 50];
        let listener = Failing::with([]);
        let accepts = Arc::clone(&listener.accepts);
        let (server, _) = serve(listener);
        let connect = || TcpStream::connect(server.local_addr()).unwrap();
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
        // The acceptor has accepted them, and is in its next accept. After that, there is a lack.
        while accepts.load(Ordering::SeqCst) <= CLIENTS {
            yield_now();
        }
        let shared = Arc::clone(&server.shared);
        let listener = shared.listener.lock().unwrap().clone().unwrap();
        listener.codes.lock().unwrap().extend(lacks);
        assert_serves(&server);
        while server.stats().accept_failures < 8 {
            thread::sleep(Duration::from_millis(10));
        }
        // It pauses for a second each time now, unless a connection ends. On a busy machine, one of several
        // pauses that are over early is enough.
        let pauses = clients.into_iter().map(|mut client| {
            let before = accepts.load(Ordering::SeqCst);
            while accepts.load(Ordering::SeqCst) == before {
                thread::sleep(Duration::from_millis(1));
            }
            let (before, start) = (before + 1, std::time::Instant::now());
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            while accepts.load(Ordering::SeqCst) == before {
                yield_now();
            }
            start.elapsed()
        });
        let pauses: Vec<_> = pauses.collect();
        let is_short = |pause: &Duration| *pause < Duration::from_millis(700);
        assert!(pauses.iter().any(is_short), "{pauses:?}");
        drop(server);
    });
}

#[test]
fn a_connection_that_ends_between_a_failure_and_its_pause_ends_the_pause() {
    // By the eighth, a pause takes a second.
    const SHORT_ONES: usize = 7;
    const LONG_ONES: usize = 4;
    run_on_one_worker(|| {
        let listener = Failing::with([]);
        let accepts = Arc::clone(&listener.accepts);
        let (server, _) = serve(listener);
        let connect = || TcpStream::connect(server.local_addr()).unwrap();
        let mut clients: Vec<_> = (0..LONG_ONES).map(|_| connect()).collect();
        while accepts.load(Ordering::SeqCst) <= LONG_ONES {
            yield_now();
        }
        let shared = Arc::clone(&server.shared);
        let listener = shared.listener.lock().unwrap().clone().unwrap();
        let pauses = Arc::<Mutex<Vec<Duration>>>::default();
        *listener.after_failure.0.lock().unwrap() = Some(Box::new({
            let pauses = Arc::clone(&pauses);
            let (mut failures, mut last) = (0, None::<Instant>);
            move || {
                pauses
                    .lock()
                    .unwrap()
                    .extend(last.take().map(|last| last.elapsed()));
                failures += 1;
                if failures > SHORT_ONES
                    && let Some(mut client) = clients.pop()
                {
                    client.write_all(b"x").unwrap();
                    client.read_to_end(&mut Vec::new()).unwrap();
                    last = Some(Instant::now());
                }
            }
        }));
        let lacks = [libc::EMFILE; SHORT_ONES + LONG_ONES + 1];
        listener.codes.lock().unwrap().extend(lacks);
        // The acceptor is in an accept that succeeds.
        assert_serves(&server);
        while pauses.lock().unwrap().len() < LONG_ONES {
            thread::sleep(Duration::from_millis(1));
        }
        // On a busy machine, one of several is enough.
        let pauses = pauses.lock().unwrap();
        let is_short = |pause: &Duration| *pause < Duration::from_millis(700);
        assert!(pauses.iter().any(is_short), "{pauses:?}");
    });
}

#[test]
fn without_a_stack_connections_stay_in_the_backlog_until_there_is_one() {
    run_on_one_worker(|| {
        let listener = Failing::with([]);
        let accepts = Arc::clone(&listener.accepts);
        let (server, told) = serve(listener);
        while accepts.load(Ordering::SeqCst) == 0 {
            yield_now();
        }
        lacks::RESERVATIONS.set(usize::MAX);
        // The acceptor has reserved the stack for this one.
        assert_serves(&server);
        let mut next = TcpStream::connect(server.local_addr()).unwrap();
        next.write_all(b"x").unwrap();
        while told.lock().unwrap().len() < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.stats().accepted, 1);
        let pauses = [10, 20, 40].map(|ms| (libc::ENOMEM, Some(Duration::from_millis(ms))));
        assert_eq!(told.lock().unwrap()[..3], pauses);
        lacks::RESERVATIONS.set(0);
        next.read_exact(&mut [0]).unwrap();
        assert_eq!(server.stats().accepted, 2);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_connection_whose_coroutine_finds_no_stack_is_closed_and_told() {
    run_on_one_worker(|| {
        let ends = Arc::<Mutex<Vec<String>>>::default();
        let log = {
            let ends = Arc::clone(&ends);
            move |event: &Event<'_>| {
                if let Event::Ended { peer, end, .. } = event {
                    assert!(peer.is_some());
                    assert!(matches!(end, End::Cancelled | End::Done));
                    ends.lock().unwrap().push(end.to_string());
                }
            }
        };
        let server = serve_with_log(Failing::with([]), log);
        assert_serves(&server);
        lacks::STACKS.set(1);
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_serves(&server);
        assert_eq!(server.stop(PATIENCE), 0);
        assert_eq!(*ends.lock().unwrap(), ["done", "cancelled", "done"]);
        let stats = server.stats();
        assert_eq!((stats.cancelled, stats.active), (1, 0));
    });
}

#[test]
fn a_server_that_pauses_can_be_stopped() {
    run(|| {
        let listener = Failing::with([libc::ENOMEM; 1000]);
        let accepts = Arc::clone(&listener.accepts);
        let (server, told) = serve(listener);
        while told.lock().unwrap().is_empty() {
            yield_now();
        }
        assert_eq!(server.stop(PATIENCE), 0);
        let before = accepts.load(Ordering::SeqCst);
        until_refused(server.local_addr());
        thread::sleep(Duration::from_millis(30));
        assert_eq!(accepts.load(Ordering::SeqCst), before);
        assert!(server.wait().is_ok());
    });
}

#[test]
fn a_listener_that_does_not_listen_ends_the_server() {
    for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
        run(|| {
            let (server, told) = serve(Failing::with([code]));
            let error = server.wait().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(code));
            assert_eq!(*told.lock().unwrap(), [(code, None)]);
            until_refused(server.local_addr());
        });
    }
}

#[test]
fn a_server_whose_acceptor_finds_no_stack_ends_with_an_error() {
    run_on_one_worker(|| {
        lacks::STACKS.set(1);
        let (server, told) = serve(Failing::with([]));
        let error = server.wait().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert_eq!(*told.lock().unwrap(), [(libc::ENOMEM, None)]);
        until_refused(server.local_addr());
        assert_eq!(server.stop(PATIENCE), 0);
    });
}
