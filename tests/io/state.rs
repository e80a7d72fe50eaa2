//! The state of a server, shared by its connections in plain variables.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::{self, JoinHandle};
use greenroom::spawn_local;
use serial_test::serial;

use crate::util;

const CONNECTIONS: usize = 1_000;

/// How many connections are opened at once. They fit into the backlog.
const WAVE: usize = 100;

/// Asks a server that answers each byte with the number of bytes that it has received so far.
fn ask(server: SocketAddr) -> io::Result<u32> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"?")?;
    let mut number = [0; 4];
    stream.read_exact(&mut number)?;
    Ok(u32::from_be_bytes(number))
}

/// The numbers that all clients get.
fn ask_by_all(server: SocketAddr) -> JoinHandle<BTreeSet<u32>> {
    thread::spawn(move || {
        let mut numbers = BTreeSet::new();
        for _ in 0..CONNECTIONS / WAVE {
            let ask = || thread::spawn(move || ask(server).unwrap());
            let wave: Vec<_> = (0..WAVE).map(|_| ask()).collect();
            numbers.extend(wave.into_iter().map(|client| client.join().unwrap()));
        }
        numbers
    })
}

#[test]
#[serial]
fn a_thousand_connections_share_state_by_arc() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clients = ask_by_all(listener.local_addr().unwrap());
            let count = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming().take(CONNECTIONS) {
                let mut stream = stream.unwrap();
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    stream.read_exact(&mut [0]).unwrap();
                    let number = count.fetch_add(1, SeqCst) + 1;
                    stream.write_all(&(number as u32).to_be_bytes()).unwrap();
                });
            }
            let numbers = clients.join().unwrap();
            assert!(numbers.into_iter().eq(1..=CONNECTIONS as u32));
            assert_eq!(count.load(SeqCst), CONNECTIONS);
        });
    }
}

/// The clients run on any worker. The server's connections stay on the worker of their listener.
#[test]
#[serial]
fn a_thousand_connections_share_state_by_rc() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clients = ask_by_all(listener.local_addr().unwrap());
            let peers: Rc<RefCell<HashMap<usize, SocketAddr>>> = Rc::default();
            let mut connections = Vec::new();
            for stream in listener.incoming().take(CONNECTIONS) {
                let mut stream = stream.unwrap();
                let peers = Rc::clone(&peers);
                connections.push(spawn_local(move || {
                    stream.read_exact(&mut [0]).unwrap();
                    let mut shared = peers.borrow_mut();
                    let number = shared.len() + 1;
                    // Not by peer: a port may serve several connections, one after the other.
                    let before = shared.insert(number, stream.peer_addr().unwrap());
                    assert_eq!(before, None);
                    drop(shared);
                    stream.write_all(&(number as u32).to_be_bytes()).unwrap();
                    Rc::downgrade(&peers)
                }));
            }
            let of_clients = clients.join().unwrap();
            assert!(of_clients.into_iter().eq(1..=CONNECTIONS as u32));
            for connection in connections {
                let shared = connection.join().unwrap();
                assert!(shared.ptr_eq(&Rc::downgrade(&peers)));
            }
            assert_eq!(Rc::strong_count(&peers), 1);
        });
    }
}

#[test]
#[serial]
fn a_server_refuses_connections_by_dropping_them() {
    const ROOM: usize = 25;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..4 * ROOM)
                .map(|_| thread::spawn(move || ask(server)))
                .collect();
            let mut present = Vec::new();
            for stream in listener.incoming().take(4 * ROOM) {
                let stream = stream.unwrap();
                if present.len() < ROOM {
                    present.push(stream);
                }
            }
            for mut stream in present {
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(&[0, 0, 0, 7]).unwrap();
            }
            let (served, refused): (Vec<_>, Vec<_>) = clients
                .into_iter()
                .map(|c| c.join().unwrap())
                .partition(Result::is_ok);
            assert_eq!(served.len(), ROOM);
            for error in refused.into_iter().map(Result::unwrap_err) {
                use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
                let kind = error.kind();
                assert!(
                    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&kind),
                    "{error}"
                );
            }
        });
    }
}
