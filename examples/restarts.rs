//! Restarts the server of `examples/server.rs` again and again under load, and checks that no connection is
//! lost and no reply is truncated.
//!
//! ```text
//! $ cargo build --release --example server
//! $ cargo run --release --example restarts -- 100
//! ok: 100 restarts, 21011 connections, 61254 replies, 2331 MiB, 0 lost, 0 truncated
//! ```
//!
//! The clients are of four kinds: one request per connection, several requests one after the other, several
//! at once, and large replies that are read slowly. A connection counts as lost if its first request is not
//! answered. A server that closes a connection between two replies is right to do so.

use greenroom::shims as std;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Clients at the same time, of each kind.
const CLIENTS: usize = 8;
/// Longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    connections: AtomicU64,
    replies: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    truncated: AtomicU64,
}

/// What a client does with a connection.
#[derive(Clone, Copy, Debug)]
struct Kind {
    requests: usize,
    /// How many requests are sent before the first reply is read.
    at_once: usize,
    /// The longest reply in bytes.
    longest: u64,
    /// How long to wait after each 64 KiB.
    pause: Duration,
}

const KINDS: [Kind; 4] = [
    Kind {
        requests: 1,
        at_once: 1,
        longest: 64 << 10,
        pause: Duration::ZERO,
    },
    Kind {
        requests: 10,
        at_once: 1,
        longest: 64 << 10,
        pause: Duration::ZERO,
    },
    Kind {
        requests: 12,
        at_once: 4,
        longest: 256 << 10,
        pause: Duration::from_millis(1),
    },
    Kind {
        requests: 2,
        at_once: 2,
        longest: 1 << 20,
        pause: Duration::from_millis(5),
    },
];

fn main() -> ExitCode {
    let restarts = std::env::args().nth(1);
    let restarts = restarts.map_or(Ok(10), |restarts| restarts.parse());
    let restarts = restarts.expect("the number of restarts");
    let seen = Arc::new(Seen::default());
    let start = Instant::now();
    greenroom::run(|| run(restarts, &seen)).expect("the server and its successors");
    let Seen {
        connections,
        replies,
        bytes,
        lost,
        truncated,
        ..
    } = &*seen;
    let ok = lost.load(Relaxed) == 0 && truncated.load(Relaxed) == 0 && replies.load(Relaxed) > 0;
    eprintln!("{:.1?}", start.elapsed());
    std::println!(
        "{}: {restarts} restarts, {} connections, {} replies, {} MiB, {} lost, {} truncated",
        if ok { "ok" } else { "failed" },
        connections.load(Relaxed),
        replies.load(Relaxed),
        bytes.load(Relaxed) >> 20,
        lost.load(Relaxed),
        truncated.load(Relaxed),
    );
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Restarts the server while clients talk to it.
fn run(restarts: usize, seen: &Arc<Seen>) -> io::Result<()> {
    let server = std::env::current_exe()?.with_file_name("server");
    let mut server = Command::new(server)
        .arg("127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // All successors write to the same pipe.
    let stderr = server.stderr.take().expect("it is piped");
    let mut log = Log {
        lines: BufReader::new(stderr).lines(),
        ended: 0,
    };
    let (mut pid, addr) = log.next_serving()?;
    let addr = addr.parse().expect("an address");

    let clients: Vec<_> = (0..CLIENTS * KINDS.len())
        .map(|number| {
            let seen = Arc::clone(seen);
            thread::spawn(move || client(addr, number, &seen))
        })
        .collect();
    for _ in 0..restarts {
        signal(pid, Signal::HUP)?;
        (pid, _) = log.next_serving()?;
        // Some work between two restarts.
        let replies = seen.replies.load(Relaxed);
        while seen.replies.load(Relaxed) < replies + 50 && !seen.over.load(Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    seen.over.store(true, Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().expect("no panic"));
    signal(pid, Signal::TERM)?;
    while log.ended <= restarts {
        log.next()?;
    }
    server.wait()?;
    Ok(())
}

fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(pid).expect("a process");
    Ok(kill_process(pid, signal)?)
}

/// What the servers write.
struct Log<R> {
    lines: io::Lines<R>,
    /// How many servers have ended.
    ended: usize,
}

impl<R: BufRead> Log<R> {
    /// The number of the next process that serves, and its address.
    fn next_serving(&mut self) -> io::Result<(i32, String)> {
        loop {
            let line = self.next()?;
            if let Some((pid, addr)) = line.split_once(" serves on ") {
                return Ok((pid.parse().expect("a process"), addr.into()));
            }
        }
    }

    fn next(&mut self) -> io::Result<String> {
        let line = greenroom::timeout(PATIENCE, || self.lines.next())?;
        let line = line.ok_or(io::ErrorKind::UnexpectedEof)??;
        if line.contains(" ends: ") {
            self.ended += 1;
            if line.ends_with(" 0 cancelled") {
                return Ok(line);
            }
        } else if line.contains(" serves on ") {
            return Ok(line);
        }
        // Something that should not be.
        eprintln!("{line}");
        Ok(line)
    }
}

/// Talks to the server until all restarts are done.
fn client(addr: SocketAddr, number: usize, seen: &Seen) {
    let kind = KINDS[number % KINDS.len()];
    // Lengths that differ, but are the same in each run.
    let mut random = number as u64;
    let mut length = || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) % kind.longest
    };
    while !seen.over.load(Relaxed) {
        seen.connections.fetch_add(1, Relaxed);
        let end = converse(addr, kind, &mut length, seen);
        match end {
            Ok(()) => {}
            Err(Failure::Lost(error)) => {
                seen.lost.fetch_add(1, Relaxed);
                eprintln!("lost: {kind:?}: {error}");
            }
            Err(Failure::Truncated(error)) => {
                seen.truncated.fetch_add(1, Relaxed);
                eprintln!("truncated: {kind:?}: {error}");
            }
        }
    }
}

enum Failure {
    /// The first request was not answered.
    Lost(io::Error),
    /// A reply has begun, and has not come to its end.
    Truncated(io::Error),
}

/// Makes one connection and its requests.
fn converse(
    addr: SocketAddr,
    kind: Kind,
    mut length: impl FnMut() -> u64,
    seen: &Seen,
) -> Result<(), Failure> {
    let stream = TcpStream::connect(addr).map_err(Failure::Lost)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(Failure::Lost)?;
    let mut replies = BufReader::with_capacity(64 << 10, &stream);
    let mut answered = 0;
    for _ in 0..kind.requests / kind.at_once {
        let lengths: Vec<_> = (0..kind.at_once).map(|_| length()).collect();
        let requests: Vec<_> = lengths.iter().map(|len| request(*len)).collect();
        let sent = (&stream).write_all(requests.concat().as_bytes());
        for len in lengths {
            // Between two replies, the server may close.
            match replies.fill_buf() {
                Ok([_, ..]) => {}
                _ if answered > 0 => return Ok(()),
                Ok([]) => return Err(Failure::Lost(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(Failure::Lost(error)),
            }
            let last = read_reply(&mut replies, len, kind.pause).map_err(Failure::Truncated)?;
            answered += 1;
            seen.replies.fetch_add(1, Relaxed);
            seen.bytes.fetch_add(len, Relaxed);
            if last {
                return Ok(());
            }
        }
        if sent.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn request(len: u64) -> String {
    format!("GET /{len} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Reads a reply of `len` bytes. Returns whether the server closes the connection after it.
fn read_reply(reader: &mut impl BufRead, len: u64, pause: Duration) -> io::Result<bool> {
    let wrong = |what: &str| io::Error::other(format!("a reply with {what}"));
    let (mut last, mut announced, mut line) = (false, None, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some(("Connection", kept)) => last = kept == "close",
            Some(("Content-Length", len)) => announced = len.parse().ok(),
            Some(_) => return Err(wrong("another header")),
            None if line == "HTTP/1.1 200 OK\r\n" => {}
            None if line == "\r\n" => break,
            None => return Err(wrong(&format!("a line {line:?}"))),
        }
    }
    if announced != Some(len) {
        return Err(wrong("another length"));
    }
    let (mut left, mut buf) = (len, vec![0; 64 << 10]);
    while left > 0 {
        let part = &mut buf[..usize::try_from(left).unwrap_or(usize::MAX).min(64 << 10)];
        reader.read_exact(part)?;
        if part.iter().any(|byte| *byte != b'.') {
            return Err(wrong("other bytes"));
        }
        left -= part.len() as u64;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(last)
}
