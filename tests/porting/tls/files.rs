//! Lines and buffered files over rustls, on stacks of the default size.

use std::error::Error;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use greenroom::shims::io::makefile::{MakeFile, Newline, Record, SocketFile};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion, version,
};

use crate::library::configs;
use crate::util;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const CLIENTS: usize = 50;

/// More than a record, so that both sides wait amid a message.
const BULK: usize = 100_000;

/// Sends lines back, the handshake first; until there are no more.
fn echo(config: Arc<ServerConfig>, stream: TcpStream) -> Outcome {
    let connection = ServerConnection::new(config)?;
    let mut lines = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        lines.get_mut().write_all(&line)?;
        line.clear();
    }
    let stream = lines.get_mut();
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn ask(config: Arc<ClientConfig>, tcp: TcpStream, number: usize) -> Outcome {
    let connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, tcp);
    let mut bulk = vec![b'a' + number as u8 % 26; BULK];
    bulk.push(b'\n');
    for line in [format!("I am {number}\n").into_bytes(), bulk] {
        stream.write_all(&line)?;
        let mut answer = vec![0; line.len()];
        stream.read_exact(&mut answer)?;
        assert!(answer == line, "{number} was answered something else");
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    assert_eq!(stream.read(&mut [0])?, 0, "closed in due form");
    Ok(())
}

/// Clients and their server, all of them coroutines.
fn talk(version: &'static SupportedProtocolVersion) {
    let (server, client) = configs(version);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let accepts = thread::spawn(move || {
        let echo = |stream| {
            let server = Arc::clone(&server);
            thread::spawn(move || echo(server, stream))
        };
        let streams = listener.incoming().take(CLIENTS);
        let echoes: Vec<_> = streams.map(|stream| echo(stream.unwrap())).collect();
        for echo in echoes {
            echo.join().unwrap().unwrap();
        }
    });
    let clients = (0..CLIENTS).map(|number| {
        let client = Arc::clone(&client);
        thread::spawn(move || ask(client, TcpStream::connect(addr)?, number))
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.join().unwrap().unwrap();
    }
    accepts.join().unwrap();
}

#[test]
fn tls_connections_fit_on_default_stacks() {
    for workers in [1, 4] {
        for version in [&version::TLS13, &version::TLS12] {
            // Not in main, whose stack is larger.
            let talks = || thread::spawn(|| talk(version)).join().unwrap();
            util::on_workers(workers, talks);
            util::print_mark(&format!("{:?} on {workers} workers", version.version));
        }
    }
    util::assert_default_stacks_had_room();
}

type Tls<Connection> = StreamOwned<Connection, TcpStream>;

/// Flushes, and closes in due form.
fn close<Connection, Data>(file: SocketFile<Tls<Connection>>) -> Outcome
where
    Connection: std::ops::DerefMut<Target = rustls::ConnectionCommon<Data>>,
    Data: rustls::SideData,
{
    let (mut stream, unread, unflushed) = file.into_parts();
    assert!(unread.is_empty());
    stream.write_all(&unflushed)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// Answers lines by lines; at a blank one, stops for a while amid the answer.
fn answer(config: Arc<ServerConfig>, stream: TcpStream) -> Outcome {
    let connection = ServerConnection::new(config)?;
    let mut file = MakeFile::new()
        .limit(2 * BULK)
        .file(StreamOwned::new(connection, stream))?;
    loop {
        match file.read_until_seq(b"\r\n")? {
            Record::Incomplete(rest) => {
                assert_eq!(rest, b"");
                return close(file);
            }
            Record::Complete(line) if line == b"\r\n" => {
                file.write_all(b"in two ")?;
                file.flush()?;
                file.read_exact(&mut [0; 2])?;
                file.write_all(b"parts\r\n")?;
            }
            Record::Complete(line) => file.write_all(&line.to_ascii_uppercase())?,
        }
        file.flush()?;
    }
}

fn ask_by_file(config: Arc<ClientConfig>, server: SocketAddr) -> Outcome {
    let connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    let tcp = TcpStream::connect(server)?;
    let timeouts = tcp.try_clone()?;
    let mut text = MakeFile::new()
        .newline(Newline::CrLf)
        .text(StreamOwned::new(connection, tcp))?;
    let mut line = String::new();
    for asked in ["hello", &"x".repeat(BULK)] {
        writeln!(text, "{asked}")?;
        text.flush()?;
        text.read_line(&mut line)?;
        assert!(line == format!("{}\r\n", asked.to_uppercase()));
        line.clear();
    }

    // What comes before a timeout is kept.
    text.write_str("\n")?;
    text.flush()?;
    timeouts.set_read_timeout(Some(Duration::from_millis(20)))?;
    while text.get_ref().buffer() != b"in two " {
        let error = text.read_line(&mut line).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    timeouts.set_read_timeout(None)?;
    text.get_mut().write_all(b"go")?;
    text.flush()?;
    text.read_line(&mut line)?;
    assert_eq!(line, "in two parts\r\n");

    let file = text.get_mut();
    file.get_mut().conn.send_close_notify();
    file.flush()?;
    assert_eq!(file.read_to_end(&mut Vec::new())?, 0, "closed in due form");
    text.close()?;
    Ok(())
}

#[test]
fn buffered_files_go_over_tls() {
    for workers in [1, 4] {
        for version in [&version::TLS13, &version::TLS12] {
            util::on_workers(workers, || {
                let (server, client) = configs(version);
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let addr = listener.local_addr().unwrap();
                let answers = thread::spawn(move || {
                    let stream = listener.accept().unwrap().0;
                    answer(server, stream)
                });
                thread::spawn(move || ask_by_file(client, addr))
                    .join()
                    .unwrap()
                    .unwrap();
                answers.join().unwrap().unwrap();
            });
        }
    }
}

#[test]
fn a_handshake_with_a_silent_server_is_timed_out_and_cancelled() {
    util::on_workers(1, || {
        let (_, client) = configs(&version::TLS13);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = silent.local_addr().unwrap();
        let [first, second] = [(); 2].map(|()| TcpStream::connect(addr).unwrap());
        let limit = Duration::from_millis(20);
        let asked = greenroom::timeout(limit, || ask(Arc::clone(&client), first, 1));
        assert!(asked.is_err(), "the handshake does not end by itself");

        let asking = thread::spawn(move || ask(client, second, 2));
        thread::sleep(limit);
        asking.cancel();
        let payload = asking.join().unwrap_err();
        assert!(payload.is::<greenroom::Cancelled>());
        // Both connections are closed by the unwind.
        for _ in 0..2 {
            let (mut stream, _) = silent.accept().unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
}
