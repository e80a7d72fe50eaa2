//! Servers: limits, deadlines, failures, and how they end.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::server::{Connection, End, Event, Listener, Server, Stream};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::{UnixListener, UnixStream};
use greenroom::shims::thread;
use greenroom::{Interrupts, ListenOptions, sync, timeout, with_interrupts, with_unjoined_hook};

use super::Gauge;
use crate::util::{self, PATIENCE, ms, on_an_os_thread, on_workers, until};

const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn listener() -> TcpListener {
    TcpListener::bind((util::own_loopback(), 0)).unwrap()
}

/// Answers each line with the same line. Between requests, it hears of a stop.
fn echo_lines<S: Stream>(mut connection: &Connection<S>) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while !reader.buffer().is_empty() || connection.wait_for_request()? {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        connection.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Answers with what comes, in the pieces in which it comes. Between requests, it hears of a stop.
fn echo_pieces<S: Stream>(mut connection: &Connection<S>) -> io::Result<()> {
    let mut buf = [0; 100];
    while let Some(read @ 1..) = connection.read_request(&mut buf)? {
        connection.write_all(&buf[..read])?;
    }
    Ok(())
}

/// The two ways to wait for a request.
const HANDLERS: [fn(&Connection) -> io::Result<()>; 2] = [echo_lines, echo_pieces];

/// A client of `echo_lines`.
struct Client<S>(BufReader<S>);

impl Client<TcpStream> {
    fn connect(server: &Server) -> Client<TcpStream> {
        Client::to(*server.local_addr())
    }

    fn to(addr: SocketAddr) -> Client<TcpStream> {
        Client(BufReader::new(TcpStream::connect(addr).unwrap()))
    }
}

impl<S: Read + Write> Client<S> {
    fn ask(&mut self, line: &str) {
        self.say(line);
        self.hear(line);
    }

    fn say(&mut self, line: &str) {
        let stream = self.0.get_mut();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn hear(&mut self, line: &str) {
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("{line}\n"));
    }

    /// Reads the end of the stream.
    #[track_caller]
    fn hear_end(&mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }
}

#[track_caller]
fn assert_refuses(server: &Server) {
    let addr = *server.local_addr();
    assert_refused(|| TcpStream::connect(addr));
}

/// Waits until nothing listens. A child that another test has just forked has the listener, too, until it executes
/// its program.
#[track_caller]
fn assert_refused<S>(connect: impl Fn() -> io::Result<S>) {
    until("it refuses", || match connect() {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            true
        }
    });
}

#[test]
fn each_connection_has_a_handler_of_its_own() {
    let serve = || {
        let server = Server::serve(listener(), echo_lines).unwrap();
        let mut clients = [(); 5].map(|()| Client::connect(&server));
        for client in clients.iter_mut().rev() {
            client.ask("hello");
        }
        for client in &mut clients {
            client.ask("hello again");
        }
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.active), (5, 5));
        drop(clients);
        until("the handlers end", || server.stats().active == 0);
        assert_eq!(server.stop(PATIENCE), 0);
    };
    on_an_os_thread(serve);
    on_workers(1, serve);
    on_workers(4, serve);
}

#[test]
fn the_path_of_a_unix_listener_is_left_to_a_successor() {
    on_workers(1, || {
        let scratch = util::Scratch::new();
        let path = scratch.join("socket");
        let server = Server::serve(UnixListener::bind(&path).unwrap(), echo_lines).unwrap();
        assert_eq!(server.local_addr().as_pathname(), Some(&*path));
        let mut client = Client(BufReader::new(UnixStream::connect(&path).unwrap()));
        client.ask("hello");
        assert_eq!(server.stop(PATIENCE), 0);
        client.hear_end();

        assert_refused(|| UnixStream::connect(&path));
        std::fs::remove_file(&path).unwrap();
        let successor = Server::serve(UnixListener::bind(&path).unwrap(), echo_pieces).unwrap();
        Client(BufReader::new(UnixStream::connect(&path).unwrap())).ask("hello");
        drop(server);
        Client(BufReader::new(UnixStream::connect(&path).unwrap())).ask("hello");
        drop(successor);
    });
}

#[test]
fn a_connection_is_closed_when_its_handler_returns() {
    on_workers(1, || {
        let server = Server::serve(listener(), |mut connection: &Connection| {
            connection.write_all(b"bye\n")
        });
        let server = server.unwrap();
        let mut client = Client::connect(&server);
        client.hear("bye");
        client.hear_end();
    });
}

fn a_full_server_accepts_the_next_when_one_ends(limit: usize) {
    let gauge = Arc::new(Gauge::default());
    let handler = {
        let gauge = Arc::clone(&gauge);
        move |connection: &Connection| {
            let _inside = gauge.enter();
            echo_lines(connection)
        }
    };
    let server = Server::builder().limit(limit);
    let server = server.serve(listener(), handler).unwrap();
    let mut clients: Vec<_> = (0..limit + 3).map(|_| Client::connect(&server)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.say(&format!("client {number}"));
    }
    until("there is no more room", || gauge.inside() == limit);
    // All are served, in the order in which they came, as soon as those before them have gone.
    for (number, mut client) in clients.into_iter().enumerate() {
        client.hear(&format!("client {number}"));
        assert!(gauge.inside() <= limit);
        assert!(server.stats().active <= limit);
    }
    assert_eq!((gauge.entered(), gauge.most()), (limit + 3, limit));
    assert!(server.stats().limit_waits >= 1);
    assert_eq!(server.stop(PATIENCE), 0);
}

#[test]
fn a_limit_stops_accepting_until_a_connection_ends() {
    for limit in [1, 2] {
        on_workers(1, || a_full_server_accepts_the_next_when_one_ends(limit));
        on_workers(4, || a_full_server_accepts_the_next_when_one_ends(limit));
    }
}

#[test]
#[should_panic(expected = "a server without connections")]
fn a_limit_of_zero_is_refused() {
    let _ = Server::builder().limit(0);
}

#[test]
fn accepting_lets_others_run_after_a_hundred_connections_at_most() {
    on_workers(1, || {
        let listener = ListenOptions::new().backlog(1000).listen(LOOPBACK).unwrap();
        let addr = listener.local_addr().unwrap();
        // All of them are in the backlog when the server starts.
        let clients: Vec<_> = (0..300)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        let server = Server::serve(listener, echo_lines).unwrap();
        let (mut before, mut turns) = (0, 0);
        while server.stats().accepted < 300 {
            greenroom::yield_now();
            let now = server.stats().accepted;
            assert!(now - before <= 100, "{} in one turn", now - before);
            turns += usize::from(now > before);
            before = now;
        }
        assert!(turns >= 3);
        drop(clients);
    });
}

#[test]
fn a_deadline_ends_clients_that_never_finish_their_request() {
    const DEADLINE: Duration = Duration::from_millis(300);
    on_workers(1, || {
        let server = Server::builder().deadline(DEADLINE);
        let server = server.serve(listener(), echo_lines).unwrap();
        let start = Instant::now();
        let mut lorises = [(); 3].map(|()| TcpStream::connect(server.local_addr()).unwrap());
        let (mut others, mut late) = (0, 0);
        let mut alive = HashSet::from([0, 1, 2]);
        // Each sends a byte now and then, so that no read waits for long.
        while !alive.is_empty() {
            thread::sleep(ms(20));
            alive.retain(|number| lorises[*number].write_all(b"x").is_ok());
            assert!(start.elapsed() < 3 * PATIENCE);
            // The others are served, unless the machine stands still until their own deadline.
            let asked = Instant::now();
            let mut other = TcpStream::connect(server.local_addr()).unwrap();
            let mut answer = [0; 2];
            let answered = other
                .write_all(b"x\n")
                .and_then(|()| other.read_exact(&mut answer));
            match answered {
                Ok(()) => assert_eq!(&answer, b"x\n"),
                Err(error) => assert!(asked.elapsed() >= DEADLINE, "{error}"),
            }
            others += 1;
            late += u64::from(asked.elapsed() >= DEADLINE / 2);
        }
        assert!(start.elapsed() >= DEADLINE);
        assert!(late < others, "some are served at once");
        until("they are gone", || server.stats().active == 0);
        let stats = server.stats();
        assert_eq!(stats.accepted, 3 + others);
        assert!(stats.timed_out >= 3);
        assert_eq!(stats.failed, 0);
    });
}

#[test]
fn a_deadline_that_a_handler_gets_as_an_error_counts_as_such() {
    on_workers(1, || {
        let server = Server::builder().deadline(ms(10));
        let server = server.serve(listener(), |mut connection: &Connection| {
            with_interrupts(Interrupts::Errors, || connection.read(&mut [0])).map(drop)
        });
        let server = server.unwrap();
        Client::connect(&server).hear_end();
        until("it is counted", || server.stats().timed_out == 1);
        assert_eq!(server.stats().failed, 0);
    });
}

#[test]
fn the_panic_of_a_handler_ends_its_connection_alone() {
    const NAME: &str = "the_panic_of_a_handler_ends_its_connection_alone";
    if util::role().is_some() {
        on_workers(1, || {
            let told = Arc::new(AtomicUsize::new(0));
            let hook = {
                let told = Arc::clone(&told);
                move |panic: greenroom::UnjoinedPanic| {
                    assert!(panic.to_string().contains("no such luck"));
                    told.fetch_add(1, Ordering::SeqCst);
                }
            };
            let server = with_unjoined_hook(hook, || {
                let server = Server::builder().name("fragile");
                server.serve(listener(), |connection: &Connection| {
                    let mut line = String::new();
                    BufReader::new(connection).read_line(&mut line)?;
                    match &*line {
                        "panic\n" => panic!("no such luck"),
                        _ => (&*connection).write_all(line.as_bytes()),
                    }
                })
            });
            let server = server.unwrap();
            let (mut bystander, mut victim) = (Client::connect(&server), Client::connect(&server));
            victim.say("panic");
            victim.hear_end();
            bystander.ask("hello");
            Client::connect(&server).ask("hello");
            until("it is counted", || server.stats().panicked == 1);
            assert_eq!(server.stop(PATIENCE), 0);
            assert_eq!(told.load(Ordering::SeqCst), 1);
        });
        return;
    }
    let output = util::again!(NAME, "server").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // The default hook has said it once, with the name.
    assert_eq!(stderr.matches("no such luck").count(), 1, "{stderr}");
    assert!(stderr.contains("coroutine 'fragile'"), "{stderr}");
}

/// What a server has told, as lines.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn log(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let told = self.clone();
        move |event| {
            let line = match event {
                Event::Ended { peer, end, .. } => {
                    assert!(peer.is_some());
                    end.to_string()
                }
                event => event.to_string(),
            };
            told.0.lock().unwrap().push(line);
        }
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn the_log_is_told_how_each_connection_has_ended() {
    on_workers(1, || {
        let told = Told::default();
        let server = Server::builder().log(told.log());
        let server = server.serve(listener(), |connection: &Connection| {
            let mut line = String::new();
            BufReader::new(connection).read_line(&mut line)?;
            match &*line {
                "fail\n" => Err(io::Error::other("bad request")),
                "panic\n" => std::panic::resume_unwind(Box::new("no message")),
                _ => Ok(()),
            }
        });
        let server = server.unwrap();
        // Only here is there a deadline: on a busy machine, any request may take longer.
        let hurried = Server::builder().deadline(ms(50)).log(told.log());
        let hurried = hurried.serve(listener(), |_: &Connection| {
            loop {
                thread::sleep(PATIENCE);
            }
        });
        let hurried = hurried.unwrap();
        let expected = [
            (&server, "hello", "done"),
            (&server, "fail", "failed (bad request)"),
            (&server, "panic", "panicked"),
            (&hurried, "wait", "timed out"),
        ];
        for (server, request, end) in expected {
            let mut client = Client::connect(server);
            client.say(request);
            // The server does not read the request that times out, so it may reset the connection.
            let _ = client.0.read(&mut [0]);
            until(end, || told.lines().last().is_some_and(|line| line == end));
        }
        assert_eq!(told.lines().len(), expected.len());
        let stats = server.stats();
        assert_eq!((stats.failed, stats.panicked, stats.timed_out), (1, 1, 0));
        assert_eq!(hurried.stats().timed_out, 1);
    });
}

#[test]
fn a_log_that_panics_or_waits_does_no_harm() {
    on_workers(1, || {
        let calls = util::counter();
        let server = Server::builder().log({
            let calls = Arc::clone(&calls);
            move |event| {
                calls.fetch_add(1, Ordering::SeqCst);
                assert!(matches!(event, Event::Ended { end: End::Done, .. }));
                thread::sleep(ms(2));
                std::panic::resume_unwind(Box::new("a log"));
            }
        });
        let server = server.serve(listener(), echo_lines).unwrap();
        for _ in 0..3 {
            Client::connect(&server).ask("hello");
        }
        assert_eq!(server.stop(PATIENCE), 0);
        assert_eq!(calls.load(Ordering::SeqCst), 3);
        assert_eq!(server.stats().panicked, 0);
    });
}

#[test]
fn the_log_is_told_of_connections_whose_handlers_are_never_called() {
    const CLIENTS: usize = 20;
    // Returns how many handlers were called.
    let round = |ends_runtime| {
        let (told, called) = (Told::default(), util::counter());
        on_workers(1, || {
            let listener = listener();
            let addr = listener.local_addr().unwrap();
            // All of them are in the backlog when the server starts.
            let mut clients = [(); CLIENTS].map(|()| Client::to(addr));
            let server = Server::builder().log(told.log());
            let server = server.serve(listener, {
                let called = Arc::clone(&called);
                move |_: &Connection| {
                    called.fetch_add(1, Ordering::SeqCst);
                    loop {
                        thread::sleep(PATIENCE);
                    }
                }
            });
            let server = server.unwrap();
            while server.stats().accepted < CLIENTS as u64 {
                greenroom::yield_now();
            }
            if ends_runtime {
                return server.detach();
            }
            drop(server);
            clients.iter_mut().for_each(Client::hear_end);
            until("all ends are told", || told.lines().len() == CLIENTS);
        });
        assert_eq!(told.lines(), ["cancelled"; CLIENTS]);
        called.load(Ordering::SeqCst)
    };
    for ends_runtime in [false, true] {
        // Few have had their first turn, as there is one worker; unless the system was slow to tell of the last client.
        assert!((0..10).any(|_| round(ends_runtime) < CLIENTS));
    }
}

#[test]
fn a_handler_that_has_returned_is_not_cancelled_although_its_connection_lingers() {
    for stops in [false, true] {
        on_workers(1, || {
            let (told, begun) = (Told::default(), Arc::new(AtomicBool::new(false)));
            let server = Server::builder().log(told.log());
            let server = server.serve(listener(), {
                let begun = Arc::clone(&begun);
                move |mut connection: &Connection| {
                    connection.read_exact(&mut [0])?;
                    while !util::has_something(&**connection) {
                        thread::sleep(ms(1));
                    }
                    begun.store(true, Ordering::SeqCst);
                    Ok(())
                }
            });
            let server = Arc::new(server.unwrap());
            let mut client = Client::connect(&server);
            // The handler leaves the rest of this.
            client.say("hello");
            until("it returns", || begun.load(Ordering::SeqCst));
            if stops {
                assert_eq!(server.stop(Duration::ZERO), 0);
            }
            drop(server);
            client.hear_end();
            until("its end is told", || !told.lines().is_empty());
            assert_eq!(told.lines(), ["done"]);
        });
    }
}

#[test]
fn a_listener_of_a_type_that_does_not_listen_ends_the_server_with_an_error() {
    on_workers(1, || {
        let told = Told::default();
        let datagrams = std::net::UdpSocket::bind((util::own_loopback(), 0)).unwrap();
        // An accept waits for something to come.
        let addr = datagrams.local_addr().unwrap();
        datagrams.send_to(b"hello", addr).unwrap();
        let listener = TcpListener::from(OwnedFd::from(datagrams));
        let server = Server::builder().log(told.log());
        let server = server.serve(listener, echo_lines).unwrap();
        let ended = timeout(PATIENCE, || server.wait()).expect("it ends");
        let error = ended.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(told.lines().len(), 1, "{:?}", told.lines());
    });
}

#[test]
fn a_listener_in_non_blocking_mode_is_waited_for() {
    on_workers(1, || {
        let listener = listener();
        listener.set_nonblocking(true).unwrap();
        let server = Server::serve(listener, echo_lines).unwrap();
        for _ in 0..3 {
            thread::sleep(ms(5));
            Client::connect(&server).ask("hello");
        }
        assert_eq!(server.stats().accept_failures, 0);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_listener_that_is_shut_down_ends_the_server_with_an_error() {
    on_workers(2, || {
        let told = Told::default();
        let listener = listener();
        let clone = listener.try_clone().unwrap();
        let server = Server::builder().log(told.log());
        let server = server.serve(listener, echo_lines).unwrap();
        let mut client = Client::connect(&server);
        client.ask("hello");
        rustix::net::shutdown(&clone, rustix::net::Shutdown::Both).unwrap();
        let error = server.wait().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        client.hear_end();
        assert!(
            told.lines()[0].ends_with("accepting ends"),
            "{:?}",
            told.lines()
        );
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn handlers_run_on_all_workers() {
    on_workers(4, || {
        let threads = Arc::new(Mutex::new(HashSet::new()));
        let server = Server::serve(listener(), {
            let threads = Arc::clone(&threads);
            move |connection: &Connection| {
                let thread = std::thread::current().id();
                threads.lock().unwrap().insert(thread);
                // Keeps the worker, so that the others take the next ones.
                std::thread::sleep(ms(2));
                echo_lines(connection)
            }
        });
        let server = server.unwrap();
        let mut asked = 0;
        // Again, if the machine has let only one of the workers run.
        until("several workers have run some", || {
            let clients: Vec<_> = (0..100)
                .map(|number| {
                    let addr = *server.local_addr();
                    thread::spawn(move || Client::to(addr).ask(&format!("client {number}")))
                })
                .collect();
            asked += 100;
            clients
                .into_iter()
                .for_each(|client| client.join().unwrap());
            threads.lock().unwrap().len() > 1
        });
        assert_eq!(server.stats().accepted, asked);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_stop_waits_for_handlers_and_refuses_new_connections() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let (begun, go_on) = (Arc::new(sync::Event::new()), Arc::new(sync::Event::new()));
            let server = Server::serve(listener(), {
                let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
                move |mut connection: &Connection| {
                    begun.set();
                    go_on.wait();
                    assert!(connection.is_stopping());
                    connection.write_all(b"late\n")
                }
            });
            let server = Arc::new(server.unwrap());
            let mut client = Client::connect(&server);
            begun.wait();
            let stopping = thread::spawn({
                let server = Arc::clone(&server);
                move || server.stop(PATIENCE)
            });
            until("it does not accept", || server.listener().is_err());
            until("it is closed", || {
                TcpStream::connect(*server.local_addr()).is_err()
            });
            assert_refuses(&server);
            assert!(!stopping.is_finished());
            go_on.set();
            client.hear("late");
            client.hear_end();
            drop(client);
            assert_eq!(stopping.join().unwrap(), 0);
            assert_eq!(server.stats().cancelled, 0);
        });
    }
}

/// A server whose handlers never end, and are counted while they run.
fn serve_forever(gauge: &Arc<Gauge>) -> Server {
    let gauge = Arc::clone(gauge);
    let handler = move |_: &Connection| {
        let _inside = gauge.enter();
        loop {
            thread::sleep(PATIENCE);
        }
    };
    Server::serve(listener(), handler).unwrap()
}

#[test]
fn a_stop_cancels_what_outlasts_the_grace_period() {
    on_workers(1, || {
        let gauge = Arc::new(Gauge::default());
        let server = serve_forever(&gauge);
        let mut clients = [(); 3].map(|()| Client::connect(&server));
        until("all are served", || gauge.inside() == 3);
        let start = Instant::now();
        assert_eq!(server.stop(ms(30)), 3);
        assert!(start.elapsed() >= ms(30));
        assert_eq!(gauge.inside(), 0, "they have unwound");
        clients.iter_mut().for_each(Client::hear_end);
        let stats = server.stats();
        assert_eq!((stats.cancelled, stats.active), (3, 0));
    });
}

#[test]
fn a_stop_waits_no_longer_than_it_says_for_a_handler_that_cannot_be_cancelled() {
    on_workers(1, || {
        let end = Arc::new(sync::Event::new());
        let server = Server::serve(listener(), {
            let end = Arc::clone(&end);
            move |_: &Connection| {
                greenroom::shield(|| end.wait());
                Ok(())
            }
        });
        let server = server.unwrap();
        let _client = Client::connect(&server);
        until("it is served", || server.stats().active == 1);
        assert_eq!(server.stop(Duration::ZERO), 1);
        assert_eq!(server.stats().active, 1);
        end.set();
        server.wait().unwrap();
        assert_eq!(server.stats().active, 0);
    });
}

#[test]
fn a_handler_that_waits_for_a_request_does_not_delay_a_stop() {
    for (workers, handler) in [
        (1, HANDLERS[0]),
        (4, HANDLERS[0]),
        (1, HANDLERS[1]),
        (4, HANDLERS[1]),
    ] {
        on_workers(workers, || {
            let server = Server::serve(listener(), handler).unwrap();
            let mut clients: Vec<_> = (0..20).map(|_| Client::connect(&server)).collect();
            for client in &mut clients {
                client.ask("hello");
            }
            let stop = thread::spawn(move || {
                let cancelled = server.stop(10 * PATIENCE);
                (cancelled, server)
            });
            for client in &mut clients {
                client.hear_end();
            }
            drop(clients);
            let (cancelled, server) = stop.join().unwrap();
            assert_eq!(cancelled, 0);
            let stats = server.stats();
            assert_eq!((stats.cancelled, stats.failed), (0, 0));
        });
    }
}

#[test]
fn the_first_request_is_answered_although_the_server_stops() {
    on_workers(2, || {
        let server = Arc::new(Server::serve(listener(), echo_lines).unwrap());
        let [mut late, mut silent] = [(); 2].map(|()| Client::connect(&server));
        until("both are served", || server.stats().active == 2);
        let stop = greenroom::spawn({
            let server = Arc::clone(&server);
            move || server.stop(10 * PATIENCE)
        });
        until("it has begun to stop", || server.listener().is_err());
        late.ask("hello");
        late.hear_end();
        assert!(!stop.is_finished(), "the other one may still say something");
        // But not for ever.
        silent.hear_end();
        drop((late, silent));
        assert_eq!(stop.join().unwrap(), 0);
    });
}

#[test]
fn a_request_that_has_come_before_the_stop_is_answered() {
    for handler in HANDLERS {
        on_workers(1, || {
            let server = Server::serve(listener(), handler).unwrap();
            let mut client = Client::connect(&server);
            client.ask("hello");
            // No handler runs between these three: there is one worker.
            client.say("one more");
            util::until_delivered(client.0.get_ref());
            let stop = greenroom::spawn(move || server.stop(PATIENCE));
            client.hear("one more");
            client.hear_end();
            drop(client);
            assert_eq!(stop.join().unwrap(), 0);
        });
    }
}

/// Bytes that show where they come from.
fn reply() -> Vec<u8> {
    util::noise(8 << 20, 7)
}

/// Reads all that comes, slowly.
fn read_slowly(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(all),
            len => all.extend(&buf[..len]),
        }
        thread::sleep(ms(2));
    }
}

#[test]
fn a_stop_does_not_truncate_a_reply_to_a_slow_reader() {
    for workers in [1, 2] {
        on_workers(workers, || {
            let server = Server::serve(listener(), |mut connection: &Connection| {
                connection.write_all(&reply())
            });
            let server = server.unwrap();
            let mut client = TcpStream::connect(server.local_addr()).unwrap();
            let mut first = [0; 1];
            client.read_exact(&mut first).unwrap();
            let stop = greenroom::spawn(move || server.stop(10 * PATIENCE));
            let rest = read_slowly(&mut client).unwrap();
            util::assert_same_bytes(&[&first[..], &rest].concat(), &reply());
            drop(client);
            assert_eq!(stop.join().unwrap(), 0);
        });
    }
}

#[test]
fn input_that_a_handler_leaves_does_not_truncate_its_reply() {
    // 512 KiB are in the kernel's buffers when the handler returns.
    const LEN: usize = 512 << 10;
    let answer_and_leave = |mut connection: &Connection| {
        connection.read_exact(&mut [0; 5])?;
        connection.write_all(&reply()[..LEN])
    };
    on_workers(1, || {
        let server = Server::serve(listener(), answer_and_leave).unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.write_all(b"first second third").unwrap();
        until("the handler is about to return", || {
            util::has_something(&client)
        });
        thread::sleep(ms(5));
        util::assert_same_bytes(&read_slowly(&mut client).unwrap(), &reply()[..LEN]);
    });

    // And the same with a request that comes when the handler has returned because the server stops.
    on_workers(1, || {
        let server = Server::serve(listener(), move |connection: &Connection| {
            while !connection.is_stopping() {
                thread::sleep(ms(1));
            }
            answer_and_leave(connection)
        });
        let server = server.unwrap();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.write_all(b"first").unwrap();
        until("it is served", || server.stats().active == 1);
        let stop = greenroom::spawn(move || server.stop(PATIENCE));
        until("the handler is about to return", || {
            util::has_something(&client)
        });
        thread::sleep(ms(5));
        client.write_all(b"second").unwrap();
        util::assert_same_bytes(&read_slowly(&mut client).unwrap(), &reply()[..LEN]);
        drop(client);
        assert_eq!(stop.join().unwrap(), 0);
    });
}

#[test]
fn a_server_can_be_stopped_twice_and_by_several_at_once() {
    on_workers(2, || {
        let server = Arc::new(Server::serve(listener(), echo_lines).unwrap());
        let mut client = Client::connect(&server);
        client.ask("hello");
        let stops = [(); 3].map(|()| {
            let server = Arc::clone(&server);
            thread::spawn(move || server.stop(PATIENCE))
        });
        client.hear_end();
        drop(client);
        for stop in stops {
            assert_eq!(stop.join().unwrap(), 0);
        }
        assert_eq!(server.stop(PATIENCE), 0);
        server.wait().unwrap();
        assert_refuses(&server);
        let error = server.listener().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn a_stop_that_is_interrupted_can_be_repeated() {
    on_workers(1, || {
        let go_on = Arc::new(sync::Event::new());
        let server = Server::serve(listener(), {
            let go_on = Arc::clone(&go_on);
            move |_: &Connection| {
                go_on.wait();
                Ok(())
            }
        });
        let server = server.unwrap();
        let client = Client::connect(&server);
        until("it is served", || server.stats().active == 1);
        assert!(timeout(ms(10), || server.stop(PATIENCE)).is_err());
        assert_eq!(server.stats().active, 1, "the handler runs on");
        assert_refuses(&server);
        go_on.set();
        drop(client);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn a_handler_that_stops_its_own_server_panics() {
    on_workers(1, || {
        let itself = Arc::new(Mutex::new(None::<Arc<Server>>));
        let message = Arc::new(Mutex::new(String::new()));
        let server = Server::serve(listener(), {
            let (itself, message) = (Arc::clone(&itself), Arc::clone(&message));
            move |_: &Connection| {
                let server = itself.lock().unwrap().take().unwrap();
                *message.lock().unwrap() = util::message_of(|| server.stop(PATIENCE));
                Ok(())
            }
        });
        let server = Arc::new(server.unwrap());
        *itself.lock().unwrap() = Some(Arc::clone(&server));
        Client::connect(&server).hear_end();
        let expected = "a handler cannot wait for the end of its own server";
        assert_eq!(*message.lock().unwrap(), expected);
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
fn dropping_a_server_cancels_its_handlers() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let gauge = Arc::new(Gauge::default());
            let server = serve_forever(&gauge);
            let addr = *server.local_addr();
            let mut clients = [(); 3].map(|()| Client::to(addr));
            until("all are served", || gauge.inside() == 3);
            drop(server);
            clients.iter_mut().for_each(Client::hear_end);
            until("they have unwound", || gauge.inside() == 0);
            until("the listener is closed", || {
                TcpStream::connect(addr).is_err()
            });
        });
    }
}

#[test]
fn a_detached_server_runs_on() {
    on_workers(1, || {
        let server = Server::serve(listener(), echo_lines).unwrap();
        let addr = *server.local_addr();
        server.detach();
        Client::to(addr).ask("hello");
    });
}

#[test]
fn a_server_whose_runtime_has_ended_can_be_stopped() {
    let ended = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(AtomicBool::new(false));
    let server = on_workers(2, || {
        let server = Server::serve(listener(), {
            let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
            move |connection: &Connection| {
                let _ended = Ended(&ended);
                begun.store(true, Ordering::SeqCst);
                echo_lines(connection)
            }
        });
        let server = server.unwrap();
        let client = TcpStream::connect(server.local_addr()).unwrap();
        until("it is served", || begun.load(Ordering::SeqCst));
        (server, client)
    });
    let (server, client) = server;
    assert!(ended.load(Ordering::SeqCst));
    assert_eq!(server.stop(PATIENCE), 0);
    server.wait().unwrap();
    drop(client);

    struct Ended<'a>(&'a AtomicBool);

    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
fn a_duplicate_of_the_listener_keeps_the_backlog_of_a_stopped_server() {
    on_workers(1, || {
        let server = Server::builder().limit(1);
        let server = server.serve(listener(), echo_lines).unwrap();
        let mut served = Client::connect(&server);
        served.ask("hello");
        let mut queued = [(); 3].map(|()| Client::connect(&server));
        queued
            .iter_mut()
            .for_each(|client| client.say("still here"));
        let inherited = server.listener().unwrap();
        let stop = greenroom::spawn(move || server.stop(PATIENCE));
        served.hear_end();
        drop(served);
        assert_eq!(stop.join().unwrap(), 0);

        let successor = Server::serve(inherited, echo_lines).unwrap();
        queued
            .iter_mut()
            .for_each(|client| client.hear("still here"));
        drop(queued);
        assert_eq!(successor.stop(PATIENCE), 0);
    });
}

/// The server of the test below: it may have 64 descriptors.
fn serve_with_few_descriptors() {
    let few = libc::rlimit {
        rlim_cur: 64,
        rlim_max: 64,
    };
    // SAFETY: the limits are valid.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) };
    assert_eq!(done, 0);
    on_workers(2, || {
        let listener = ListenOptions::new().backlog(512).listen(LOOPBACK).unwrap();
        let lacks = Arc::new(sync::Event::new());
        let server = Server::builder().log({
            let lacks = Arc::clone(&lacks);
            move |event| {
                if let Event::AcceptFailed { error, pause, .. } = event {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    assert!(pause.is_some_and(|pause| pause >= ms(10)));
                    lacks.set();
                }
            }
        });
        let server = server.serve(listener, echo_lines).unwrap();
        println!("\nport {}", server.local_addr().port());
        assert!(lacks.wait_timeout(PATIENCE), "descriptors run out");
        println!("\nfull");
        until("all are served", || {
            let stats = server.stats();
            stats.accepted == 200 && stats.active == 0
        });
        assert!(server.stats().accept_failures > 0);
        // And after that it serves as before.
        Client::connect(&server).ask("hello");
        assert_eq!(server.stop(PATIENCE), 0);
    });
    println!("\nend of child");
}

#[test]
fn a_server_that_runs_out_of_descriptors_serves_all_in_the_end() {
    const NAME: &str = "a_server_that_runs_out_of_descriptors_serves_all_in_the_end";
    if util::role().is_some() {
        return serve_with_few_descriptors();
    }
    let mut child = util::again!(NAME, "server")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = |start: &str| {
        let mut lines = lines.by_ref().map(Result::unwrap);
        let found = lines.find_map(|line| line.strip_prefix(start).map(str::to_owned));
        found.unwrap_or_else(|| panic!("the child has not said {start:?}"))
    };
    let port: u16 = line("port ").parse().unwrap();
    on_workers(1, || {
        let addr = (Ipv4Addr::LOCALHOST, port).into();
        let mut clients: Vec<_> = (0..200).map(|_| Client::to(addr)).collect();
        line("full");
        for client in &mut clients {
            client.say("hello");
        }
        for mut client in clients {
            client.hear("hello");
        }
        line("end of child");
    });
    assert!(child.wait().unwrap().success());
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Server>();
    send_and_sync::<Server<UnixListener>>();
    send_and_sync::<Connection>();
    const fn sealed<L: Listener>() {}
    sealed::<TcpListener>();
};
