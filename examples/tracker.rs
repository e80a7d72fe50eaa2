//! A thousand BitTorrent trackers, asked at once over UDP for the size of a swarm, in sequential code on one OS
//! thread. Half of them are silent, and are given up after 4 seconds.
//!
//! ```text
//! $ cargo run --example tracker
//! tracker                 seeders  completed   leechers
//! tracker-999                 999        499       1998
//! tracker-997                 997        498       1994
//! tracker-995                 995        497       1990
//! ... and 497 more
//! 500 of 1000 trackers have answered, 500 not within 4 s; this took 1 OS thread
//! ```
//!
//! The protocol is that of [BEP 15]: a tracker first gives out a number of the connection, which shows that the
//! client has the address that it claims. Given the hash of a torrent and trackers, it asks these:
//!
//! ```text
//! $ cargo run --example tracker -- HASH tracker.example.com:6969 tracker.example.org:1337
//! ```
//!
//! `--patience SECONDS` comes before these, if the trackers are to be waited for otherwise than for 4 seconds.
//!
//! [BEP 15]: https://www.bittorrent.org/beps/bep_0015.html

#[path = "util/descriptors.rs"]
mod descriptors;
#[path = "util/outcome.rs"]
mod outcome;
#[path = "util/printable.rs"]
mod printable;
#[path = "util/progress.rs"]
mod progress;

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenroom::shims::net::{ToSocketAddrs, UdpSocket};
use greenroom::{RuntimeBuilder, every, spawn, timeout};

use printable::printable;

/// How long a tracker is waited for, in seconds, unless `--patience` tells otherwise.
const PATIENCE: u64 = 4;

/// How many trackers there are in the demonstration. Every other is silent.
const TRACKERS: u32 = 1000;

const ROWS_SHOWN: usize = 3;

/// What a client sends first, by the protocol.
const MAGIC: u64 = 0x417_2710_1980;

const CONNECT: u32 = 0;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

type InfoHash = [u8; 20];

struct Tracker {
    name: String,
    /// A host and a port.
    address: String,
}

struct Swarm {
    seeders: u32,
    completed: u32,
    leechers: u32,
}

/// Asks a tracker for the size of a swarm.
fn ask(tracker: &str, torrent: InfoHash) -> io::Result<Swarm> {
    let first = tracker.to_socket_addrs()?.next();
    let tracker = first.ok_or_else(|| io::Error::other("no address"))?;
    let any = match tracker {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(tracker)?; // So that nothing comes from others, and a closed port shows at once.
    let connection = exchange(&socket, MAGIC, CONNECT, &[])?;
    let connection = u64::from_be_bytes(field(&connection, 0)?);
    let swarm = exchange(&socket, connection, SCRAPE, &torrent)?;
    let number = |at| field(&swarm, at).map(u32::from_be_bytes);
    Ok(Swarm {
        seeders: number(0)?,
        completed: number(4)?,
        leechers: number(8)?,
    })
}

/// Sends a request. Returns what its answer has behind the head.
fn exchange(socket: &UdpSocket, connection: u64, action: u32, rest: &[u8]) -> io::Result<Vec<u8>> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let transaction = NEXT.fetch_add(1, Relaxed);
    let mut request = connection.to_be_bytes().to_vec();
    request.extend(action.to_be_bytes());
    request.extend(transaction.to_be_bytes());
    request.extend(rest);
    socket.send(&request)?;
    let mut reply = [0; 2048];
    loop {
        let length = socket.recv(&mut reply)?;
        let reply = &reply[..length];
        let head = |at| field(reply, at).map(u32::from_be_bytes);
        // Anything else is the answer to another request, or none.
        if matches!(head(4), Ok(own) if own == transaction) {
            match head(0)? {
                own if own == action => return Ok(reply[8..].to_vec()),
                ERROR => {
                    let text = String::from_utf8_lossy(&reply[8..]);
                    return Err(io::Error::other(printable(&text)));
                }
                _ => {}
            }
        }
    }
}

/// The bytes of a field at this place.
fn field<const N: usize>(message: &[u8], at: usize) -> io::Result<[u8; N]> {
    let bytes = message.get(at..at + N);
    let short = || io::Error::new(ErrorKind::InvalidData, "the answer is too short");
    Ok(bytes
        .ok_or_else(short)?
        .try_into()
        .expect("it has this length"))
}

/// Asks all trackers at once, with a coroutine for each. Returns their answers in the same order.
fn ask_all(trackers: &[Tracker], torrent: InfoHash, patience: Duration) -> Vec<io::Result<Swarm>> {
    let over = Arc::new(AtomicUsize::new(0));
    let queries: Vec<_> = trackers
        .iter()
        .map(|tracker| {
            let (address, over) = (tracker.address.clone(), Arc::clone(&over));
            spawn(move || {
                let answer = timeout(patience, || ask(&address, torrent));
                over.fetch_add(1, Relaxed);
                answer.unwrap_or_else(|elapsed| Err(elapsed.into()))
            })
        })
        .collect();
    let count = queries.len();
    let told = every(Duration::from_millis(100), move |_| {
        let over = over.load(Relaxed);
        progress::show(&format!("{over} of {count} trackers are done"));
    });
    let answers = queries.into_iter().map(|query| match query.join() {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::other("the query panicked")),
    });
    let answers = answers.collect();
    drop(told);
    progress::show("");
    answers
}

/// Shows the answers, the largest swarm first.
fn show(trackers: &[Tracker], answers: Vec<io::Result<Swarm>>, most: usize, patience: Duration) {
    let row = |name: &str, cells: [&dyn fmt::Display; 3]| {
        println!(
            "{name:<20} {:>10} {:>10} {:>10}",
            cells[0], cells[1], cells[2]
        );
    };
    row("tracker", [&"seeders", &"completed", &"leechers"]);
    let (mut swarms, mut silent) = (Vec::new(), 0);
    for (Tracker { name, .. }, answer) in trackers.iter().zip(answers) {
        match answer {
            Ok(swarm) => swarms.push((name, swarm)),
            Err(error) if error.kind() == ErrorKind::TimedOut => silent += 1,
            Err(error) => println!("{name:<20} {error}"),
        }
    }
    swarms.sort_by_key(|(_, swarm)| std::cmp::Reverse(swarm.seeders));
    for (name, swarm) in swarms.iter().take(most) {
        row(name, [&swarm.seeders, &swarm.completed, &swarm.leechers]);
    }
    if swarms.len() > most {
        println!("... and {} more", swarms.len() - most);
    }
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    println!(
        "{} of {} trackers have answered, {silent} not within {} s; this took {threads} OS thread{}",
        swarms.len(),
        trackers.len(),
        patience.as_secs(),
        if threads == 1 { "" } else { "s" },
    );
}

// The demonstration.

/// Serves as a tracker. The sizes of its swarms follow from its number.
fn track(socket: &UdpSocket, number: u32) -> io::Result<()> {
    let connection = u64::from(number) << 32 | 0xbeef;
    let mut request = [0; 2048];
    loop {
        let (length, client) = socket.recv_from(&mut request)?;
        let request = &request[..length];
        let (Ok(head), Ok(action), Ok(transaction)) = (
            field::<8>(request, 0),
            field::<4>(request, 8),
            field::<4>(request, 12),
        ) else {
            continue; // Whatever it is, it is no request.
        };
        let mut reply = [action, transaction].concat();
        match (u32::from_be_bytes(action), u64::from_be_bytes(head)) {
            (CONNECT, MAGIC) => reply.extend(connection.to_be_bytes()),
            (SCRAPE, own) if own == connection => {
                for count in [number, number / 2, number * 2] {
                    reply.extend(count.to_be_bytes());
                }
            }
            _ => {
                reply[..4].copy_from_slice(&ERROR.to_be_bytes());
                reply.extend(b"connect first");
            }
        }
        socket.send_to(&reply, client)?;
    }
}

fn demonstrate(patience: Duration) -> io::Result<()> {
    let mut silent = Vec::new();
    let mut trackers = Vec::new();
    for number in 0..TRACKERS {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        trackers.push(Tracker {
            name: format!("tracker-{number}"),
            address: socket.local_addr()?.to_string(),
        });
        if number % 2 == 0 {
            silent.push(socket);
        } else {
            spawn(move || track(&socket, number));
        }
    }
    let start = Instant::now();
    let answers = ask_all(&trackers, [0; 20], patience);
    let _ = writeln!(io::stderr(), "after {:.2} s", start.elapsed().as_secs_f64());
    show(&trackers, answers, ROWS_SHOWN, patience);
    Ok(())
}

fn main() -> ExitCode {
    descriptors::raise_limit();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let runtime = RuntimeBuilder::new().workers(1).build();
    let done = runtime.and_then(|runtime| {
        let (seconds, arguments) = match &arguments[..] {
            [option, seconds, rest @ ..] if option == "--patience" => {
                (seconds.parse().map_err(io::Error::other)?, rest)
            }
            all => (PATIENCE, all),
        };
        let patience = Duration::from_secs(seconds);
        runtime.run(|| match arguments {
            [] => demonstrate(patience),
            [torrent, trackers @ ..] if !trackers.is_empty() => {
                ask_these(torrent, trackers, patience)
            }
            _ => Err(io::Error::other("no trackers")),
        })
    });
    outcome::status(
        done,
        "Usage: tracker [--patience SECONDS] [HASH HOST:PORT...]",
    )
}

fn ask_these(torrent: &str, names: &[String], patience: Duration) -> io::Result<()> {
    let torrent = parse(torrent).ok_or_else(|| io::Error::other("a hash has 40 hex digits"))?;
    let of = |name: &String| Tracker {
        name: name.clone(),
        address: name.clone(),
    };
    let trackers: Vec<_> = names.iter().map(of).collect();
    let answers = ask_all(&trackers, torrent, patience);
    show(&trackers, answers, usize::MAX, patience);
    Ok(())
}

fn parse(hash: &str) -> Option<InfoHash> {
    let mut bytes = [0; 20];
    let mut digits = hash.chars().map(|digit| digit.to_digit(16));
    for byte in &mut bytes {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(bytes)
}
