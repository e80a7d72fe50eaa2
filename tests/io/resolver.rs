//! Host names: who resolves them, where, and in which order; and that lookups hold up nobody else.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use greenroom::shims::thread;
use greenroom::{ConnectWithin, Resolve, SystemResolver, set_resolver, unblock};
use serial_test::serial;

use crate::util::{self, until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Installs a resolver for a test. Restores the system's when dropped.
struct Installed;

impl Installed {
    fn new<R: Resolve + 'static>(resolver: R) -> Installed {
        set_resolver(Arc::new(resolver));
        Installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        set_resolver(Arc::new(SystemResolver));
    }
}

fn addrs(of: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    Ok(of.to_socket_addrs()?.collect())
}

/// An answer that shows the question.
fn answer(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::LOCALHOST, port).into()]
}

#[test]
#[serial]
fn the_resolver_gets_the_name_as_written_and_its_answer_keeps_its_order() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let _installed = Installed::new({
        let asked = Arc::clone(&asked);
        move |host: &str, port: u16| {
            asked.lock().unwrap().push((host.to_owned(), port));
            Ok(vec![
                (Ipv6Addr::LOCALHOST, 3).into(),
                (Ipv4Addr::LOCALHOST, 1).into(),
                (Ipv4Addr::LOCALHOST, 2).into(),
            ])
        }
    });
    util::everywhere(|| {
        let expected: Vec<SocketAddr> = ["[::1]:3", "127.0.0.1:1", "127.0.0.1:2"]
            .map(|addr| addr.parse().unwrap())
            .into();
        assert_eq!(addrs("a.b:80").unwrap(), expected);
        assert_eq!(addrs("A.b.:80".to_owned()).unwrap(), expected);
        assert_eq!(addrs(("c", 81)).unwrap(), expected);
        assert_eq!(addrs(("c".to_owned(), 82)).unwrap(), expected);
        assert_eq!(addrs("d:e:83").unwrap(), expected);
        // A zone is left to the resolver, which knows the interfaces.
        assert_eq!(addrs(("fe80::1%lo", 84)).unwrap(), expected);
        let asked: Vec<_> = asked.lock().unwrap().drain(..).collect();
        let expected = [
            ("a.b", 80),
            ("A.b.", 80),
            ("c", 81),
            ("c", 82),
            ("d:e", 83),
            ("fe80::1%lo", 84),
        ];
        assert_eq!(asked, expected.map(|(host, port)| (host.to_owned(), port)));
    });
}

#[test]
#[serial]
fn addresses_and_impossible_names_never_reach_the_resolver() {
    let _installed = Installed::new(|host: &str, port: u16| -> io::Result<Vec<SocketAddr>> {
        panic!("asked for {host} and {port}");
    });
    util::everywhere(|| {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        let zoned: SocketAddr = "[fe80::1%7]:80".parse().unwrap();
        assert_eq!(addrs("127.0.0.1:80").unwrap(), [v4]);
        assert_eq!(addrs("127.0.0.1:80".to_owned()).unwrap(), [v4]);
        assert_eq!(addrs("[::1]:80").unwrap(), [v6]);
        assert_eq!(addrs("::1:80").unwrap(), [v6]);
        assert_eq!(addrs("[fe80::1%7]:80").unwrap(), [zoned]);
        assert_eq!(addrs(("127.0.0.1", 80)).unwrap(), [v4]);
        assert_eq!(addrs(("::1", 80)).unwrap(), [v6]);
        assert_eq!(addrs(("::1".to_owned(), 80)).unwrap(), [v6]);
        assert_eq!(
            addrs((IpAddr::from(Ipv4Addr::LOCALHOST), 80)).unwrap(),
            [v4]
        );
        assert_eq!(addrs((Ipv4Addr::LOCALHOST, 80)).unwrap(), [v4]);
        assert_eq!(addrs((Ipv6Addr::LOCALHOST, 80)).unwrap(), [v6]);
        assert_eq!(addrs(v4).unwrap(), [v4]);
        assert_eq!(addrs(&[v4, v6][..]).unwrap(), [v4, v6]);
        for nonsense in [
            "localhost",
            "",
            "localhost:",
            "localhost:65536",
            "localhost:x",
        ] {
            assert_eq!(addrs(nonsense).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        TcpStream::connect(addr.to_string()).unwrap();
        TcpStream::connect(("127.0.0.1", addr.port())).unwrap();
        TcpStream::connect_within(addr.to_string(), PATIENCE).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        socket.send_to(b"", "127.0.0.1:9").unwrap();
    });
}

#[test]
#[serial]
fn addresses_resolve_in_place_and_names_on_the_pool() {
    let (sender, threads) = mpsc::channel();
    let _installed = Installed::new(move |_: &str, port: u16| {
        sender.send(std::thread::current().id()).unwrap();
        Ok(answer(port))
    });
    let here = || std::thread::current().id();
    util::on_an_os_thread(|| {
        addrs("name:80").unwrap();
        assert_eq!(threads.recv().unwrap(), here());
    });
    util::on_workers(1, || {
        addrs("name:80").unwrap();
        assert_ne!(threads.recv().unwrap(), here());
    });
}

#[test]
#[serial]
fn every_function_that_takes_a_name_asks_the_resolver() {
    let _installed = Installed::new(|host: &str, port: u16| match host {
        "here" => Ok(answer(port)),
        _ => Err(ErrorKind::NotFound.into()),
    });
    util::everywhere(|| {
        let listener = TcpListener::bind("here:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("here", port)).unwrap();
        TcpStream::connect_within(("here", port), PATIENCE).unwrap();
        greenroom::ListenOptions::new().listen("here:0").unwrap();
        let socket = UdpSocket::bind("here:0").unwrap();
        let own = socket.local_addr().unwrap().port();
        assert_eq!(socket.send_to(b"x", ("here", own)).unwrap(), 1);
        socket.connect(("here", own)).unwrap();

        let fails = |error: io::Error| assert_eq!(error.kind(), ErrorKind::NotFound);
        fails(TcpListener::bind("there:0").unwrap_err());
        fails(TcpStream::connect("there:1").unwrap_err());
        fails(TcpStream::connect_within("there:1", PATIENCE).unwrap_err());
        fails(UdpSocket::bind("there:0").unwrap_err());
        fails(socket.send_to(b"x", "there:1").unwrap_err());
    });
}

#[test]
#[serial]
fn an_empty_answer_is_invalid_input() {
    let _installed = Installed::new(|_: &str, _: u16| Ok(Vec::new()));
    util::everywhere(|| {
        let error = TcpStream::connect("name:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = TcpStream::connect_within("name:80", PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
#[serial]
fn set_resolver_returns_the_one_before() {
    let mine: Arc<dyn Resolve> = Arc::new(|_: &str, port: u16| Ok(answer(port)));
    let system = set_resolver(Arc::clone(&mine));
    assert_eq!(addrs("no.such.name.invalid:7").unwrap(), answer(7));
    let before = set_resolver(system);
    assert!(Arc::ptr_eq(&before, &mine));
    let localhost = addrs("localhost:7").unwrap();
    let stds: Vec<_> = std::net::ToSocketAddrs::to_socket_addrs("localhost:7")
        .unwrap()
        .collect();
    assert_eq!(localhost, stds, "the order is the system's");
}

#[test]
#[serial]
fn a_panic_of_the_resolver_goes_to_the_caller() {
    let _installed =
        Installed::new(|_: &str, _: u16| -> io::Result<Vec<SocketAddr>> { panic_any(44_u8) });
    util::everywhere(|| {
        for _ in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| addrs("name:80")));
            let payload = result.map(drop).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&44_u8));
        }
    });
}

/// Lets the lookups of a resolver go on when dropped, even if the test fails.
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn new() -> Gate {
        Gate(Arc::new(AtomicBool::new(false)))
    }

    /// Blocks the calling thread until the gate is open.
    fn pass(opened: &AtomicBool) {
        while !opened.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(&self) {
        self.0.store(true, SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

#[test]
#[serial]
fn fifty_slow_lookups_run_at_once_and_hold_up_nobody() {
    // Each lookup ends when all have begun. One after the other, they would never end.
    let begun = Arc::new(AtomicUsize::new(0));
    let gate = Gate::new();
    let _installed = Installed::new({
        let (begun, opened) = (Arc::clone(&begun), Arc::clone(&gate.0));
        move |_: &str, port: u16| {
            begun.fetch_add(1, SeqCst);
            Gate::pass(&opened);
            Ok(answer(port))
        }
    });
    util::on_workers(1, || {
        let lookups: Vec<_> = (1..=50)
            .map(|port| greenroom::spawn(move || addrs(("slow", port)).unwrap() == answer(port)))
            .collect();
        until("all are under way", || begun.load(SeqCst) == 50);
        // The worker runs timers, coroutines and pool jobs meanwhile.
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(1));
            assert_eq!(greenroom::spawn(|| 1).join().unwrap(), 1);
        }
        assert_eq!(unblock(|| 2), 2);
        assert!(lookups.iter().all(|lookup| !lookup.is_finished()));
        gate.open();
        assert!(lookups.into_iter().all(|lookup| lookup.join().unwrap()));
    });
}

#[test]
#[serial]
fn lookups_that_hang_leave_threads_to_other_jobs_and_later_lookups_get_their_turn() {
    let begun = Arc::new(AtomicUsize::new(0));
    let gate = Gate::new();
    let _installed = Installed::new({
        let (begun, opened) = (Arc::clone(&begun), Arc::clone(&gate.0));
        move |_: &str, port: u16| {
            begun.fetch_add(1, SeqCst);
            Gate::pass(&opened);
            Ok(answer(port))
        }
    });
    util::on_workers(1, || {
        let lookups: Vec<_> = (1..=300)
            .map(|port| greenroom::spawn(move || addrs(("hangs", port)).unwrap() == answer(port)))
            .collect();
        until("as many as may are under way", || begun.load(SeqCst) == 128);
        assert_eq!(unblock(|| 3), 3, "there is a thread left");
        assert_eq!(begun.load(SeqCst), 128);

        // A lookup that is given up while it queues is never begun.
        let error = TcpStream::connect_within("queued:1", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);

        gate.open();
        assert!(lookups.into_iter().all(|lookup| lookup.join().unwrap()));
        assert_eq!(begun.load(SeqCst), 300);
    });
}

#[test]
#[serial]
fn a_connect_times_out_while_its_lookup_hangs() {
    util::everywhere(|| {
        let gate = Gate::new();
        let dropped = Arc::new(());
        let _installed = Installed::new({
            let (opened, dropped) = (Arc::clone(&gate.0), Arc::clone(&dropped));
            move |_: &str, port: u16| {
                let _kept = Arc::clone(&dropped);
                Gate::pass(&opened);
                Ok(answer(port))
            }
        });
        let timeout = Duration::from_millis(80);
        let start = Instant::now();
        let error = TcpStream::connect_within("wedged:80", timeout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= timeout);
        gate.open();
        drop(_installed);
        until("the lookup has ended", || Arc::strong_count(&dropped) == 1);
    });
}

#[test]
#[serial]
fn a_resolver_may_itself_wait_through_the_shims() {
    // A tiny name server, and a resolver written with the shims that asks it.
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server_addr = server.local_addr().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let serving = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut query = [0; 64];
            while !over.load(SeqCst) {
                let (length, from) = server.recv_from(&mut query).unwrap();
                if &query[..length] == b"known" {
                    server.send_to(&[127, 0, 0, 1], from).unwrap();
                }
            }
        }
    });
    let installed = Installed::new(move |host: &str, port: u16| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(host.as_bytes(), server_addr)?;
        let mut ip = [0; 4];
        // Mostly on a thread of the pool, whose receive may be interrupted.
        util::uninterrupted(|| socket.recv(&mut ip))?;
        Ok(vec![(ip, port).into()])
    });
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("known", port)).unwrap();
    });
    drop(installed);
    over.store(true, SeqCst);
    let last = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    last.send_to(b"over", server_addr).unwrap();
    serving.join().unwrap();
}

#[test]
#[serial]
fn a_forked_child_resolves_while_the_parents_lookups_hang() {
    let gate = Gate::new();
    let _installed = Installed::new({
        let opened = Arc::clone(&gate.0);
        move |host: &str, port: u16| {
            if host == "hangs" {
                Gate::pass(&opened);
            }
            Ok(answer(port))
        }
    });
    util::on_workers(1, || {
        let lookups: Vec<_> = (1..=200)
            .map(|port| greenroom::spawn(move || addrs(("hangs", port)).map(drop)))
            .collect();
        thread::sleep(Duration::from_millis(20));
        // SAFETY: the child uses this crate as the documentation allows, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the call has no preconditions.
            unsafe { libc::alarm(60) };
            let plain = addrs("quick:1").is_ok_and(|addrs| addrs == answer(1));
            let within = TcpStream::connect_within("quick:1", PATIENCE)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            // SAFETY: as above.
            unsafe { libc::_exit(if plain && within { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: the child was started by this test, and `status` is valid.
        let waited = unblock(move || (unsafe { libc::waitpid(child, &raw mut status, 0) }, status));
        assert_eq!(waited.0, child);
        assert!(libc::WIFEXITED(waited.1), "{}", waited.1);
        assert_eq!(libc::WEXITSTATUS(waited.1), 7);
        gate.open();
        for lookup in lookups {
            lookup.join().unwrap().unwrap();
        }
    });
}
