//! What a server does when accepting fails, with a listener that fails as it is told.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Event, Listener, Server, listener};
use crate::park::yield_now;
use crate::runtime::run;
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

/// A listener whose accepts fail with these codes. When none is left, it accepts.
#[derive(Debug)]
struct Failing {
    codes: Mutex<VecDeque<i32>>,
    accepts: Arc<AtomicUsize>,
    listener: TcpListener,
}

impl Failing {
    fn with(codes: impl IntoIterator<Item = i32>) -> Failing {
        Failing {
            codes: Mutex::new(codes.into_iter().collect()),
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
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => self.listener.accept_from(),
        }
    }

    fn wait_for_connection(&self) -> io::Result<()> {
        self.listener.wait_for_connection()
    }

    fn duplicate(&self) -> io::Result<Failing> {
        unreachable!("no test hands it over")
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
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
    let server = Server::builder().log(log);
    let server = server.serve(listener, |mut connection| {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        connection.write_all(&byte)
    });
    (server.unwrap(), told)
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
        assert!(TcpStream::connect(server.local_addr()).is_err());
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
            assert!(TcpStream::connect(server.local_addr()).is_err());
        });
    }
}
