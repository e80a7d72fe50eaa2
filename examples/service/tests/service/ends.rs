//! How the service ends, and what follows it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use rustix::process::Signal;

use crate::client::{Client, post, start};
use crate::program::{Directory, PATIENCE, Server, command};
use crate::util::until;

/// Flags for many links at once: a slow disk may take its time for each.
const PATIENT: [&str; 4] = ["--deadline", "100", "--grace", "100"];

/// A client that sends one request after the other, until the service closes the connection. Returns the number of
/// answers.
fn ask_until_closed(mut client: Client, answered: &AtomicUsize) -> usize {
    for number in 0.. {
        let address = format!("https://example.com/{number}");
        // A service that closes between two requests may do so while the next one is on its way.
        let answer = client.send(&post(&address)).and_then(|()| client.answer());
        match answer {
            Ok(Some(answer)) => {
                assert_eq!(answer.status, 201, "{answer:?}");
                answered.fetch_add(1, SeqCst);
            }
            Ok(None) => return number,
            Err(error) => {
                let kind = error.kind();
                assert_ne!(
                    kind,
                    std::io::ErrorKind::UnexpectedEof,
                    "an answer was cut off"
                );
                return number;
            }
        }
    }
    unreachable!("the service ends")
}

#[test]
fn each_of_its_signals_ends_the_service_without_the_loss_of_a_reply() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let directory = Directory::new();
        let journal = directory.join("links");
        let mut server = start(&journal, &PATIENT);
        // One is in the middle of its request when the signal comes, and one has a page open.
        let mut slow = Client::new(&server);
        let request = post("https://example.com/slow");
        slow.send(&request[..request.len() - 1]).unwrap();
        let mut page = Client::new(&server);
        page.send("GET /plot HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(page.head().unwrap().unwrap().0, 200);

        let answered = AtomicUsize::new(0);
        let total: usize = thread::scope(|scope| {
            let clients: Vec<_> = (0..20).map(|_| Client::new(&server)).collect();
            let clients = clients.into_iter();
            let clients: Vec<_> = clients
                .map(|client| scope.spawn(|| ask_until_closed(client, &answered)))
                .collect();
            until("the load is on", || answered.load(SeqCst) >= 100);
            server.signal(signal);
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .sum()
        });
        assert!(
            TcpStream::connect(server.address).is_err(),
            "it accepts no more"
        );
        slow.send(&request[request.len() - 1..]).unwrap();
        let answer = slow
            .answer()
            .unwrap()
            .expect("the request in progress is answered");
        assert_eq!(answer.status, 201);
        server.assert_ends();
        let stored = std::fs::read_to_string(&journal).unwrap();
        // What was answered is stored. So may be a link whose client did not get the answer any more.
        assert!(
            stored.lines().count() > total,
            "{} of {total}",
            stored.lines().count()
        );
        assert!(stored.contains("https://example.com/slow\n"));
        let last = "stopped cancelled=0";
        until("the log is complete", || server.log().contains(last));
    }
}

#[test]
fn the_second_signal_ends_the_service_at_once() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    let mut client = Client::new(&server);
    let request = post("https://example.com/");
    client.send(&request[..request.len() - 1]).unwrap();
    Client::new(&server).get("/");
    server.signal(Signal::TERM);
    until("it stops", || TcpStream::connect(server.address).is_err());
    server.signal(Signal::TERM);
    assert!(
        !matches!(client.answer(), Ok(Some(_))),
        "the request is not answered"
    );
}

#[test]
fn requests_that_outlast_the_grace_are_cancelled() {
    let directory = Directory::new();
    let mut server = start(&directory.join("links"), &["--grace", "0.2"]);
    let mut client = Client::new(&server);
    let request = post("https://example.com/");
    client.send(&request[..request.len() - 1]).unwrap();
    Client::new(&server).get("/");
    server.signal(Signal::TERM);
    server.assert_ends();
    assert!(!matches!(client.answer(), Ok(Some(_))));
    until("the log is complete", || {
        server.log().contains("stopped cancelled=1")
    });
}

/// Starts the service as systemd does, with a socket.
fn activate(socket: &TcpListener, journal: &std::path::Path) -> Server {
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    let mut command = command("sh");
    command
        .args(["-c", script, env!("CARGO_BIN_EXE_service"), "--journal"])
        .arg(journal)
        .args(PATIENT)
        .stdin(Stdio::from(socket));
    Server::start_command(&mut command)
}

#[test]
fn restarts_with_the_socket_of_systemd_lose_no_connection() {
    let directory = Directory::new();
    let journal = directory.join("links");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = activate(&socket, &journal);
    assert_eq!(server.address, address);
    let over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    ask_once(address);
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        for _ in 0..5 {
            let before = answered.load(SeqCst);
            until("the load is on", || answered.load(SeqCst) >= before + 50);
            server.signal(Signal::TERM);
            server.assert_ends();
            server = activate(&socket, &journal);
        }
        over.store(true, SeqCst);
    });
    let stored = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(stored.lines().count(), answered.load(SeqCst));
}

/// Makes a link on a connection of its own, which must be answered.
#[track_caller]
fn ask_once(address: SocketAddr) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = Client::over(stream);
    let request = post("https://example.com/");
    client
        .send(&request.replace("Host: x", "Host: x\r\nConnection: close"))
        .unwrap();
    let answer = client.answer().unwrap().expect("an answer");
    assert_eq!(answer.status, 201);
}
