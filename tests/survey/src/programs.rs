//! Programs whose threads wait in crates that call the system themselves. They must wait at the same time, on few
//! OS threads.

use std::time::Duration;

use crate::batch;
use crate::crates::Entry;
use crate::postgres::Server;
use crate::run::{self, End, Tools};

struct Program {
    name: &'static str,
    crates: &'static [&'static str],
    source: &'static str,
    /// Needs a server.
    needs_postgres: bool,
}

const PROGRAMS: [Program; 4] = [
    Program {
        name: "reqwest",
        crates: &["reqwest"],
        source: include_str!("../programs/reqwest.rs"),
        needs_postgres: false,
    },
    Program {
        name: "postgres",
        crates: &["postgres"],
        source: include_str!("../programs/postgres.rs"),
        needs_postgres: true,
    },
    Program {
        name: "smol",
        crates: &["smol"],
        source: include_str!("../programs/smol.rs"),
        needs_postgres: false,
    },
    Program {
        name: "signals",
        crates: &["ctrlc", "signal-hook"],
        source: include_str!("../programs/signals.rs"),
        needs_postgres: false,
    },
];

/// The OS threads that each program may have: main's, one worker, and those of the crate and of the blocking pool.
const MOST_OS_THREADS: usize = 8;

/// Runs the programs both ways. Returns for each whether it does the same. Leaves programs out that need a
/// server which is not there.
pub(crate) fn run(
    entries: &[Entry],
    tools: &Tools,
    limit: Duration,
) -> Result<Vec<(&'static str, bool)>, String> {
    let server = Server::start(&tools.work)?;
    let mut results = Vec::new();
    for program in &PROGRAMS {
        let address = server.as_ref().map(Server::address);
        if program.needs_postgres && address.is_none() {
            eprintln!("[program {}] skipped: no PostgreSQL here", program.name);
            continue;
        }
        let mut named = Vec::new();
        for &name in program.crates {
            let entry = entries.iter().find(|entry| entry.name == name);
            named.push((name, entry.ok_or(format!("crates.txt has no {name}"))?));
        }
        let name = format!("{}-threads", program.name);
        let dir = batch::write_program(&name, &named, program.source, tools)?;
        let outcome = |on: &str| {
            let mut command = match on {
                "std" => tools.cargo(),
                _ => tools.greenroom(),
            };
            if on == "greenroom" {
                command
                    .env("GREENROOM_WORKERS", "1")
                    .env("MOST_OS_THREADS", MOST_OS_THREADS.to_string());
            }
            command
                .args(["run", "--quiet"])
                .current_dir(&dir)
                .env("POSTGRES", address.clone().unwrap_or_default());
            run::finish(command, &tools.log(&name, on), limit)
        };
        let (on_std, on_greenroom) = (outcome("std"), outcome("greenroom"));
        let same = on_std.0 == End::Success && on_std == on_greenroom;
        eprintln!(
            "[program {}] {}",
            program.name,
            if same { "the same" } else { "differs" }
        );
        if !same {
            eprint!("std:\n{}greenroom:\n{}", on_std.1, on_greenroom.1);
        }
        results.push((program.name, same));
    }
    Ok(results)
}
