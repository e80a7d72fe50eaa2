//! An echo server and ten thousand clients, all connected at once, in the code one would write for
//! ten of them: a thread for each connection, on either side, that reads and writes and blocks.
//!
//! ```text
//! $ cargo run --release --example echo
//! TABLE
//! ok: 10000 connections, 50000 messages, 0 errors, 4 OS threads
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

#![allow(clippy::print_stdout)]

// All there is to change: below this line `spawn` makes a coroutine, and what blocks parks it.
use greenroom::shims as std;

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::thread::{self, Thread};
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

/// The server listens on 127.0.0.1, .2, .3 and so on: for each of them a client has some 28,000
/// ports of its own, and each has a backlog.
const LISTENERS: u8 = 4;

/// How many connections may be opening, so that they fit in any server's backlog.
const OPENING_AT_ONCE: usize = 64;

const CONNECT_ATTEMPTS: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than a connection can take to fail by itself, so as to speak up only when none can.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest message: a client reads only when it has written all of one, and in between the
/// socket buffers have to hold it.
const MAX_SIZE: usize = 64 * 1024;

/// What a process opens besides its connections: standard streams, listeners, the runtime's own.
const SPARE_DESCRIPTORS: usize = 64;

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
    let limit = raise_descriptor_limit().map_err(|e| format!("descriptor limit: {e}"))?;
    let most = limit.saturating_sub(SPARE_DESCRIPTORS).max(1);
    if options.load.connections > most && !matches!(options.role, Role::Server(_)) {
        eprintln!("only {most} connections: a process may have no more than {limit} descriptors");
        options.load.connections = most;
    }

    let runtime = match options.workers {
        Some(workers) => RuntimeBuilder::new().workers(workers).build(),
        None => RuntimeBuilder::new().build(),
    };
    let runtime = runtime.map_err(|e| format!("cannot start the runtime: {e}"))?;
    runtime.run(move || match &options.role {
        Role::Both => serve_own_client(&options),
        Role::Server(address) => serve_anyone(*address),
        Role::Client(servers) => Ok(talk_to(servers, &options).print()),
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
    // A child process blocks who waits for it, so a thread from the pool does.
    let status = greenroom::unblock(move || client.wait())
        .map_err(|e| format!("cannot wait for the client process: {e}"))?;

    // It prints the outcome itself, if it gets there.
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(1) => Ok(ExitCode::FAILURE),
        _ => {
            println!("failed: the client process died: {status}");
            Ok(ExitCode::FAILURE)
        }
    }
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

/// Listens, and finds out the port if `address` leaves the choice to the system.
fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
        .map_err(|e| format!("cannot listen on {address}: {e}"))
}

fn serve(listener: &TcpListener) -> ! {
    loop {
        match listener.accept() {
            // What ends a connection early is its client's to report.
            Ok((stream, _)) => drop(thread::spawn(move || echo(stream))),
            // Mostly descriptors that have run out, which they do until connections close.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    // The last part of a long message must not wait until the client acknowledges the part before.
    stream.set_nodelay(true)?;
    // Small enough for the stack of a connection that waits in `read` to take one page.
    let mut buffer = [0; 512];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

// The client.

/// Opens all connections, has all of them talk at once, and tells how that went.
fn talk_to(servers: &[SocketAddr], options: &Options) -> Report {
    let load = options.load;
    let crowd = Arc::new(Crowd {
        opened: AtomicUsize::new(0),
        echoed: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        may_talk: AtomicBool::new(false),
        organiser: thread::current(),
    });
    let mut watch = Watch::new(&crowd, options);

    let mut connections = Vec::with_capacity(load.connections);
    for (number, &server) in (1..=load.connections).zip(servers.iter().cycle()) {
        watch.until(|| connections.len() < crowd.opened_or_failed() + OPENING_AT_ONCE);
        // One lost connection fails the run: a server that is not there need not be asked ten
        // thousand times.
        if watch.stalled || crowd.ended.load(Relaxed) > 0 {
            break;
        }
        let crowd = Arc::clone(&crowd);
        connections.push(thread::spawn(move || {
            let latencies = connection(number, server, load, &crowd);
            crowd.ended.fetch_add(1, Relaxed);
            crowd.organiser.unpark();
            latencies
        }));
    }
    watch.until(|| crowd.opened_or_failed() == connections.len());
    watch.look();

    let start = Instant::now();
    crowd.may_talk.store(true, Release);
    for connection in &connections {
        connection.thread().unpark();
    }
    watch.until(|| crowd.ended.load(Relaxed) == connections.len());
    let elapsed = start.elapsed();
    watch.look();
    show("");

    let mut errors = Vec::new();
    if watch.stalled {
        errors.push(format!(
            "nothing moved for {STALL_TIMEOUT:?}: {}",
            watch.progress()
        ));
    }
    let mut latencies = Vec::new();
    for (number, connection) in (1..).zip(connections) {
        if watch.stalled && !connection.is_finished() {
            errors.push(format!("connection {number}: still not done"));
            continue;
        }
        match connection.join() {
            Ok(Ok(own)) => latencies.extend(own),
            Ok(Err(why)) => errors.push(format!("connection {number}, {why}")),
            Err(_) => errors.push(format!("connection {number}: panicked")),
        }
    }
    latencies.sort_unstable();

    Report {
        load,
        server: watch.server,
        client: watch.client,
        connections: crowd.opened.load(Relaxed),
        messages: crowd.echoed.load(Relaxed),
        errors,
        elapsed,
        latencies,
    }
}

/// One connection from end to end; its messages' latencies, or what went wrong and when.
fn connection(
    number: usize,
    server: SocketAddr,
    load: Load,
    crowd: &Crowd,
) -> Result<Vec<Duration>, String> {
    let mut stream = open(server).map_err(|why| format!("opening: {why}"))?;
    crowd.opened.fetch_add(1, Relaxed);
    crowd.organiser.unpark();
    while !crowd.may_talk.load(Acquire) {
        thread::park();
    }

    let mut latencies = Vec::with_capacity(load.messages);
    for message in 1..=load.messages {
        // No two messages are alike, so that another one's echo is found out too.
        let text = format!("{number}.{message} ");
        let content: Vec<u8> = text.bytes().cycle().take(load.size).collect();
        let sent = Instant::now();
        exchange(&mut stream, &content).map_err(|why| format!("message {message}: {why}"))?;
        latencies.push(sent.elapsed());
        crowd.echoed.fetch_add(1, Relaxed);
    }

    close(stream).map_err(|why| format!("closing: {why}"))?;
    Ok(latencies)
}

/// Connects, and has one byte echoed: what is connected here may sit in the backlog there, but the
/// byte comes back only once a thread of the server has the connection.
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

/// Lets the server close first, which shows whether it sends more than it was sent.
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
        // A socket whose timeout has passed says the former, a connect the latter.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer".into(),
        _ => error.to_string(),
    }
}

/// What the connections and their organiser, the client's first thread, tell each other.
struct Crowd {
    /// Connections that were opened, be they still open or not.
    opened: AtomicUsize,
    /// Messages that came back as they were sent.
    echoed: AtomicUsize,
    /// Connections that are over, be it well or not.
    ended: AtomicUsize,
    /// Set once all connections are open; each is parked until then.
    may_talk: AtomicBool,
    organiser: Thread,
}

impl Crowd {
    /// While none may talk, those that ended are those that could not be opened.
    fn opened_or_failed(&self) -> usize {
        self.opened.load(Relaxed) + self.ended.load(Relaxed)
    }
}

/// The organiser's watch over the crowd: it shows the progress, and notices when there is none.
struct Watch<'a> {
    crowd: &'a Crowd,
    load: Load,
    server: Option<Footprint>,
    client: Footprint,
    looked: Instant,
    moved: Instant,
    moves: usize,
    stalled: bool,
}

impl<'a> Watch<'a> {
    fn new(crowd: &'a Crowd, options: &Options) -> Watch<'a> {
        Watch {
            crowd,
            load: options.load,
            server: options.server_pid.map(Footprint::of),
            client: Footprint::of(std::process::id() as usize),
            looked: Instant::now(),
            moved: Instant::now(),
            moves: 0,
            stalled: false,
        }
    }

    /// Parks until all is `done`, for which connections unpark it, or stalled.
    fn until(&mut self, done: impl Fn() -> bool) {
        const TICK: Duration = Duration::from_millis(100);
        while !self.stalled && !done() {
            thread::park_timeout(TICK);
            if self.looked.elapsed() >= TICK {
                self.look();
            }
        }
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        let moves = self.crowd.opened_or_failed() + self.crowd.echoed.load(Relaxed);
        if moves != self.moves {
            self.moves = moves;
            self.moved = self.looked;
        }
        self.stalled = self.moved.elapsed() >= STALL_TIMEOUT;
        self.client.update();
        if let Some(server) = &mut self.server {
            server.update();
        }
        show(&self.progress());
    }

    fn progress(&self) -> String {
        format!(
            "{} of {} connections opened, {} of {} messages echoed",
            self.crowd.opened.load(Relaxed),
            self.load.connections,
            self.crowd.echoed.load(Relaxed),
            self.load.connections * self.load.messages,
        )
    }
}

/// Shows `progress` in the place of what was shown before.
fn show(progress: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{progress}\x1b[K");
    }
}

/// The most that a process has taken so far.
struct Footprint {
    status: String,
    threads: usize,
    peak_kib: usize,
}

impl Footprint {
    fn of(pid: usize) -> Footprint {
        Footprint {
            status: format!("/proc/{pid}/status"),
            threads: 0,
            peak_kib: 0,
        }
    }

    /// Looks again: the kernel keeps the peak of memory by itself, but not that of threads.
    fn update(&mut self) {
        let status = fs::read_to_string(&self.status).unwrap_or_default();
        let number = |key| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            value.split_whitespace().next()?.parse().ok()
        };
        self.threads = self.threads.max(number("Threads:").unwrap_or(0));
        self.peak_kib = self.peak_kib.max(number("VmHWM:").unwrap_or(0));
    }
}

/// How the client fared.
struct Report {
    load: Load,
    server: Option<Footprint>,
    client: Footprint,
    connections: usize,
    messages: usize,
    errors: Vec<String>,
    elapsed: Duration,
    /// Of the connections that ended well, in ascending order.
    latencies: Vec<Duration>,
}

impl Report {
    fn print(&self) -> ExitCode {
        let row = |label: &str, value: String| println!("{label:<18} {value:>10}");
        let (connections, messages, errors) = (self.connections, self.messages, self.errors.len());
        for (name, process) in [
            ("server", self.server.as_ref()),
            ("client", Some(&self.client)),
        ] {
            let figure = |of: fn(&Footprint) -> String| process.map_or("-".into(), of);
            row(
                &format!("{name} OS threads"),
                figure(|it| it.threads.to_string()),
            );
            row(
                &format!("{name} peak memory"),
                figure(|it| format!("{} MiB", it.peak_kib / 1024)),
            );
        }
        row("connections", connections.to_string());
        row("messages", messages.to_string());
        row("errors", errors.to_string());
        row(
            "messages/s",
            format!("{:.0}", messages as f64 / self.elapsed.as_secs_f64()),
        );
        row("latency p50", format!("{:.1?}", self.latency(50)));
        row("latency p99", format!("{:.1?}", self.latency(99)));

        for error in self.errors.iter().take(ERRORS_SHOWN) {
            println!("error: {error}");
        }
        if errors > ERRORS_SHOWN {
            println!("error: and {} more", errors - ERRORS_SHOWN);
        }
        let threads = self.server.as_ref().unwrap_or(&self.client).threads;
        let outcome = format!("{errors} errors, {threads} OS threads");
        let Load {
            connections: wanted,
            messages: each,
            ..
        } = self.load;
        if errors == 0 && connections == wanted && messages == wanted * each {
            println!("ok: {connections} connections, {messages} messages, {outcome}");
            return ExitCode::SUCCESS;
        }
        let total = wanted * each;
        println!(
            "failed: {connections} of {wanted} connections, {messages} of {total} messages, {outcome}"
        );
        ExitCode::FAILURE
    }

    fn latency(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }
}

// The options.

struct Options {
    role: Role,
    load: Load,
    workers: Option<usize>,
    server_pid: Option<usize>,
}

enum Role {
    Both,
    Server(SocketAddr),
    Client(Vec<SocketAddr>),
}

#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    messages: usize,
    size: usize,
}

impl Options {
    /// The options, or none if help is what is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let (mut serve, mut connect) = (None, None);
        let (mut workers, mut server_pid) = (None, None);
        let mut load = Load {
            connections: 10_000,
            messages: 5,
            size: 64,
        };
        while let Some(name) = arguments.next() {
            if matches!(name.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{name} needs a value"))
            };
            match name.as_str() {
                "--serve" => serve = Some(parse_address(&name, &value()?)?),
                "--connect" => {
                    let servers = value()?;
                    let servers = servers
                        .split(',')
                        .map(|server| parse_address(&name, server));
                    connect = Some(servers.collect::<Result<_, _>>()?);
                }
                "--connections" => load.connections = parse_number(&name, &value()?, 1_000_000)?,
                "--messages" => load.messages = parse_number(&name, &value()?, 1_000_000)?,
                "--size" => load.size = parse_number(&name, &value()?, MAX_SIZE)?,
                "--workers" => workers = Some(parse_number(&name, &value()?, 1_000)?),
                "--server-pid" => server_pid = Some(parse_number(&name, &value()?, 1 << 22)?),
                _ => return Err(format!("unknown argument '{name}'")),
            }
        }
        let role = match (serve, connect) {
            (None, None) => Role::Both,
            (Some(address), None) => Role::Server(address),
            (None, Some(servers)) => Role::Client(servers),
            (Some(_), Some(_)) => return Err("--serve and --connect exclude each other".into()),
        };
        Ok(Some(Options {
            role,
            load,
            workers,
            server_pid,
        }))
    }
}

fn parse_address(name: &str, value: &str) -> Result<SocketAddr, String> {
    match value.parse::<SocketAddr>() {
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

/// Lets this process, and its children, open as many descriptors as they may; returns how many.
fn raise_descriptor_limit() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes to `limit`, which is a valid `rlimit`, and keeps no pointer to it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: the call reads `raised`, which is a valid `rlimit`, and keeps no pointer to it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}
