//! The same work on greenroom and on its peers: tokio, may, std threads and, for TCP, a
//! hand-written loop on mio.
//!
//! One run interleaves the peers' rounds, because on a shared machine only the ratios of
//! neighbouring rounds mean something. Each round has its own process, because runtimes leave
//! threads, memory and settings behind.

mod channels;
mod child;
mod database;
mod files;
mod foreign_wakes;
mod http;
mod idle;
mod interrupts;
mod load;
mod locks;
mod peers;
mod ping_pong;
mod program;
mod proxy;
mod rounds;
mod selects;
mod server;
mod sleeps;
mod spawns;
mod stats;
mod usage;
mod works;
mod yields;

use std::io;
use std::process::ExitCode;

use load::Load;
use peers::Peer;
use program::Program;
use works::{Kind, WORKS, Work};

const HELP: &str = "\
The same work on greenroom and its peers, interleaved, and how they compare.

Usage: greenroom-peers [OPTION...]

  --work NAME    this work only; may be repeated  [default: all]
  --rounds N     of each peer, in turn            [default: 11]
  --strace       instead of times, count the system calls of the TCP servers,
                 by `strace -c -f`
  --list         print the names of the works
  --help         print this

One peer alone, for profilers:

  --round WORK PEER               one round in this process; prints its figures
  --serve WORK PEER               the server of a TCP work; prints its address,
                                  ends with its standard input
  --load WORK ADDRESS [MESSAGES]  the client; prints \"ready\", waits for a line,
                                  prints the time in ns and the p99 in µs,
                                  ends with its standard input
  --counterpart WORK              the program of a program- work, on tokio

The peers are greenroom, tokio (its current-thread runtime), tokio-mt (its
multi-thread runtime), may, threads (std's, of which no work has more than
1,000) and mio (a loop written by hand; TCP only). Each has one worker, or two
where the work says so; the threads share as many CPUs. A ratio is the median
of those of the rounds. Below 1, greenroom takes less.

The program- works run an ordinary program, benches/peers/program, which they
build with cargo: on std for threads, and by `cargo greenroom` for greenroom. It
has all CPUs and as many threads as it wants. program-serve needs a limit of
10,100 descriptors (ulimit -n), and has fewer connections if it is lower.

The status is 0, or 1 if a peer failed, or 2 if the arguments are wrong.
";

/// A child process ends itself after this many seconds, even if its parent has not stopped it.
const CHILD_LIFETIME: u32 = 100;

enum Command {
    Help,
    List,
    Compare(Vec<&'static Work>, usize),
    Trace(Vec<&'static Work>),
    Round(fn(Peer) -> Vec<f64>, Peer),
    Serve(Load, Peer),
    Load(Load, std::net::SocketAddr),
    Counterpart(Program),
}

fn main() -> ExitCode {
    let command = match parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("greenroom-peers: {message} (see --help)");
            return ExitCode::from(2);
        }
    };
    match execute(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("greenroom-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut works = Vec::new();
    let mut rounds = None;
    let mut strace = false;
    while let Some(arg) = args.next() {
        let mut value = |what: &str| args.next().ok_or(format!("{arg} needs {what}"));
        let command = match arg.as_str() {
            "--help" | "-h" => Command::Help,
            "--list" => Command::List,
            "--work" => {
                works.push(work(&value("the name of a work")?)?);
                continue;
            }
            "--rounds" => {
                let value = value("a number")?;
                match value.parse() {
                    Ok(number @ 1..=1_000) => rounds = Some(number),
                    _ => return Err(format!("--rounds {value:?} is no number of 1 to 1000")),
                }
                continue;
            }
            "--strace" => {
                strace = true;
                continue;
            }
            "--round" => match work(&value("a work and a peer")?)? {
                work @ &Work {
                    kind: Kind::Alone(run),
                    ..
                } => Command::Round(run, peer(work, &value("a peer")?)?),
                work => return Err(format!("{} takes --serve and --load", work.name)),
            },
            "--serve" => {
                let work = work(&value("a work and a peer")?)?;
                Command::Serve(tcp(work)?, peer(work, &value("a peer")?)?)
            }
            "--load" => {
                let mut load = load(work(&value("a work and an address")?)?)?;
                let addr = value("an address")?;
                let addr = addr
                    .parse()
                    .map_err(|_| format!("{addr:?} is no address"))?;
                if let Some(messages) = args.next() {
                    load.messages = match messages.parse() {
                        Ok(number) if number > 0 => number,
                        _ => return Err(format!("{messages:?} is no number of messages")),
                    };
                }
                Command::Load(load, addr)
            }
            "--counterpart" => {
                let work = work(&value("a work")?)?;
                match work.kind {
                    Kind::Program(program) => Command::Counterpart(program),
                    _ => return Err(format!("{} is not a work of the program", work.name)),
                }
            }
            _ => return Err(format!("there is no option {arg:?}")),
        };
        return match args.next() {
            None => Ok(command),
            Some(more) => Err(format!("{more:?} is too much after {arg}")),
        };
    }
    if strace {
        if rounds.is_some() {
            return Err("--strace counts once: it takes no --rounds".into());
        }
        if works.is_empty() {
            works.extend(WORKS.iter().filter(|work| tcp(work).is_ok()));
        }
        for work in &works {
            tcp(work)?;
        }
        return Ok(Command::Trace(works));
    }
    if works.is_empty() {
        works.extend(WORKS);
    }
    Ok(Command::Compare(works, rounds.unwrap_or(11)))
}

fn work(name: &str) -> Result<&'static Work, String> {
    works::by_name(name).ok_or(format!("there is no work {name:?}: see --list"))
}

fn tcp(work: &Work) -> Result<Load, String> {
    match work.kind {
        Kind::Tcp(load) => Ok(load),
        Kind::Alone(_) | Kind::Program(_) => Err(format!("{} is not a TCP work", work.name)),
    }
}

/// The load of a work with a client.
fn load(work: &Work) -> Result<Load, String> {
    match work.kind {
        Kind::Program(Program::Serve(load)) => Ok(load.fitting()),
        _ => tcp(work),
    }
}

fn peer(work: &Work, name: &str) -> Result<Peer, String> {
    Peer::from_name(name)
        .filter(|peer| work.peers.contains(peer))
        .ok_or(format!("{} has no peer {name:?}", work.name))
}

fn execute(command: Command) -> io::Result<bool> {
    raise_descriptor_limit()?;
    let mut all = true;
    match command {
        Command::Help => print!("{HELP}"),
        Command::List => {
            for work in WORKS {
                println!("{:21} {}", work.name, work.about);
            }
        }
        Command::Compare(works, rounds) => {
            for work in works {
                all &= rounds::compare(work, rounds)?;
            }
        }
        Command::Trace(works) => {
            for work in works {
                let load = tcp(work).map_err(io::Error::other)?;
                all &= rounds::trace(work, load)?;
            }
        }
        Command::Round(run, peer) => {
            limit_lifetime();
            let figures: Vec<String> = run(peer).iter().map(f64::to_string).collect();
            println!("{}", figures.join(" "));
        }
        Command::Serve(load, peer) => {
            limit_lifetime();
            match load {
                Load { proxied: true, .. } => proxy::serve(peer)?,
                Load { requests: 1.., .. } => http::serve(peer)?,
                _ => server::serve(peer, load.once)?,
            }
        }
        Command::Load(load, addr) => {
            limit_lifetime();
            load::run(addr, load)?;
        }
        Command::Counterpart(program) => {
            limit_lifetime();
            program::counterpart(program)?;
        }
    }
    Ok(all)
}

fn limit_lifetime() {
    // SAFETY: `alarm` only sets a timer. `SIGALRM` has no handler, so the signal ends the process.
    unsafe { libc::alarm(CHILD_LIFETIME) };
}

/// Raises the soft limit on descriptors to the hard limit. Thousands of connections need more
/// descriptors than many shells allow.
fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to `limit`, a valid `rlimit` that outlives them.
    let status = unsafe {
        match libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) {
            0 => {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
            }
            status => status,
        }
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
