//! Loads the servers among the examples for an hour, with right, wrong and slow clients, and watches their memory and
//! their descriptors.
//!
//! ```text
//! $ cargo build --release --examples && cargo build --release -p service -p chat
//! $ cargo run --release --example endurance -- --seconds 3600
//! ```
//!
//! Every ten seconds, it prints the resident memory and the open descriptors of each server. At the end, the memory
//! in the last sixth of the time must be that of the first sixth, and the descriptors must be those from before the
//! load. The load is light: a few conversations at a time, after each of which there is a pause.

use greenroom::shims as std;

use ::std::fs;
use ::std::path::{Path, PathBuf};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const HELP: &str = "\
Loads the servers among the examples, and watches their memory and descriptors.

Usage: endurance [OPTION...]

  --seconds N  how long the load is kept up        [default: 3600]
  --period N   seconds from one sample to the next [default: 10]
  --clients N  how many clients each server has    [default: 4]
  --pause MS   how long a client pauses after each conversation [default: 200]
  --help       print this

Servers that are not built are left out.

The status is 0 if all servers have served and none has grown, 1 if not, and 2
if the arguments are wrong.
";

/// How much the memory of a server may grow: allocators keep fragmented memory, and the service keeps its links.
const TOLERANCE_KIB: usize = 4 << 10;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// After so long without clients, servers have closed all connections.
const SETTLING: Duration = Duration::from_secs(5);

/// How to start a server, and how to talk to it.
struct Program {
    title: &'static str,
    /// Relative to the folder of this program.
    path: &'static str,
    arguments: Vec<String>,
    talk: Talk,
}

#[derive(Clone, Copy)]
enum Talk {
    /// Requests, and the statuses of their answers.
    Http(&'static [(&'static str, u16)]),
    /// The same, of which the last request makes the connection a WebSocket, whose messages come back.
    WebSocket(&'static [(&'static str, u16)]),
    /// Lines, which come back without that many bytes each.
    Echo { without: usize },
}

fn programs(directory: &Path) -> Vec<Program> {
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let program = |title, path, arguments: &str, talk| Program {
        title,
        path,
        arguments: arguments.split(' ').map(str::to_owned).collect(),
        talk,
    };
    let echo = |title, style, without| {
        let arguments = format!("{style} 127.0.0.1:0");
        program(title, "echo_four_ways", &arguments, Talk::Echo { without })
    };
    let directory = directory.display();
    vec![
        echo("select", "select", 0),
        echo("dispatcher", "dispatcher", 0),
        echo("terminator", "terminator", 1),
        echo("protocol", "protocol", 0),
        program(
            "upload",
            "upload",
            &format!("127.0.0.1:0 {directory}"),
            Talk::Http(&[
                (
                    "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                    201,
                ),
                (
                    "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
                    200,
                ),
                ("GET /absent HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            ]),
        ),
        program(
            "web",
            "web",
            "127.0.0.1:0",
            Talk::Http(&[
                (GET, 200),
                (
                    "POST /news HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nnew",
                    201,
                ),
                ("GET /news?after=0 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
                ("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            ]),
        ),
        program(
            "chat",
            "../chat",
            "127.0.0.1:0",
            Talk::WebSocket(&[
                (GET, 200),
                (
                    "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                    101,
                ),
            ]),
        ),
        program(
            "service",
            "../service",
            &format!("--listen 127.0.0.1:0 --log warn --journal {directory}/links"),
            Talk::Http(&[
                (GET, 200),
                ("GET /l/absent HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 200),
                (
                    "POST /links HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhttp://a/",
                    201,
                ),
            ]),
        ),
    ]
}

fn main() -> ExitCode {
    let options = match Options::parse(::std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("error: {why} (see --help)");
            return ExitCode::from(2);
        }
    };
    let directory = ::std::env::temp_dir().join(format!("endurance-{}", ::std::process::id()));
    let ended =
        fs::create_dir_all(&directory).and_then(|()| greenroom::run(|| run(&options, &directory)));
    let _ = fs::remove_dir_all(&directory);
    match ended {
        Ok(summary) => {
            println!("ok: {summary}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, directory: &Path) -> io::Result<String> {
    let mut servers = Vec::new();
    for program in programs(directory) {
        let path = ::std::env::current_exe()?
            .with_file_name("")
            .join(program.path);
        match path.exists() {
            true => servers.push(Server::start(&path, &program)?),
            false => eprintln!("{} is not built", program.title),
        }
    }
    thread::sleep(SETTLING);
    for server in &mut servers {
        server.descriptors = server.open_descriptors()?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let conversations = Arc::new(AtomicUsize::new(0));
    let mut clients: Vec<JoinHandle<io::Result<()>>> = Vec::new();
    for server in &servers {
        for number in 0..options.clients {
            let (address, talk, pause) = (server.address, server.talk, options.pause);
            let (over, conversations) = (Arc::clone(&over), Arc::clone(&conversations));
            let title = server.title;
            clients.push(thread::spawn(move || {
                let mut kind = number;
                while !over.load(Relaxed) {
                    let talked = greenroom::timeout(PATIENCE, || converse(address, talk, kind));
                    talked
                        .map_err(io::Error::from)
                        .and_then(|talked| talked)
                        .map_err(|error| {
                            io::Error::other(format!(
                                "{title}, conversation {}: {error}",
                                kind % KINDS
                            ))
                        })?;
                    conversations.fetch_add(1, Relaxed);
                    kind += 1;
                    thread::sleep(pause);
                }
                Ok(())
            }));
        }
    }
    let titles: String = servers
        .iter()
        .map(|server| format!("{:>17}", server.title))
        .collect();
    println!("seconds{titles}");
    let start = Instant::now();
    let mut samples = greenroom::interval(options.period);
    while start.elapsed() < options.time && !clients.iter().any(|client| client.is_finished()) {
        samples.tick();
        let mut line = format!("{:>7}", start.elapsed().as_secs());
        for server in &mut servers {
            let (resident, descriptors) = server.sample()?;
            line += &format!("{resident:>9} KiB{descriptors:>4}");
        }
        println!("{line}");
    }
    over.store(true, Relaxed);
    for client in clients {
        client.join().expect("no panic")?;
    }
    for server in &servers {
        server.check()?;
    }
    let (seconds, conversations) = (start.elapsed().as_secs(), conversations.load(Relaxed));
    Ok(format!(
        "{seconds} seconds, {} servers, {conversations} conversations",
        servers.len()
    ))
}

/// A running server. It is killed when this is dropped.
struct Server {
    title: &'static str,
    talk: Talk,
    child: Child,
    address: SocketAddr,
    /// How many descriptors it had before the load.
    descriptors: usize,
    /// Its resident memory in each period, in KiB.
    resident: Vec<usize>,
}

impl Server {
    fn start(path: &PathBuf, program: &Program) -> io::Result<Server> {
        let mut command = Command::new(path);
        let command = command.args(&program.arguments).stdin(Stdio::null());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("serving on ");
        let address = address.and_then(|address| address.parse().ok());
        let address =
            address.ok_or_else(|| io::Error::other(format!("{}: {line:?}", program.title)))?;
        // What is made for the first clients is kept.
        for kind in 0..KINDS {
            converse(address, program.talk, kind)?;
        }
        Ok(Server {
            title: program.title,
            talk: program.talk,
            child,
            address,
            descriptors: 0,
            resident: Vec::new(),
        })
    }

    /// Notes the resident memory. Returns it, and the number of descriptors.
    fn sample(&mut self) -> io::Result<(usize, usize)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|value| value.split_whitespace().next()?.parse().ok());
        // It has no memory if it has ended.
        let resident =
            resident.ok_or_else(|| io::Error::other(format!("{} has ended", self.title)))?;
        self.resident.push(resident);
        Ok((resident, self.open_descriptors()?))
    }

    fn open_descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// Whether it is as large as in the beginning, when it has closed the connections of clients that are gone.
    fn check(&self) -> io::Result<()> {
        let start = Instant::now();
        let mut descriptors = self.open_descriptors()?;
        while descriptors > self.descriptors && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(100));
            descriptors = self.open_descriptors()?;
        }
        let sixth = self.resident.len().div_ceil(6);
        let largest = |samples: &[usize]| samples.iter().max().copied().unwrap_or(0);
        let first = largest(&self.resident[..sixth]);
        let last = largest(&self.resident[self.resident.len() - sixth..]);
        let grown = last.saturating_sub(first);
        let title = self.title;
        println!(
            "{title}: {first} KiB at first, {last} KiB at last; {} descriptors before, {descriptors} after",
            self.descriptors
        );
        if descriptors > self.descriptors {
            return Err(io::Error::other(format!("{title} has kept descriptors")));
        }
        if grown > TOLERANCE_KIB {
            return Err(io::Error::other(format!(
                "{title} has grown by {grown} KiB"
            )));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many kinds of conversations there are.
const KINDS: usize = 6;

/// One conversation. The servers must answer what is right, and go on after all that is wrong.
fn converse(address: SocketAddr, talk: Talk, kind: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    match (kind % KINDS, talk) {
        // Right, one request after the other.
        (0 | 1, Talk::Http(requests) | Talk::WebSocket(requests)) => {
            let mut reader = BufReader::new(&stream);
            for (request, status) in requests {
                (&stream).write_all(request.as_bytes())?;
                expect(read_answer(&mut reader)?, *status)?;
            }
            match talk {
                Talk::WebSocket(_) => exchange_messages(&mut reader, &stream),
                _ => Ok(()),
            }
        }
        // Right, a byte at a time.
        (2, Talk::Http(requests) | Talk::WebSocket(requests)) => {
            let (request, status) = requests[0];
            write_slowly(&mut stream, request.as_bytes())?;
            expect(read_answer(&mut BufReader::new(&stream))?, status)
        }
        // Wrong.
        (3, Talk::Http(_) | Talk::WebSocket(_)) => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")?;
            expect(read_answer(&mut BufReader::new(&stream))?, 400)
        }
        (0 | 1, Talk::Echo { without }) => {
            for line in ["a line\n", "another one\n", "\n"] {
                stream.write_all(line.as_bytes())?;
                expect_echo(&mut stream, line, without)?;
            }
            Ok(())
        }
        (2, Talk::Echo { without }) => {
            write_slowly(&mut stream, b"a slow line\n")?;
            expect_echo(&mut stream, "a slow line\n", without)
        }
        // A client that reads only after it has written much.
        (3, Talk::Echo { without }) => {
            let line = "x".repeat(30_000) + "\n";
            stream.write_all(line.as_bytes())?;
            thread::sleep(Duration::from_millis(100));
            expect_echo(&mut stream, &line, without)
        }
        // Cut off in the middle, and then closed from both sides.
        (4, _) => {
            stream.write_all(b"GET / HT")?;
            stream.shutdown(Shutdown::Write)?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        }
        // A client that leaves, and resets what still comes.
        _ => stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"),
    }
}

/// Sends messages over a WebSocket, which must come back, and closes it.
fn exchange_messages(reader: &mut impl Read, mut stream: &TcpStream) -> io::Result<()> {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    let long = [b'x'; 300];
    // The length is in one byte, or in two after the number 126. The code 1000 is that of a normal end.
    let frames: [(u8, &[u8], &[u8]); 3] = [
        (TEXT, &[5], b"hello"),
        (TEXT, &[126, 1, 44], &long),
        (CLOSE, &[2], &[3, 232]),
    ];
    for (kind, length, content) in frames {
        let frame = [&[kind], length, content].concat();
        // A client masks what it sends. A mask of zeros changes nothing.
        let mut masked = [&[kind], length, &[0; 4], content].concat();
        masked[1] |= 0x80;
        stream.write_all(&masked)?;
        let mut answer = vec![0; frame.len()];
        reader.read_exact(&mut answer)?;
        if answer != frame {
            return Err(io::Error::other("a message came back changed"));
        }
    }
    match reader.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more came after the end")),
    }
}

fn write_slowly(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Reads the answer to a request. Returns its status.
fn read_answer(reader: &mut impl BufRead) -> io::Result<u16> {
    let (mut line, mut status, mut length) = (String::new(), None, 0);
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if status.is_none() {
            status = Some(
                line.split(' ')
                    .nth(1)
                    .and_then(|status| status.parse().ok()),
            );
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    status
        .flatten()
        .ok_or_else(|| io::Error::other("no status"))
}

fn expect(status: u16, wanted: u16) -> io::Result<()> {
    match status == wanted {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "status {status} instead of {wanted}"
        ))),
    }
}

fn expect_echo(stream: &mut TcpStream, line: &str, without: usize) -> io::Result<()> {
    let wanted = &line[..line.len() - without];
    let mut reply = vec![0; wanted.len()];
    stream.read_exact(&mut reply)?;
    match reply == wanted.as_bytes() {
        true => Ok(()),
        false => Err(io::Error::other("another line comes back")),
    }
}

struct Options {
    time: Duration,
    period: Duration,
    clients: usize,
    pause: Duration,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            time: Duration::from_secs(3600),
            period: Duration::from_secs(10),
            clients: 4,
            pause: Duration::from_millis(200),
        };
        while let Some(name) = arguments.next() {
            if name == "--help" {
                return Ok(None);
            }
            let number = arguments.next().and_then(|number| number.parse().ok());
            let number: u32 = number
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{name} needs a number above zero"))?;
            match name.as_str() {
                "--seconds" => options.time = Duration::from_secs(number.into()),
                "--period" => options.period = Duration::from_secs(number.into()),
                "--clients" => options.clients = number as usize,
                "--pause" => options.pause = Duration::from_millis(number.into()),
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(Some(options))
    }
}
