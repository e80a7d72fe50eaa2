//! Builds published crates, and runs their own tests, by `cargo` and by `cargo greenroom`, and writes
//! down how they compare.
//!
//! `cargo run -p greenroom-survey -- --help` tells how to call it. The crates are listed in
//! `crates.txt`, and the table that comes of it is `SURVEY.md`, both beside this package's manifest.

#![allow(clippy::print_stdout, reason = "a command, whose output it is")]

mod crates;
mod outcome;
mod package;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crates::Entry;
use outcome::Row;

const HELP: &str = "\
Compares published crates on std and on greenroom's std

Usage: greenroom-survey [OPTIONS] [CRATE]...

      --no-tests         Only build the crates
      --handful          Take the crates that are marked for continuous integration
      --limit <SECONDS>  The time for each step of a crate [default: 600]
      --write            Write SURVEY.md (all crates must be taken for that)
  -h, --help             Print this

Ends with an error if a crate fails on greenroom's std that does not on std, unless crates.txt has
the reason.
";

struct Options {
    tests: bool,
    handful: bool,
    limit: Duration,
    write: bool,
    names: Vec<String>,
}

fn parse() -> Result<Option<Options>, String> {
    let mut options = Options {
        tests: true,
        handful: false,
        limit: Duration::from_secs(600),
        write: false,
        names: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--no-tests" => options.tests = false,
            "--handful" => options.handful = true,
            "--write" => options.write = true,
            "--limit" => {
                let seconds = args.next().and_then(|seconds| seconds.parse().ok());
                let seconds = seconds.ok_or("--limit needs a number of seconds")?;
                options.limit = Duration::from_secs(seconds);
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            name => options.names.push(name.into()),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let result = match parse() {
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) => survey(&options),
        Err(error) => Err(error),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all crates fare as well on greenroom's std as on std, or as badly as is known.
fn survey(options: &Options) -> Result<bool, String> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = crates::read(&home.join("crates.txt"))?;
    let chosen: Vec<&Entry> = all
        .iter()
        .filter(|entry| !options.handful || entry.handful)
        .filter(|entry| options.names.is_empty() || options.names.contains(&entry.name))
        .collect();
    if chosen.is_empty() {
        return Err("crates.txt has no such crate".into());
    }
    let work = work_dir();
    let command = run::command(home)?;
    let mut rows = Vec::new();
    for (number, entry) in chosen.iter().enumerate() {
        eprintln!(
            "[{}/{}] {} {}",
            number + 1,
            chosen.len(),
            entry.name,
            entry.version
        );
        let row = match package::fetch(entry, &work) {
            Ok(package) => run::compare(
                entry,
                &package,
                &work,
                &command,
                options.tests,
                options.limit,
            ),
            Err(error) => Row::unfetched(entry, error),
        };
        eprintln!("    {row}");
        rows.push(row);
    }
    if options.write {
        if rows.len() != all.len() || !options.tests {
            return Err("SURVEY.md is written for all crates with their tests".into());
        }
        let table = outcome::table(&rows);
        std::fs::write(home.join("SURVEY.md"), table).map_err(|error| error.to_string())?;
    }
    let surprises: Vec<_> = rows.iter().filter(|row| row.is_surprise()).collect();
    for row in &surprises {
        eprintln!("worse on greenroom's std: {row}");
        eprint!("{}", row.details);
    }
    Ok(surprises.is_empty())
}

/// Below cargo's target directory, so that `cargo clean` removes it.
fn work_dir() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let target = this.ancestors().nth(2).unwrap_or(Path::new("target"));
    target.join("survey")
}
