//! Runs the peers in turn, each round in a fresh process, and compares the peers.

use std::collections::BTreeMap;
use std::io;
use std::process::{self, Command};
use std::{env, fs};

use crate::child::{Process, own};
use crate::load::Load;
use crate::peers::Peer;
use crate::program;
use crate::stats::{self, Interval, median};
use crate::usage::Usage;
use crate::works::{Kind, Work};

/// Runs all rounds of a work, and prints the work's tables. Returns false if a peer failed.
pub(crate) fn compare(work: &Work, rounds: usize) -> io::Result<bool> {
    println!("{}: {}", work.name, work.about);
    if let Kind::Program(program) = work.kind {
        program.prepare()?;
    }
    // For each peer, its figures by round, or the error after which the peer is skipped.
    let mut results: Vec<Result<Vec<Vec<f64>>, String>> = vec![Ok(Vec::new()); work.peers.len()];
    for _ in 0..rounds {
        for (&peer, result) in work.peers.iter().zip(&mut results) {
            let Ok(figures) = result else { continue };
            match round(work, peer) {
                Ok(new) => figures.push(new),
                Err(error) => *result = Err(error.to_string()),
            }
        }
    }

    let (rank, confidence) = stats::rank(rounds);
    for (index, figure) in work.figures.iter().enumerate() {
        println!("  {figure}");
        println!(
            "    {:20} {:>12} {:>16}  {:.1} % interval (ranks {rank} and {} of {rounds})",
            "",
            "median",
            "greenroom/peer",
            confidence * 100.0,
            rounds + 1 - rank,
        );
        let column = |result: &Vec<Vec<f64>>| -> Vec<f64> {
            result.iter().map(|figures| figures[index]).collect()
        };
        let greenroom = results[0].as_ref().ok().map(column);
        for (&peer, result) in work.peers.iter().zip(&results) {
            let label = match peer.capped(work.tasks) {
                tasks if tasks < work.tasks => format!("{peer} (only {tasks})"),
                _ => peer.to_string(),
            };
            let column = match result {
                Ok(figures) => column(figures),
                Err(error) => {
                    println!("    {label:20} failed: {error}");
                    continue;
                }
            };
            print!("    {label:20} {:>12}", number(median(&column)));
            if let Some(greenroom) = &greenroom
                && peer != Peer::Greenroom
            {
                // Each ratio is within one round, because neighbours in time have the same noise.
                let ratios = greenroom
                    .iter()
                    .zip(&column)
                    .map(|(ours, theirs)| ours / theirs);
                let ratios: Vec<f64> = ratios.collect();
                let Interval { low, high } = Interval::of(&ratios);
                print!("{:>16.3}  {low:.3} to {high:.3}", median(&ratios));
            }
            println!();
        }
    }
    println!();
    Ok(results.iter().all(Result::is_ok))
}

fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// Runs one round of one peer. Returns a value for each of the work's figures.
fn round(work: &Work, peer: Peer) -> io::Result<Vec<f64>> {
    let figures = match work.kind {
        Kind::Alone(_) => {
            Process::start(&mut own(&["--round", work.name, peer.name()])?)?.numbers()?
        }
        Kind::Program(program) => program::round(program, work, peer)?,
        Kind::Tcp(load) => {
            let server = Process::start(&mut own(&["--serve", work.name, peer.name()])?)?;
            let (used, report) = put_under_load(work, load.messages, server)?;
            let [elapsed, p99] = report[..] else {
                return Err(io::Error::other("not the report of a client"));
            };
            let messages = (load.messages * load.works_per_message()) as f64;
            vec![
                used.total() / messages,
                used.user / messages,
                messages / elapsed * 1e9,
                p99,
            ]
        }
    };
    if figures.len() != work.figures.len() {
        return Err(io::Error::other("not a figure for each of the work's"));
    }
    Ok(figures)
}

/// Returns the CPU time that the server used for the messages, and the client's report.
fn put_under_load(
    work: &Work,
    messages: usize,
    mut server: Process,
) -> io::Result<(Usage, Vec<f64>)> {
    let addr = server.line()?;
    let mut client = own(&["--load", work.name, &addr, &messages.to_string()])?;
    let mut client = Process::start(&mut client)?;
    client.line()?; // The client has warmed the server up.
    let before = server.usage()?;
    client.say()?;
    let report = client.numbers()?;
    let used = server.usage()? - before;
    server.end()?;
    Ok((used, report))
}

/// Counts the system calls of each peer's server, and prints the calls per message. Returns false
/// if a peer failed.
pub(crate) fn trace(work: &Work, load: Load) -> io::Result<bool> {
    println!("{}: system calls per message", work.name);
    let mut all = true;
    for &peer in work.peers {
        match syscalls_per_message(work, load, peer) {
            Ok(calls) => {
                let sum: f64 = calls.values().sum();
                print!("    {peer:20} {sum:>12.2}  ");
                for (name, count) in calls.iter().filter(|(_, count)| count.abs() >= 0.005) {
                    print!(" {name} {count:.2}");
                }
                println!();
            }
            Err(error) => {
                all = false;
                println!("    {peer:20} failed: {error}");
            }
        }
    }
    println!();
    Ok(all)
}

/// Subtracts a run with few messages from a run with many messages. The difference does not contain
/// the calls for startup and connecting.
fn syscalls_per_message(work: &Work, load: Load, peer: Peer) -> io::Result<BTreeMap<String, f64>> {
    let (few, many) = (load.messages / 20, load.messages / 4);
    let before = syscalls(work, few, peer)?;
    let mut calls = syscalls(work, many, peer)?;
    for (name, count) in &mut calls {
        let works = (many - few) * load.works_per_message();
        *count = (*count - before.get(name).unwrap_or(&0.0)) / works as f64;
    }
    Ok(calls)
}

fn syscalls(work: &Work, messages: usize, peer: Peer) -> io::Result<BTreeMap<String, f64>> {
    let path = env::temp_dir().join(format!("greenroom-peers-{}.strace", process::id()));
    let server = own(&["--serve", work.name, peer.name()])?;
    let mut strace = Command::new("strace");
    strace
        .args(["-c", "-f", "-U", "calls,name", "-o"])
        .arg(&path);
    strace.arg(server.get_program()).args(server.get_args());
    put_under_load(work, messages, Process::start(&mut strace)?)?;
    let table = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    let row = |line: &str| {
        let (calls, name) = line.trim().split_once(' ')?;
        let calls: f64 = calls.parse().ok()?;
        Some((name.trim().to_owned(), calls))
    };
    let mut calls: BTreeMap<_, _> = table.lines().filter_map(row).collect();
    calls.remove("total");
    Ok(calls)
}
