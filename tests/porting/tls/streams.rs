//! Handshakes, messages, ends and timeouts, with each library.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::Barrier;
use greenroom::shims::thread;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::library::{Library, Stream, configs};
use crate::{guide, util};

/// More than a record, so that both sides wait amid a message.
const BULK: usize = 40_000;

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A server and its client, after the handshake.
fn pair(library: &Library) -> (Box<dyn Stream>, Box<dyn Stream>) {
    let (near, far) = connection();
    thread::scope(|s| {
        let server = s.spawn(|| (library.accept)(far).unwrap());
        let client = (library.connect)(near).unwrap();
        (server.join().unwrap(), client)
    })
}

fn with_each_library(test: impl Fn(&Library) + Sync) {
    for library in Library::all() {
        eprintln!("{}", library.name);
        // Not in main, whose stack is larger.
        util::on_workers(1, || {
            thread::scope(|s| s.spawn(|| test(&library)).join().unwrap())
        });
    }
    util::assert_default_stacks_had_room();
}

fn all_of(stream: &mut dyn Stream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}

#[test]
fn a_hundred_connections_are_open_at_once_on_one_worker() {
    const CLIENTS: usize = 100;
    with_each_library(|library| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let all_are_open = &Barrier::new(CLIENTS);
        thread::scope(|s| {
            for number in 0..CLIENTS {
                s.spawn(move || {
                    let mut client = (library.connect)(TcpStream::connect(addr).unwrap()).unwrap();
                    all_are_open.wait();
                    for message in [vec![number as u8; 10], vec![number as u8; BULK]] {
                        client.write_all(&message).unwrap();
                        let mut answer = vec![0; message.len()];
                        client.read_exact(&mut answer).unwrap();
                        assert!(answer == message, "{number} was answered something else");
                    }
                    client.close().unwrap();
                    assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed in due form");
                });
            }
            for tcp in listener.incoming().take(CLIENTS) {
                s.spawn(|| {
                    let mut server = (library.accept)(tcp.unwrap()).unwrap();
                    let mut buf = vec![0; 4096];
                    loop {
                        match server.read(&mut buf).unwrap() {
                            0 => break server.close().unwrap(),
                            read => server.write_all(&buf[..read]).unwrap(),
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_side_that_has_no_more_to_send_can_still_read() {
    with_each_library(|library| {
        let (mut server, mut client) = pair(library);
        thread::scope(|s| {
            s.spawn(|| {
                let mut asked = all_of(&mut *server).unwrap();
                asked.reverse();
                server.write_all(&asked).unwrap();
                server.close().unwrap();
            });
            let asked: Vec<u8> = (0..BULK).map(|at| (at % 251) as u8).collect();
            client.write_all(&asked).unwrap();
            client.close().unwrap();
            let mut answer = all_of(&mut *client).unwrap();
            answer.reverse();
            assert!(answer == asked);
        });
    });
}

#[test]
fn rustls_tells_a_cut_connection_from_one_that_was_closed_and_native_tls_does_not() {
    with_each_library(|library| {
        let (mut server, mut client) = pair(library);
        client.write_all(b"half a mess").unwrap();
        // Not by a drop, which could send a close_notify.
        client.tcp().shutdown(std::net::Shutdown::Both).unwrap();
        let mut all = Vec::new();
        let read = server.read_to_end(&mut all);
        assert_eq!(all, b"half a mess");
        match read {
            Ok(_) => assert_eq!(library.name, "native-tls"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}"),
        }
    });
}

#[test]
fn a_client_that_never_speaks_is_given_up_after_a_timeout() {
    const LIMIT: Duration = Duration::from_millis(30);
    with_each_library(|library| {
        // A connection beside goes on meanwhile, on the same worker.
        let (mut server, mut client) = pair(library);
        thread::scope(|s| {
            s.spawn(|| {
                let (silent, tcp) = connection();
                tcp.set_read_timeout(Some(LIMIT)).unwrap();
                let error = (library.accept)(tcp).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                drop(silent);

                // The limit of the whole handshake, which closes the connection.
                let (mut silent, tcp) = connection();
                let accepted = greenroom::timeout(LIMIT, || (library.accept)(tcp));
                assert!(accepted.is_err());
                // There is nothing to read but the end.
                assert!(matches!(silent.read(&mut [0]), Ok(0)));
                client.write_all(b"done").unwrap();
            });
            let mut done = [0; 4];
            server.read_exact(&mut done).unwrap();
            assert_eq!(&done, b"done");
        });
    });
}

#[test]
fn a_timeout_amid_a_record_loses_nothing() {
    with_each_library(|library| {
        // Between the two sides, the bytes dribble.
        let (near, hither) = connection();
        let (thither, far) = connection();
        thread::scope(|s| {
            let pass = |mut from: &TcpStream, mut to: &TcpStream, piece, pause| {
                let mut buf = vec![0; piece];
                while let Ok(read @ 1..) = from.read(&mut buf) {
                    to.write_all(&buf[..read]).unwrap();
                    thread::sleep(pause);
                }
                let _ = to.shutdown(std::net::Shutdown::Write);
            };
            let (hither, thither) = (&hither, &thither);
            s.spawn(move || pass(hither, thither, 4096, Duration::ZERO));
            s.spawn(move || pass(thither, hither, 500, Duration::from_millis(3)));
            let server = s.spawn(|| (library.accept)(far).unwrap());
            let mut client = (library.connect)(near).unwrap();
            let mut server = server.join().unwrap();
            s.spawn(move || {
                server.write_all(&vec![b'b'; BULK]).unwrap();
                server.close().unwrap();
            });
            client
                .tcp()
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            let (mut all, mut timeouts) = (Vec::new(), 0);
            let mut buf = vec![0; 4096];
            loop {
                match client.read(&mut buf) {
                    Ok(0) => break,
                    Ok(read) => all.extend_from_slice(&buf[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => timeouts += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(timeouts > 0);
            assert!(all == vec![b'b'; BULK]);
            drop(client);
        });
    });
}

#[test]
fn the_server_of_the_guide_echoes_and_gives_up_silent_clients() {
    util::on_workers(1, || {
        let (server, client) = configs(&rustls::version::TLS13);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = thread::spawn(move || guide::serve(listener, server));
        let mut silent = TcpStream::connect(addr).unwrap();

        let ask = || {
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(Arc::clone(&client), name).unwrap();
            let mut tls = StreamOwned::new(connection, TcpStream::connect(addr)?);
            tls.write_all(b"hello")?;
            tls.conn.send_close_notify();
            tls.flush()?;
            let mut echo = String::new();
            tls.read_to_string(&mut echo)?;
            io::Result::Ok(echo)
        };
        // On a busy machine, even a good client may take too long for its handshake.
        let echo = (0..5).find_map(|_| ask().inspect_err(|error| eprintln!("{error}")).ok());
        assert_eq!(echo.as_deref(), Some("hello"));

        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
        serving.cancel();
        let payload = serving.join().unwrap_err();
        assert!(payload.is::<greenroom::Cancelled>());
    });
}
