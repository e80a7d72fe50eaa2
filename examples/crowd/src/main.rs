//! A server with a thread per connection, and a thread for each of its clients. Ordinary std.
//!
//! ```console
//! $ cargo run --release -p crowd -- 2000
//! 2000 clients were served, by 4002 OS threads
//! $ cargo run -p cargo-greenroom -- run --release -p crowd -- 2000
//! 2000 clients were served, by 4 OS threads
//! ```
//!
//! The second command compiles this very program on greenroom's std. Its threads are those of `main`, of two
//! workers on a machine of two cores, and one that reads a file. (Once `cargo-greenroom` is installed, the
//! command is `cargo greenroom run`.)

#![allow(
    clippy::print_stdout,
    reason = "a program with something to say on standard output"
)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

/// Answers each line of a client in capitals.
fn serve(stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        stream.write_all(line.to_uppercase().as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// What all clients share.
struct Crowd {
    /// Lets the clients speak when all are connected.
    all: Barrier,
    connected: AtomicUsize,
    count: usize,
    /// The number of OS threads, when all clients are connected.
    threads: mpsc::SyncSender<usize>,
}

impl Crowd {
    fn speak(&self, number: usize, mut stream: TcpStream) -> io::Result<()> {
        let mut answers = BufReader::new(stream.try_clone()?);
        if self.connected.fetch_add(1, Ordering::SeqCst) + 1 == self.count {
            let _ = self.threads.send(os_threads()?);
        }
        self.all.wait();
        writeln!(stream, "client {number}")?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        assert_eq!(answer, format!("CLIENT {number}\n"));
        Ok(())
    }
}

fn os_threads() -> io::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    Ok(line
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0))
}

fn main() -> io::Result<()> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(1_000), |count| count.parse());
    let count = count.map_err(|_| io::Error::other("the argument is the number of clients"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    let (send, threads) = mpsc::sync_channel(1);
    let crowd = Arc::new(Crowd {
        all: Barrier::new(count),
        connected: AtomicUsize::new(0),
        count,
        threads: send,
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            thread::spawn(move || serve(stream));
        }
    });
    let mut clients = Vec::new();
    for number in 0..count {
        let crowd = Arc::clone(&crowd);
        let stream = TcpStream::connect(server)?;
        clients.push(thread::spawn(move || crowd.speak(number, stream)));
    }
    for client in clients {
        client.join().expect("a client that does not panic")?;
    }
    let threads = threads.recv().unwrap_or(0);
    println!("{count} clients were served, by {threads} OS threads");
    Ok(())
}
