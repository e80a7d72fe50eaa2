//! An echo server and ten thousand clients, all connected at once, in the code one would write for
//! ten of them: a thread for each connection, on either side, that reads and writes and blocks.
//!
//! ```text
//! $ cargo run --release --example echo
//! server       3 OS threads, 46 MiB at its peak
//! client       2 OS threads, 50 MiB at its peak
//! connections  10000 of 10000
//! messages     50000 of 50000
//! errors       0
//! messages/s   68329
//! latency p50  100.1ms
//! latency p99  173.8ms
//! ok: 10000 connections, 50000 messages, 0 errors, 3 OS threads
//! ```
//!
//! Every connection is opened before the first one talks, and then all talk at once. So a message's
//! latency is mostly its wait for the other 9,999.
//!
//! Each end needs a descriptor per connection, hence two processes: the server starts this program
//! again as its client. `--serve` and `--connect` start one of them alone, to be met by `nc`, say:
//!
//! ```text
//! $ cargo run --release --example echo -- --serve 127.0.0.1:7000
//! serving on 127.0.0.1:7000
//! ```

#[path = "util/descriptors.rs"]
mod descriptors;
#[path = "util/progress.rs"]
mod progress;

// Below this line `spawn` makes a coroutine, and calls that would block a thread park the coroutine.
use greenroom::shims as std;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use greenroom::RuntimeBuilder;

const HELP: &str = "\
An echo server and its clients: many connections, all open at once.

Usage: echo [--serve IP:PORT | --connect IP:PORT[,IP:PORT...]] [OPTION...]

Without --serve and --connect, it serves on a port of the loopback interface
and starts itself again as the client.

  --serve IP:PORT     only serve, any client, until killed
  --connect IP:PORT   only be the client, of any echo server; given several
                      addresses, take them in turn
  --server-pid PID    the server's process, for --connect to measure: without
                      it the server's figures are -, and the last line counts
                      the client's own OS threads
  --connections N     how many are open at once        [default: 10000]
  --messages N        how many each of them sends      [default: 5]
  --size BYTES        how long each message is, to 65536  [default: 64]
  --workers N         OS threads that run coroutines   [default: greenroom's]
  --help              print this

The status is 0 if every message came back as it was sent, 1 if not, and 2 if
the arguments are wrong.
";

/// The server listens on 127.0.0.1, .2, .3 and so on. For each address a client has about 28,000 ports,
/// and each listener has a backlog.
const LISTENERS: u8 = 4;

/// How many connections may be opening at once. They fit into the backlog of any server.
const OPENING_AT_ONCE: usize = 64;

const CONNECT_ATTEMPTS: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than a connection can take to fail by itself, so that this reports only if nothing moves.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest message. A client reads only after it has written all of a message, so the socket buffers
/// must hold it.
const MAX_SIZE: usize = 64 * 1024;

/// How many descriptors a process has besides its connections: standard streams, listeners, those of the
/// runtime.
const SPARE_DESCRIPTORS: usize = 64;

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);

const ERRORS_SHOWN: usize = 10;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    match Options::parse(arguments.map(|argument| argument.to_string_lossy().into_owned())) {
        Ok(Some(options)) => start(options).unwrap_or_else(|why| {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }),
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why} (see --help)");
            ExitCode::from(2)
        }
    }
}

fn start(mut options: Options) -> Result<ExitCode, String> {
    let limit = descriptors::raise_limit();
    let most = limit.saturating_sub(SPARE_DESCRIPTORS).max(1);
    if options.load.connections > most && options.serve.is_none() {
        eprintln!("only {most} connections: a process may have no more than {limit} descriptors");
        options.load.connections = most;
    }

    let runtime = match options.workers {
        Some(workers) => RuntimeBuilder::new().workers(workers).build(),
        None => RuntimeBuilder::new().build(),
    };
    let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
    runtime.run(move || match (options.serve, options.connect.as_slice()) {
        (Some(address), _) => serve_anyone(address),
        (None, []) => serve_own_client(&options),
        (None, servers) => Ok(talk_to(servers, &options)),
    })
}

// The server.

fn serve_anyone(address: SocketAddr) -> Result<ExitCode, String> {
    let (listener, address) = listen(address)?;
    println!("serving on {address}");
    serve(&listener)
}

fn serve_own_client(options: &Options) -> Result<ExitCode, String> {
    let mut servers = Vec::new();
    for number in 1..=LISTENERS {
        let (listener, address) = listen((Ipv4Addr::new(127, 0, 0, number), 0).into())?;
        servers.push(address);
        thread::spawn(move || serve(&listener));
    }

    let mut client = client_command(&servers, options)
        .and_then(|mut command| command.spawn())
        .map_err(|e| format!("cannot start the client process: {e}"))?;
    // Waits on the pool.
    let status = greenroom::unblock(move || client.wait())
        .map_err(|e| format!("cannot wait for the client process: {e}"))?;

    // The client prints the outcome itself, if it gets that far.
    if !matches!(status.code(), Some(0 | 1)) {
        println!("failed: the client process died: {status}");
    }
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn client_command(servers: &[SocketAddr], options: &Options) -> io::Result<Command> {
    let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
    let load = &options.load;

    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--connect", &servers.join(",")]);
    command.args(["--server-pid", &std::process::id().to_string()]);
    command.args(["--connections", &load.connections.to_string()]);
    command.args(["--messages", &load.messages.to_string()]);
    command.args(["--size", &load.size.to_string()]);
    if let Some(workers) = options.workers {
        command.args(["--workers", &workers.to_string()]);
    }
    Ok(command)
}

/// Listens. Returns the address, with the port that the system has chosen if `address` leaves it open.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
        .map_err(|e| format!("cannot listen on {address}: {e}"))
}

fn serve(listener: &TcpListener) -> ! {
    loop {
        match listener.accept() {
            // The client reports what ends a connection early.
            Ok((stream, _)) => drop(thread::spawn(move || echo(stream))),
            // Mostly there are no descriptors left, until connections close.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    // Otherwise the last part of a long message would wait until the client has acknowledged the part
    // before.
    stream.set_nodelay(true)?;
    // So small that the stack of a connection that waits in `read` takes one page.
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

// The client.

fn talk_to(servers: &[SocketAddr], options: &Options) -> ExitCode {
    let mut client = Client::new(options);
    client.open_all(servers);
    let elapsed = client.let_all_talk();
    let (latencies, errors) = client.join_all();
    client.report(elapsed, &latencies, &errors)
}

/// The organiser. It shows the progress of the connections, and notices when there is none.
struct Client {
    crowd: Arc<Crowd>,
    connections: Vec<JoinHandle<Result<Vec<Duration>, String>>>,
    server_process: Option<Process>,
    client_process: Process,
    looked: Instant,
    /// The progress when it last changed, and when that was.
    moved: (usize, Instant),
    stalled: bool,
}

impl Client {
    fn new(options: &Options) -> Client {
        Client {
            crowd: Arc::new(Crowd {
                load: options.load,
                opened: AtomicUsize::new(0),
                echoed: AtomicUsize::new(0),
                ended: AtomicUsize::new(0),
                may_talk: AtomicBool::new(false),
                organiser: thread::current(),
            }),
            connections: Vec::new(),
            server_process: options.server_pid.map(Process::new),
            client_process: Process::new(std::process::id()),
            looked: Instant::now(),
            moved: (0, Instant::now()),
            stalled: false,
        }
    }

    fn open_all(&mut self, servers: &[SocketAddr]) {
        let wanted = self.crowd.load.connections;
        for (number, &server) in (1..=wanted).zip(servers.iter().cycle()) {
            self.wait_until(|it| it.opening() < OPENING_AT_ONCE);
            // One lost connection fails the run, so there is no need to ask an absent server ten thousand
            // times.
            if self.stalled || self.crowd.ended.load(Relaxed) > 0 {
                break;
            }
            let crowd = Arc::clone(&self.crowd);
            self.connections.push(thread::spawn(move || {
                let latencies = connection(number, server, &crowd);
                crowd.ended.fetch_add(1, Relaxed);
                crowd.organiser.unpark();
                latencies
            }));
        }
        self.wait_until(|it| it.opening() == 0);
        self.look();
    }

    fn opening(&self) -> usize {
        self.connections.len() - self.crowd.opened_or_failed()
    }

    fn let_all_talk(&mut self) -> Duration {
        let start = Instant::now();
        self.crowd.may_talk.store(true, Release);
        for connection in &self.connections {
            connection.thread().unpark();
        }
        self.wait_until(|it| it.crowd.ended.load(Relaxed) == it.connections.len());
        let elapsed = start.elapsed();
        self.look();
        progress::show("");
        elapsed
    }

    /// Joins all connections. Returns the latencies of those that ended well, in ascending order, and the
    /// errors of the others.
    fn join_all(&mut self) -> (Vec<Duration>, Vec<String>) {
        let (mut latencies, mut errors) = (Vec::new(), Vec::new());
        if self.stalled {
            let progress = self.crowd.progress();
            errors.push(format!("no progress for {STALL_TIMEOUT:?}: {progress}"));
        }
        for (number, connection) in (1..).zip(self.connections.drain(..)) {
            if self.stalled && !connection.is_finished() {
                continue;
            }
            match connection.join() {
                Ok(Ok(own)) => latencies.extend(own),
                Ok(Err(why)) => errors.push(format!("connection {number}, {why}")),
                Err(_) => errors.push(format!("connection {number} panicked")),
            }
        }
        latencies.sort_unstable();
        (latencies, errors)
    }

    fn report(&self, elapsed: Duration, latencies: &[Duration], errors: &[String]) -> ExitCode {
        let Load {
            connections: wanted,
            messages: each,
            ..
        } = self.crowd.load;
        let opened = self.crowd.opened.load(Relaxed);
        let echoed = self.crowd.echoed.load(Relaxed);
        let rate = echoed as f64 / elapsed.as_secs_f64();

        let row = |name: &str, value: String| println!("{name:<12} {value}");
        row(
            "server",
            self.server_process
                .as_ref()
                .map_or("-".into(), Process::text),
        );
        row("client", self.client_process.text());
        row("connections", format!("{opened} of {wanted}"));
        row("messages", format!("{echoed} of {}", wanted * each));
        row("errors", errors.len().to_string());
        row("messages/s", format!("{rate:.0}"));
        row("latency p50", percentile(latencies, 50));
        row("latency p99", percentile(latencies, 99));

        for error in errors.iter().take(ERRORS_SHOWN) {
            println!("error: {error}");
        }
        if errors.len() > ERRORS_SHOWN {
            println!("error: and {} more", errors.len() - ERRORS_SHOWN);
        }
        let well = errors.is_empty() && opened == wanted && echoed == wanted * each;
        println!(
            "{}: {opened} connections, {echoed} messages, {} errors, {} OS threads",
            if well { "ok" } else { "failed" },
            errors.len(),
            self.server_process
                .as_ref()
                .unwrap_or(&self.client_process)
                .threads,
        );
        if well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Parks until `done` returns true, or until nothing moves any more. Connections unpark this thread.
    fn wait_until(&mut self, done: impl Fn(&Client) -> bool) {
        while !self.stalled && !done(self) {
            thread::park_timeout(TICK);
            if self.looked.elapsed() >= TICK {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        let moves = self.crowd.opened_or_failed() + self.crowd.echoed.load(Relaxed);
        if moves != self.moved.0 {
            self.moved = (moves, self.looked);
        }
        self.stalled = self.moved.1.elapsed() >= STALL_TIMEOUT;
        self.client_process.measure();
        self.server_process.iter_mut().for_each(Process::measure);
        progress::show(&self.crowd.progress());
    }
}

/// What the connections share with their organiser, the client's first thread.
struct Crowd {
    load: Load,
    /// Connections that were opened, whether or not they are still open.
    opened: AtomicUsize,
    /// Messages that came back as they were sent.
    echoed: AtomicUsize,
    /// Connections that are over, whether or not they ended well.
    ended: AtomicUsize,
    /// Set when all connections are open. Each of them parks until then.
    may_talk: AtomicBool,
    organiser: Thread,
}

impl Crowd {
    /// Before the connections may talk, each that ended has failed to open.
    fn opened_or_failed(&self) -> usize {
        self.opened.load(Relaxed) + self.ended.load(Relaxed)
    }

    fn progress(&self) -> String {
        let (opened, echoed) = (self.opened.load(Relaxed), self.echoed.load(Relaxed));
        let Load {
            connections,
            messages,
            ..
        } = self.load;
        let messages = connections * messages;
        format!(
            "{opened} of {connections} connections opened, {echoed} of {messages} messages echoed"
        )
    }
}

/// The life of one connection. Returns the latencies of its messages, or an error.
fn connection(number: usize, server: SocketAddr, crowd: &Crowd) -> Result<Vec<Duration>, String> {
    let mut stream = open(server).map_err(|why| format!("opening: {why}"))?;
    crowd.opened.fetch_add(1, Relaxed);
    crowd.organiser.unpark();
    while !crowd.may_talk.load(Acquire) {
        thread::park();
    }

    let mut latencies = Vec::with_capacity(crowd.load.messages);
    for message in 1..=crowd.load.messages {
        // No two messages are alike, so that the echo of another message is noticed.
        let text = format!("{number}.{message} ");
        let content: Vec<u8> = text.bytes().cycle().take(crowd.load.size).collect();
        let sent = Instant::now();
        exchange(&mut stream, &content).map_err(|why| format!("message {message}: {why}"))?;
        latencies.push(sent.elapsed());
        crowd.echoed.fetch_add(1, Relaxed);
    }

    close(stream).map_err(|why| format!("closing: {why}"))?;
    Ok(latencies)
}

/// Connects, and has one byte echoed. A connection may sit in the server's backlog, but the byte comes
/// back only after a thread of the server has accepted it.
fn open(server: SocketAddr) -> Result<TcpStream, String> {
    let mut stream = connect(server).map_err(explain)?;
    exchange(&mut stream, b".")?;
    Ok(stream)
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let mut attempt = 1;
    let stream = loop {
        match TcpStream::connect_timeout(&server, CONNECT_TIMEOUT) {
            Err(_) if attempt < CONNECT_ATTEMPTS => {
                thread::sleep(attempt * Duration::from_millis(100));
                attempt += 1;
            }
            done => break done?,
        }
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, content: &[u8]) -> Result<(), String> {
    let mut reply = vec![0; content.len()];
    stream.write_all(content).map_err(explain)?;
    stream.read_exact(&mut reply).map_err(explain)?;
    match content
        .iter()
        .zip(&reply)
        .position(|(sent, got)| sent != got)
    {
        Some(before) => Err(format!("reply differs at byte {}", before + 1)),
        None => Ok(()),
    }
}

/// Lets the server close first. That shows whether the server sends more than it should.
fn close(mut stream: TcpStream) -> Result<(), String> {
    stream.shutdown(Shutdown::Write).map_err(explain)?;
    match stream.read(&mut [0]).map_err(explain)? {
        0 => Ok(()),
        _ => Err("the server sent more than it was sent".into()),
    }
}

fn explain(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".into(),
        // After a timeout, a socket returns the former, a connect the latter.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer".into(),
        _ => error.to_string(),
    }
}

/// The most resources that a process has used so far.
struct Process {
    id: u32,
    threads: usize,
    peak_kib: usize,
}

impl Process {
    fn new(id: u32) -> Process {
        let (threads, peak_kib) = (0, 0);
        Process {
            id,
            threads,
            peak_kib,
        }
    }

    /// Measures again. The kernel keeps the peak of memory by itself, but not of threads.
    fn measure(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let number = |key| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            value.split_whitespace().next()?.parse().ok()
        };
        self.threads = self.threads.max(number("Threads:").unwrap_or(0));
        self.peak_kib = self.peak_kib.max(number("VmHWM:").unwrap_or(0));
    }

    fn text(&self) -> String {
        let (threads, mib) = (self.threads, self.peak_kib / 1024);
        format!("{threads} OS threads, {mib} MiB at its peak")
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> String {
    let rank = (sorted.len() * percent).div_ceil(100);
    let latency = sorted.get(rank.saturating_sub(1));
    latency.map_or("-".into(), |latency| format!("{latency:.1?}"))
}

// The options.

struct Options {
    serve: Option<SocketAddr>,
    connect: Vec<SocketAddr>,
    server_pid: Option<u32>,
    load: Load,
    workers: Option<usize>,
}

#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    messages: usize,
    size: usize,
}

impl Options {
    /// The options, or `None` if help was asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let (connections, messages, size) = (10_000, 5, 64);
        let mut options = Options {
            serve: None,
            connect: Vec::new(),
            server_pid: None,
            load: Load {
                connections,
                messages,
                size,
            },
            workers: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            let mut number = |max| parse_number(&name, &value()?, max);
            let load = &mut options.load;
            match name.as_str() {
                "--serve" => options.serve = Some(parse_address(&name, &value()?)?),
                "--connect" => {
                    for server in value()?.split(',') {
                        options.connect.push(parse_address(&name, server)?);
                    }
                }
                "--server-pid" => options.server_pid = Some(number(1 << 22)? as u32),
                "--connections" => load.connections = number(1_000_000)?,
                "--messages" => load.messages = number(1_000_000)?,
                "--size" => load.size = number(MAX_SIZE)?,
                "--workers" => options.workers = Some(number(1_000)?),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument '{name}'")),
            }
        }
        if options.serve.is_some() && !options.connect.is_empty() {
            return Err("--serve and --connect exclude each other".into());
        }
        Ok(Some(options))
    }
}

fn parse_address(name: &str, value: &str) -> Result<SocketAddr, String> {
    match value.parse::<SocketAddr>() {
        // A server may leave the choice of the port to the system.
        Ok(address) if address.port() != 0 || name == "--serve" => Ok(address),
        _ => Err(format!(
            "{name}: '{value}' is not an address like 127.0.0.1:7000"
        )),
    }
}

fn parse_number(name: &str, value: &str, max: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{name}: '{value}' is not a number from 1 to {max}")),
    }
}
