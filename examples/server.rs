//! A small server with all that one needs in production: limits, timeouts, a log, a drain on SIGTERM, and a
//! restart on SIGHUP that loses no connection.
//!
//! ```text
//! $ cargo run --example server -- 127.0.0.1:8080
//! 4711 serves on 127.0.0.1:8080
//! ```
//!
//! `curl http://127.0.0.1:8080/100` gets a hundred bytes. `kill -HUP` has a new process take over, and
//! `kill -TERM` ends the server when the requests in progress have been answered.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use greenroom::server::{Connection, End, Event, Server, hand_over, listen_fds};
use greenroom::shims::net::{Shutdown, TcpListener};
use greenroom::shims::process::{Command, Stdio};
use greenroom::signal::{SIGHUP, SIGINT, SIGTERM, Signals};
use greenroom::{ListenOptions, timeout};

/// How many connections are served at the same time. Others wait in the backlog.
const LIMIT: usize = 1000;
/// How many connections the backlog has room for.
const BACKLOG: u32 = 1024;
/// How long a connection may last.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a client may take for its next request, from the first byte to the last.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a connection is kept between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client that gets an error may go on sending, so that it sees the error rather than a reset.
const LINGER: Duration = Duration::from_secs(2);
/// How long requests in progress may take when the server stops.
const GRACE: Duration = Duration::from_secs(30);

/// The longest request that is read, in bytes.
const LONGEST: u64 = 8 << 10;

fn main() -> ExitCode {
    match greenroom::run(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // Before the server is ready, so that no signal is missed.
    let mut signals = Signals::new(&[SIGTERM, SIGINT, SIGHUP])?;
    let listener = listener()?;
    let server = Server::builder()
        .name("http")
        .limit(LIMIT)
        .deadline(LIFETIME)
        .log(log)
        .serve(listener, handle)?;
    say(&format!("serves on {}", server.local_addr()));
    // The process that has started this one may wait for this.
    println!("ready");

    while signals.next().transpose()? == Some(SIGHUP) {
        match start_successor(&server) {
            Ok(()) => break,
            Err(error) => say(&format!("has no successor: {error}")),
        }
    }
    let cancelled = server.stop(GRACE);
    let served = server.stats().accepted;
    say(&format!(
        "ends: {served} connections, {cancelled} cancelled"
    ));
    Ok(())
}

/// The listener of the process before this one, or of systemd; or else a new one.
fn listener() -> io::Result<TcpListener> {
    if let Some(inherited) = listen_fds()?.pop() {
        return inherited.into_tcp();
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let address = match &arguments[..] {
        [] => "127.0.0.1:8080",
        [address] => address,
        _ => return Err(io::Error::other("more than one argument, the address")),
    };
    ListenOptions::new().backlog(BACKLOG).listen(address)
}

/// Starts this program again, with the same listener. Returns when the new process serves.
fn start_successor(server: &Server) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    hand_over(&mut command, &[server.listener()?.as_fd()])?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let ready = timeout(GRACE, || BufReader::new(stdout).lines().next());
    if !matches!(ready, Ok(Some(Ok(_)))) {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other("it has not become ready"));
    }
    Ok(())
}

/// Serves a connection: one request after the other.
fn handle(mut connection: &Connection) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    // What is in the buffer has come with the last request.
    let wait = || timeout(IDLE, || connection.wait_for_request()).unwrap_or(Ok(false));
    while !reader.buffer().is_empty() || wait()? {
        let request = timeout(REQUEST, || read_request(&mut reader));
        let request = match request.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                refuse(connection, &error)?;
                return Err(error);
            }
        };
        let body = vec![b'.'; request.len];
        let last = request.last || connection.is_stopping();
        let kept = if last { "close" } else { "keep-alive" };
        let head = format!("HTTP/1.1 200 OK\r\nConnection: {kept}\r\nContent-Length: ");
        let head = format!("{head}{}\r\n\r\n", body.len());
        connection.write_all(&[head.as_bytes(), &body].concat())?;
        if last {
            break;
        }
    }
    Ok(())
}

struct Request {
    /// How many bytes the client wants.
    len: usize,
    /// Whether the client wants the connection to be closed.
    last: bool,
}

/// Reads a request. `None`, if the client has closed the connection instead.
fn read_request(reader: impl BufRead) -> io::Result<Option<Request>> {
    let mut lines = reader.take(LONGEST).lines();
    let Some(first) = lines.next().transpose()? else {
        return Ok(None);
    };
    let path = first
        .split(' ')
        .nth(1)
        .and_then(|path| path.strip_prefix('/'));
    let len = path.and_then(|path| path.parse().ok());
    let mut last = first.ends_with("HTTP/1.0");
    for line in lines {
        match line?.to_ascii_lowercase().as_str() {
            "" => {
                let len = len.filter(|len| *len <= 1 << 20).ok_or_else(bad_request)?;
                return Ok(Some(Request { len, last }));
            }
            "connection: close" => last = true,
            _ => {}
        }
    }
    Err(bad_request())
}

/// Tells the client why its connection ends, if it may still listen.
fn refuse(mut connection: &Connection, error: &io::Error) -> io::Result<()> {
    let status = match error.kind() {
        ErrorKind::InvalidData => "400 Bad Request",
        ErrorKind::TimedOut => "408 Request Timeout",
        _ => return Ok(()),
    };
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    connection.write_all(head.as_bytes())?;
    connection.shutdown(Shutdown::Write)?;
    // A close with unread bytes would be a reset, which can overtake the answer.
    let _ = timeout(LINGER, || io::copy(&mut connection, &mut io::sink()));
    Ok(())
}

fn bad_request() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a bad request")
}

/// Tells what is not as it should be.
fn log(event: &Event<'_>) {
    match event {
        Event::Ended { end: End::Done, .. } => {}
        event => say(&event.to_string()),
    }
}

/// Writes a line for the log, at once: other processes write to the same file.
fn say(line: &str) {
    let line = format!("{} {line}\n", std::process::id());
    let _ = io::stderr().write_all(line.as_bytes());
}
