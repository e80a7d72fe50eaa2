//! Everything at once, for a long time, and then nothing may be left: descriptors, memory, OS
//! threads and coroutines are back where they were after a first, short round.
//!
//! ```text
//! $ cargo run --release --example soak -- --seconds 60 --workers 4
//! ok: 60 seconds, 246155 connections, 1142208 messages, 22 descriptors, 13292 KiB (+1800)
//! ```
//!
//! The load is a crowd of coroutines, each of which does one thing after another: see `DEEDS`.
//! Each checks what comes out.

use greenroom::shims as std;

use ::std::cell::Cell;
use ::std::fs;
use ::std::hint::black_box;
use ::std::net::Ipv4Addr;
use ::std::ops::RangeInclusive;
use ::std::os::fd::{AsFd, OwnedFd};
use ::std::panic::{panic_any, set_hook, take_hook};
use ::std::process::ExitCode;
use ::std::rc::Rc;
use ::std::sync::Arc;
use ::std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use greenroom::{Builder, RuntimeBuilder, Unparker};

const HELP: &str = "\
A mixed load for a long time, after which nothing may be left.

Usage: soak [OPTION...]

  --seconds N   how long the load is kept up     [default: 600]
  --workers N   OS threads that run coroutines   [default: greenroom's]
  --crowd N     coroutines that make the load    [default: 100]
  --help        print this

Afterwards there may be no more descriptors, OS threads and coroutines than
after a warm-up of 5 seconds, and no more than 4 MiB more of memory.

The status is 0 if all went well and nothing was left, 1 if not, and 2 if the
arguments are wrong.
";

/// The server listens on 127.0.0.1, .2, .3 and so on. For each address the clients have ports of their
/// own.
const LISTENERS: u8 = 4;

/// How long the first round takes. The footprint is measured after it.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long caches may take to be given back: stacks after one second of idleness, threads of the pool
/// after five.
const SETTLING: Duration = Duration::from_secs(10);

/// How much memory may have grown, because allocators keep fragmented memory.
const TOLERANCE_KIB: usize = 4 << 10;

/// Longer than anything here takes, so only what hangs is given up.
const PATIENCE: Duration = Duration::from_secs(30);

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
    silence_planned_panics();
    let mut builder = RuntimeBuilder::new();
    if let Some(workers) = options.workers {
        builder = builder.workers(workers);
    }
    let outcome = builder
        .build()
        .map_err(|error| format!("no runtime: {error}"))
        .and_then(|runtime| runtime.run(|| soak(&options)));
    match outcome {
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

fn soak(options: &Options) -> Result<String, String> {
    let totals = Arc::new(Totals::default());
    let round = |time| {
        let watch = Watch::new(time + 2 * PATIENCE);
        load(time, options.crowd, &totals)?;
        // All other coroutines end. If not, the watch ends the process.
        greenroom::wait_idle();
        drop(watch);
        Ok::<_, String>(())
    };
    let warm_up = WARM_UP.min(options.time / 2);
    round(warm_up)?;
    let mut before = Footprint::now();
    before.settle(|_| false);

    round(options.time - warm_up)?;
    let mut after = Footprint::now();
    after.settle(|now| now.exceeds(&before).is_none());
    if let Some(why) = after.exceeds(&before) {
        return Err(format!("left behind: {why}"));
    }
    Ok(format!(
        "{} seconds, {} connections, {} messages, {} descriptors, {} KiB ({:+})",
        options.time.as_secs(),
        totals.connections.load(Relaxed),
        totals.messages.load(Relaxed),
        after.descriptors,
        after.resident_kib,
        after.resident_kib.cast_signed() - before.resident_kib.cast_signed(),
    ))
}

/// One round: a server, and a crowd that is busy for `time`.
fn load(time: Duration, crowd: usize, totals: &Arc<Totals>) -> Result<(), String> {
    let server = Server::start().map_err(|error| format!("the server: {error}"))?;
    let end = Instant::now() + time;
    let failed = Arc::new(AtomicBool::new(false));
    let crowd: Vec<JoinHandle<Result<(), String>>> = (0..crowd as u64)
        .map(|number| {
            let mut member = Member {
                server: server.addresses,
                chance: Chance::new(number),
                totals: Arc::clone(totals),
            };
            let failed = Arc::clone(&failed);
            thread::spawn(move || {
                while Instant::now() < end && !failed.load(Relaxed) {
                    let (name, deed) = DEEDS[member.chance.below(DEEDS.len())];
                    if let Err(why) = deed(&mut member) {
                        failed.store(true, Relaxed);
                        return Err(format!("{name}: {why}"));
                    }
                    member.totals.deeds.fetch_add(1, Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let mut outcome = Ok(());
    for member in crowd {
        let result = member
            .join()
            .unwrap_or_else(|_| Err("a member of the crowd panicked".into()));
        outcome = outcome.and(result);
    }
    server
        .stop()
        .map_err(|error| format!("the server: {error}"))?;
    outcome
}

// What the crowd does.

type Deed = fn(&mut Member) -> Result<(), String>;

const DEEDS: [(&str, Deed); 22] = [
    ("echo", echo),
    ("echo", echo),
    ("large echo", large_echo),
    ("short connection", short_connection),
    ("short connection", short_connection),
    ("half close", half_close),
    ("reset by the client", reset_by_the_client),
    ("reset by the server", reset_by_the_server),
    ("refused connection", refused_connection),
    ("lines", lines),
    ("datagrams", datagrams),
    ("read timeout that passes", timeout_that_passes),
    ("read timeout that does not", timeout_that_does_not),
    ("sleeps", sleeps),
    ("tree of coroutines", tree),
    ("panics", panics),
    ("scope", scope),
    ("local coroutines", local),
    ("calls of the pool", pool),
    ("unparks from an OS thread", unparks),
    ("deep recursion", recursion),
    ("stacks of all sizes", stacks),
];

/// A member of the crowd.
struct Member {
    server: [SocketAddr; LISTENERS as usize],
    chance: Chance,
    totals: Arc<Totals>,
}

#[derive(Default)]
struct Totals {
    connections: AtomicU64,
    messages: AtomicU64,
    deeds: AtomicU64,
}

impl Member {
    /// A connection whose other end does `service`.
    fn connect(&mut self, service: u8) -> Result<TcpStream, String> {
        let address = self.server[self.chance.below(self.server.len())];
        let stream = TcpStream::connect_timeout(&address, PATIENCE);
        let mut stream = stream.map_err(|error| format!("connecting: {error}"))?;
        let prepare = |stream: &mut TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(&[service])
        };
        prepare(&mut stream).map_err(|error| format!("opening: {error}"))?;
        self.totals.connections.fetch_add(1, Relaxed);
        Ok(stream)
    }

    fn note_message(&self) {
        self.totals.messages.fetch_add(1, Relaxed);
    }
}

fn echo(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(ECHO)?;
    for _ in 0..member.chance.below(20) {
        let most = [10, 1_000, 20_000][member.chance.below(3)];
        let content = member.chance.bytes(1..=most);
        stream.write_all(&content).map_err(text)?;
        let mut reply = vec![0; content.len()];
        stream.read_exact(&mut reply).map_err(text)?;
        check(reply == content, "the reply differs")?;
        member.note_message();
    }
    Ok(())
}

/// More than the socket buffers hold, so it has to be written and read at once.
fn large_echo(member: &mut Member) -> Result<(), String> {
    let stream = member.connect(ECHO)?;
    let content = member.chance.bytes(100_000..=500_000);
    let mut reply = vec![0; content.len()];
    thread::scope(|s| {
        let writer = s.spawn(|| {
            (&stream).write_all(&content)?;
            stream.shutdown(Shutdown::Write)
        });
        (&stream).read_exact(&mut reply).map_err(text)?;
        check(
            (&stream).read(&mut [0]).map_err(text)? == 0,
            "there is more",
        )?;
        writer
            .join()
            .map_err(|_| "the writer panicked")?
            .map_err(text)
    })?;
    check(reply == content, "the reply differs")?;
    member.note_message();
    Ok(())
}

fn short_connection(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(ECHO)?;
    let byte = member.chance.bytes(1..=1);
    stream.write_all(&byte).map_err(text)?;
    let mut reply = [0];
    stream.read_exact(&mut reply).map_err(text)?;
    check(reply[..] == byte, "the reply differs")?;
    member.note_message();
    Ok(())
}

fn half_close(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(ECHO)?;
    let content = member.chance.bytes(0..=30_000);
    stream.write_all(&content).map_err(text)?;
    stream.shutdown(Shutdown::Write).map_err(text)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).map_err(text)?;
    check(reply == content, "the reply differs")?;
    member.note_message();
    Ok(())
}

/// Resets while the reply is on its way, or the server is about to read or to write.
fn reset_by_the_client(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(ECHO)?;
    let content = member.chance.bytes(1..=10_000);
    stream.write_all(&content).map_err(text)?;
    if member.chance.below(2) == 0 {
        thread::sleep(member.chance.moment(2));
    }
    reset_on_close(&stream).map_err(text)
}

fn reset_by_the_server(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(RESET)?;
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("reading gives {other:?}")),
    }
}

fn refused_connection(_: &mut Member) -> Result<(), String> {
    let port = closed_port().map_err(|error| format!("a closed port: {error}"))?;
    match TcpStream::connect(port.1) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("connecting gives {other:?}")),
    }
}

fn lines(member: &mut Member) -> Result<(), String> {
    let mut file = member.connect(ECHO)?.makefile();
    let count = member.chance.below(50);
    for number in 0..count {
        writeln!(file, "line {number}").map_err(text)?;
    }
    file.flush().map_err(text)?;
    let mut line = String::new();
    for number in 0..count {
        line.clear();
        file.read_line(&mut line).map_err(text)?;
        check(
            line == format!("line {number}\n"),
            "another line comes back",
        )?;
        member.note_message();
    }
    Ok(())
}

/// Datagrams are lost if buffers are full. Then they are sent again.
fn datagrams(member: &mut Member) -> Result<(), String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(text)?;
    socket.connect(member.server[0]).map_err(text)?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .map_err(text)?;
    for _ in 0..5 {
        let content = member.chance.bytes(8..=1_000);
        let mut reply = [0; 2_000];
        let mut attempts = 0;
        loop {
            socket.send(&content).map_err(text)?;
            match socket.recv(&mut reply) {
                // A late datagram is the reply to an earlier one.
                Ok(length) if reply[..length] == content => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => attempts += 1,
                Err(error) => return Err(text(error)),
            }
            check(attempts < 20, "no reply")?;
        }
        member.note_message();
    }
    Ok(())
}

fn timeout_that_passes(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(SILENCE)?;
    let timeout = member.chance.moment(10);
    stream.set_read_timeout(Some(timeout)).map_err(text)?;
    let start = Instant::now();
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => return Err(format!("reading gives {other:?}")),
    }
    check(start.elapsed() >= timeout, "it passed early")
}

fn timeout_that_does_not(member: &mut Member) -> Result<(), String> {
    let mut stream = member.connect(DELAY)?;
    for _ in 0..3 {
        stream.write_all(b"?").map_err(text)?;
        stream.read_exact(&mut [0]).map_err(text)?;
        member.note_message();
    }
    Ok(())
}

fn sleeps(member: &mut Member) -> Result<(), String> {
    for _ in 0..5 {
        let time = member.chance.moment(5);
        let start = Instant::now();
        thread::sleep(time);
        check(start.elapsed() >= time, "it woke early")?;
        check(!greenroom::park_timeout(time), "somebody unparked it")?;
    }
    Ok(())
}

fn tree(_: &mut Member) -> Result<(), String> {
    fn grow(height: u32) -> u32 {
        if height == 0 {
            return 1;
        }
        let branches = [(); 3].map(|()| thread::spawn(move || grow(height - 1)));
        thread::yield_now();
        branches
            .into_iter()
            .map(|branch| branch.join().unwrap())
            .sum()
    }
    check(grow(4) == 81, "leaves are missing")
}

/// The payload of panics that are part of the load.
struct Planned(u64);

fn silence_planned_panics() {
    let default = take_hook();
    set_hook(Box::new(move |info| {
        if !info.payload().is::<Planned>() {
            default(info);
        }
    }));
}

fn panics(member: &mut Member) -> Result<(), String> {
    struct Sleeps(Duration);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            thread::sleep(self.0);
        }
    }
    let number = member.chance.next();
    let time = Duration::from_micros(member.chance.below(200) as u64);
    let stream = member.connect(ECHO)?;
    let child = thread::spawn(move || {
        let _stream = stream;
        let _sleeps = Sleeps(time);
        let shared = Rc::new(Cell::new(number));
        thread::yield_now();
        panic_any(Planned(shared.get()));
    });
    let detached = thread::spawn(|| panic_any(Planned(0)));
    drop(detached);
    match child
        .join()
        .map_err(|payload| payload.downcast::<Planned>())
    {
        Err(Ok(planned)) if planned.0 == number => Ok(()),
        _ => Err("another result came out".into()),
    }
}

fn scope(member: &mut Member) -> Result<(), String> {
    let numbers = member.chance.bytes(1_000..=1_000);
    let sum = |part: &[u8]| part.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    let mut halves = [0; 2];
    thread::scope(|s| {
        for (half, part) in halves.iter_mut().zip(numbers.chunks(500)) {
            s.spawn(move || {
                thread::sleep(Duration::from_micros(100));
                *half = sum(part);
            });
        }
    });
    check(halves[0] + halves[1] == sum(&numbers), "the sum is wrong")
}

fn local(_: &mut Member) -> Result<(), String> {
    let count = Rc::new(Cell::new(0));
    let children = [(); 10].map(|()| {
        let count = Rc::clone(&count);
        greenroom::spawn_local(move || {
            thread::yield_now();
            count.set(count.get() + 1);
        })
    });
    for child in children {
        child.join().map_err(|_| "a child panicked")?;
    }
    check(
        count.get() == 10 && Rc::strong_count(&count) == 1,
        "the count is wrong",
    )
}

fn pool(member: &mut Member) -> Result<(), String> {
    let number = member.chance.next();
    let result = greenroom::unblock(move || {
        ::std::thread::sleep(Duration::from_micros(number % 500));
        number
    });
    check(result == number, "another result came out")?;
    let payload =
        thread::spawn(move || greenroom::unblock(move || panic_any(Planned(number)))).join();
    match payload.map_err(|payload| payload.downcast::<Planned>()) {
        Err(Ok(planned)) if planned.0 == number => Ok(()),
        _ => Err("another payload came out".into()),
    }
}

fn unparks(_: &mut Member) -> Result<(), String> {
    const ROUNDS: usize = 20;
    let own = Unparker::current();
    let turn = Arc::new(AtomicUsize::new(0));
    let others = Arc::clone(&turn);
    let os_thread = ::std::thread::spawn(move || {
        for round in 0..ROUNDS {
            while others.load(Acquire) < 2 * round {
                ::std::thread::park_timeout(PATIENCE);
            }
            others.store(2 * round + 1, Release);
            own.unpark();
        }
    });
    for round in 0..ROUNDS {
        while turn.load(Acquire) < 2 * round + 1 {
            check(greenroom::park_timeout(PATIENCE), "an unpark was lost")?;
        }
        turn.store(2 * round + 2, Release);
        os_thread.thread().unpark();
    }
    let joined = greenroom::unblock(move || os_thread.join().is_ok());
    // The last unpark may have come after its round was over.
    greenroom::park_timeout(Duration::ZERO);
    check(joined, "the OS thread panicked")
}

fn recursion(member: &mut Member) -> Result<(), String> {
    fn descend(depth: usize) -> usize {
        let frame = black_box([depth; 64]);
        match depth {
            0 => {
                // Other coroutines run while the whole recursion is on the stack.
                thread::yield_now();
                0
            }
            _ => descend(depth - 1) + frame[depth % 64] / depth,
        }
    }
    // Rarely, because it touches half a megabyte.
    if member.chance.below(10) > 0 {
        return Ok(());
    }
    let deep = Builder::new().stack_size(2 << 20).spawn(|| descend(1_000));
    let depth = deep.map_err(text)?.join();
    check(
        depth.is_ok_and(|depth| depth == 1_000),
        "it did not come back",
    )
}

fn stacks(_: &mut Member) -> Result<(), String> {
    let sizes = [16, 64, 100, 256, 512, 1024, 4096];
    let crowd = sizes.map(|kib| {
        let builder = Builder::new().stack_size(kib << 10);
        builder.spawn(move || {
            thread::sleep(Duration::from_micros(kib as u64 % 100));
            kib
        })
    });
    for (coroutine, kib) in crowd.into_iter().zip(sizes) {
        let result = coroutine.map_err(text)?.join();
        check(
            result.is_ok_and(|own| own == kib),
            "another result came out",
        )?;
    }
    Ok(())
}

fn check(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(
        socket,
        Some(Duration::ZERO),
    )?)
}

/// A port on which nobody listens, as long as the descriptor is open.
fn closed_port() -> io::Result<(OwnedFd, SocketAddr)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
    let cloexec = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, cloexec, None)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = getsockname(&socket)?.try_into()?;
    Ok((socket, address))
}

/// Pseudo-random numbers, the same in every run.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    /// From 1 µs to `most` milliseconds.
    fn moment(&mut self, most: usize) -> Duration {
        Duration::from_micros(1 + self.below(1_000 * most) as u64)
    }

    fn bytes(&mut self, count: RangeInclusive<usize>) -> Vec<u8> {
        let spread = count.end() - count.start() + 1;
        let count = count.start() + self.below(spread);
        (0..count).map(|_| self.next() as u8).collect()
    }
}

// The server.

/// What a connection is for: its first byte.
const ECHO: u8 = b'E';
const RESET: u8 = b'R';
const SILENCE: u8 = b'S';
const DELAY: u8 = b'D';

struct Server {
    addresses: [SocketAddr; LISTENERS as usize],
    stopping: Arc<AtomicBool>,
    acceptors: Vec<JoinHandle<io::Result<()>>>,
    datagrams: JoinHandle<io::Result<()>>,
}

impl Server {
    fn start() -> io::Result<Server> {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut acceptors = Vec::new();
        let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); LISTENERS as usize];
        for (last, address) in (1..).zip(&mut addresses) {
            let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), 0))?;
            *address = listener.local_addr()?;
            let stopping = Arc::clone(&stopping);
            acceptors.push(thread::spawn(move || accept(&listener, &stopping)));
        }
        let socket = UdpSocket::bind(addresses[0])?;
        let stops = Arc::clone(&stopping);
        let datagrams = thread::spawn(move || {
            let mut datagram = [0; 2_000];
            while !stops.load(Relaxed) {
                let (length, from) = socket.recv_from(&mut datagram)?;
                socket.send_to(&datagram[..length], from)?;
            }
            Ok(())
        });
        Ok(Server {
            addresses,
            stopping,
            acceptors,
            datagrams,
        })
    }

    fn stop(self) -> io::Result<()> {
        self.stopping.store(true, Relaxed);
        let caller = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        caller.send_to(b"stop", self.addresses[0])?;
        for address in self.addresses {
            // The server may have stopped by itself, with an error that the join returns.
            let _ = TcpStream::connect(address);
        }
        for service in self.acceptors.into_iter().chain([self.datagrams]) {
            service
                .join()
                .map_err(|_| io::Error::other("it panicked"))??;
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, stopping: &AtomicBool) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        if stopping.load(Relaxed) {
            return Ok(());
        }
        // The client checks how a conversation ends.
        thread::spawn(|| serve(stream));
    }
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut service = [0];
    let (mut reader, mut writer) = (&stream, &stream);
    reader.read_exact(&mut service)?;
    match service[0] {
        RESET => {
            thread::sleep(Duration::from_millis(1));
            reset_on_close(&stream)?;
        }
        SILENCE => {
            io::copy(&mut reader, &mut io::sink())?;
        }
        DELAY => {
            let mut byte = [0];
            while reader.read(&mut byte)? > 0 {
                thread::sleep(Duration::from_millis(1));
                writer.write_all(&byte)?;
            }
        }
        _ => {
            io::copy(&mut reader, &mut writer)?;
        }
    }
    Ok(())
}

// The measure.

/// Ends the process, unless it is dropped in time.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<::std::thread::JoinHandle<()>>,
}

impl Watch {
    fn new(patience: Duration) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = ::std::thread::spawn(move || {
            let start = Instant::now();
            while !seen.load(Acquire) {
                if start.elapsed() > patience {
                    println!("failed: some coroutine has not ended in time");
                    ::std::process::exit(1);
                }
                ::std::thread::park_timeout(patience);
            }
        });
        Watch {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread has nothing left to do, so this does not hold up the worker.
            let _ = thread.join();
        }
    }
}

/// The resources of this process.
struct Footprint {
    descriptors: usize,
    os_threads: usize,
    resident_kib: usize,
}

impl Footprint {
    fn now() -> Footprint {
        let entries = |path| fs::read_dir(path).map_or(0, Iterator::count);
        let memory = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let resident = memory.lines().find_map(|line| line.strip_prefix("Rss:"));
        Footprint {
            descriptors: entries("/proc/self/fd"),
            os_threads: entries("/proc/self/task"),
            resident_kib: resident
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
        }
    }

    /// Measures again until `enough` returns true, or until the caches have had the time to be given
    /// back.
    fn settle(&mut self, enough: impl Fn(&Footprint) -> bool) {
        let start = Instant::now();
        while start.elapsed() < SETTLING && !enough(self) {
            thread::sleep(Duration::from_millis(500));
            *self = Footprint::now();
        }
    }

    /// The first resource that has grown since `before`.
    fn exceeds(&self, before: &Footprint) -> Option<String> {
        let more = |what: &str, now: usize, before: usize, tolerance: usize| {
            (now > before + tolerance).then(|| format!("{before} {what} have become {now}"))
        };
        more("descriptors", self.descriptors, before.descriptors, 0)
            .or_else(|| more("OS threads", self.os_threads, before.os_threads, 0))
            .or_else(|| more("KiB", self.resident_kib, before.resident_kib, TOLERANCE_KIB))
    }
}

// The options.

struct Options {
    time: Duration,
    workers: Option<usize>,
    crowd: usize,
}

impl Options {
    /// The options, or `None` if help was asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            time: Duration::from_secs(600),
            workers: None,
            crowd: 100,
        };
        while let Some(name) = arguments.next() {
            let mut number = |max| match arguments.next().map(|value| value.parse::<usize>()) {
                Some(Ok(number)) if (1..=max).contains(&number) => Ok(number),
                _ => Err(format!("{name} needs a number from 1 to {max}")),
            };
            match name.as_str() {
                "--seconds" => options.time = Duration::from_secs(number(1_000_000)? as u64),
                "--workers" => options.workers = Some(number(1_000)?),
                "--crowd" => options.crowd = number(10_000)?,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument '{name}'")),
            }
        }
        Ok(Some(options))
    }
}
