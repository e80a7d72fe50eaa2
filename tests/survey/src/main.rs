//! Builds published crates and runs their own tests by `cargo greenroom`, compares with `cargo`, and writes
//! down the results.
//!
//! `cargo run -p greenroom-survey -- --help` tells how to call it. The crates are listed in
//! `crates.txt`, and the tables that come of it are `SURVEY.md`, both beside this package's manifest.

#![allow(clippy::print_stdout, reason = "a command, whose output it is")]

mod batch;
mod crates;
mod outcome;
mod package;
mod postgres;
mod programs;
mod run;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crates::Entry;
use outcome::Row;
use run::Tools;

const HELP: &str = "\
Compares published crates on std and on greenroom's std

Usage: greenroom-survey [OPTIONS] [CRATE]...

      --no-tests         Run no tests, only build the crates that are to be built
      --programs         Only run programs with tokio or smol below their threads, both ways
      --both             Run all tests on std as well, not only those of crates that fail
      --handful          Take the crates that are marked for continuous integration
      --limit <SECONDS>  The time for each step of a crate [default: 600]
      --write            Write SURVEY.md, of the results of this run and of earlier ones
  -h, --help             Print this

Ends with an error if a crate fails on greenroom's std that does not on std, unless crates.txt has
the reason.
";

struct Options {
    tests: bool,
    programs: bool,
    both: bool,
    handful: bool,
    limit: Duration,
    write: bool,
    names: Vec<String>,
}

fn parse() -> Result<Option<Options>, String> {
    let mut options = Options {
        tests: true,
        programs: false,
        both: false,
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
            "--programs" => options.programs = true,
            "--both" => options.both = true,
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
    let tools = Tools::new(home)?;
    if options.programs {
        let results = programs::run(&all, &tools, options.limit)?;
        return Ok(results.iter().all(|(_, same)| *same));
    }
    let (to_build, to_test): (Vec<&Entry>, Vec<&Entry>) =
        chosen.iter().partition(|entry| entry.build_only);
    let built = batch::build(&to_build, &tools, options.limit);
    let mut tested = Vec::new();
    let to_test = if options.tests { to_test } else { Vec::new() };
    for (number, entry) in to_test.iter().enumerate() {
        eprintln!(
            "[{}/{}] {} {}",
            number + 1,
            to_test.len(),
            entry.name,
            entry.version
        );
        let row = match package::fetch(entry, &tools.work) {
            Ok(package) => run::compare(entry, &package, &tools, options.both, options.limit),
            Err(error) => Row::unfetched(entry, error),
        };
        eprintln!("    {row}");
        tested.push(row);
    }
    let rows = built.iter().chain(&tested);
    let results = tools.work.join("results");
    let rows: Vec<_> = rows.collect();
    for row in &rows {
        let kept = row.keep(&results);
        kept.map_err(|error| format!("{}: {error}", results.display()))?;
    }
    if options.write {
        write(&all, &results, &home.join("SURVEY.md"))?;
    }
    let surprises: Vec<_> = rows.iter().filter(|row| row.is_surprise()).collect();
    for row in &surprises {
        eprintln!("worse on greenroom's std: {row}");
        eprint!("{}", row.details);
    }
    Ok(surprises.is_empty())
}

/// Writes the tables of all crates. A crate without a result says so there.
fn write(all: &[Entry], results: &Path, path: &Path) -> Result<(), String> {
    let rows: Vec<_> = all
        .iter()
        .map(|entry| (entry, outcome::Result::read(results, entry)))
        .collect();
    std::fs::write(path, outcome::tables(&rows)).map_err(|error| error.to_string())
}
