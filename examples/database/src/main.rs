//! The same slow queries in three ways, side by side: how a program gets on with a database whose driver blocks.
//!
//! - `threads`: the driver in C, called by a pool of OS threads, while coroutines wait for these.
//! - `patch`: the same driver, called by the coroutines themselves, under `greenroom::patch!`.
//! - `wire`: the protocol in sequential code, over greenroom's streams.
//!
//! ```text
//! $ cargo run --release -p database -- --host 127.0.0.1 --user test
//! 200 queries of 500ms on 50 connections
//! way          time  OS threads    memory  right
//! threads     2.21s          51    12 MiB  200 of 200
//! patch       2.22s           1    11 MiB  200 of 200
//! wire        2.45s           1     9 MiB  200 of 200
//! ```
//!
//! It needs libpq (Debian: libpq-dev) and a server. This makes one to try it with, which is not to be run as root:
//!
//! ```text
//! $ initdb -D /tmp/data --auth=trust --username=test && postgres -D /tmp/data -k /tmp
//! ```

greenroom::patch!(unsafe);

use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{fs, io};

use database::{Database, Error, Login, Way};
use greenroom::{Group, RuntimeBuilder};

const HELP: &str = "\
The same slow queries of PostgreSQL in three ways, side by side.

Usage: database [OPTION...]

  --host HOST         a name, an address, or the directory of the server's
                      Unix socket                     [default: 127.0.0.1]
  --port PORT                                         [default: 5432]
  --user USER                                         [default: postgres]
  --database NAME                                     [default: postgres]
  --queries N         how many                        [default: 200]
  --connections N     how many there are at most      [default: 50]
  --way WAY           only this one: threads, patch or wire
  --help              print this

The variable PGPASSWORD has the password, if the server wants one.

The status is 0 if all rows are right, 1 if not, and 2 if the arguments are
wrong.
";

/// How long the server takes for a query.
const EACH: Duration = Duration::from_millis(500);

/// How long a query waits for a connection, beside the time that the others take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Options {
    login: Login,
    queries: usize,
    connections: usize,
    way: Option<Way>,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why} (see --help)");
            return ExitCode::from(2);
        }
    };
    let all_right = match options.way {
        None => side_by_side(&options),
        Some(way) => options.run(way),
    };
    match all_right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs each way in a process of its own, whose threads and memory count.
fn side_by_side(options: &Options) -> io::Result<bool> {
    println!(
        "{} queries of {EACH:?} on {} connections",
        options.queries, options.connections
    );
    println!(
        "{:8}{:>9}{:>12}{:>10}  right",
        "way", "time", "OS threads", "memory"
    );
    let mut all_right = true;
    for way in Way::ALL {
        let mut command = Command::new(std::env::current_exe()?);
        let status = command
            .args(std::env::args().skip(1))
            .args(["--way", way.name()])
            .status()?;
        all_right &= status.success();
    }
    Ok(all_right)
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            login: Login {
                host: "127.0.0.1".into(),
                port: 5432,
                user: "postgres".into(),
                password: std::env::var("PGPASSWORD").ok(),
                database: "postgres".into(),
            },
            queries: 200,
            connections: 50,
            way: None,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} has no value"));
            match name.as_str() {
                "--host" => options.login.host = value?,
                "--port" => options.login.port = number(&name, value?)?,
                "--user" => options.login.user = value?,
                "--database" => options.login.database = value?,
                "--queries" => options.queries = number(&name, value?)?,
                "--connections" => options.connections = number(&name, value?)?,
                "--way" => {
                    let value = value?;
                    let way = Way::ALL.into_iter().find(|way| way.name() == value);
                    options.way = Some(way.ok_or(format!("unknown way {value}"))?);
                }
                _ => return Err(format!("unknown option {name}")),
            }
        }
        if options.connections == 0 {
            return Err("--connections 0: there must be one".into());
        }
        Ok(options)
    }

    /// Makes the queries in one way, and prints its line of the table.
    fn run(&self, way: Way) -> io::Result<bool> {
        let runtime = RuntimeBuilder::new().workers(1).build()?;
        runtime.run(|| self.measure(way))
    }

    /// Makes all queries at once, each in a coroutine of its own.
    fn measure(&self, way: Way) -> io::Result<bool> {
        let rounds = self.queries.div_ceil(self.connections);
        let patience = PATIENCE + EACH * u32::try_from(rounds).unwrap_or(u32::MAX);
        let database = &Database::new(way, self.login.clone(), self.connections, patience);
        let start = Instant::now();
        let name = way.name();
        let outcomes = Group::new().map(0..self.queries, |number| is_right(database, number));
        let took = start.elapsed();
        // Threads of the pool stay for a while, so all that there were are counted.
        let status = fs::read_to_string("/proc/self/status")?;
        let value = |key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<usize>().ok()
        };
        let threads = value("Threads:").unwrap_or_default();
        let memory = value("VmHWM:").unwrap_or_default() >> 10;

        let outcomes = outcomes
            .into_iter()
            .map(|outcome| outcome.expect("a query does not panic"));
        let (right, failed): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| *outcome == Ok(true));
        if let Some(Err(error)) = failed.iter().find(|outcome| outcome.is_err()) {
            eprintln!("error: {name}: {error}");
        }
        println!(
            "{name:8}{:>8.2}s{threads:>12}{memory:>6} MiB  {} of {}",
            took.as_secs_f64(),
            right.len(),
            self.queries
        );
        Ok(failed.is_empty())
    }
}

/// Makes a query, whose rows nobody else gets.
fn is_right(database: &Database, number: usize) -> Result<bool, Error> {
    let seconds = EACH.as_secs_f64();
    let query = format!("select {number} * 2, 'number {number}', null from pg_sleep({seconds})");
    let rows = database.rows(&query)?;
    let double = (number * 2).to_string();
    Ok(rows == [[Some(double), Some(format!("number {number}")), None]])
}

fn number<T: FromStr>(name: &str, text: String) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{name} {text}: this is no such number"))
}
