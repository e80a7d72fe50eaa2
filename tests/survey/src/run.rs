//! Building and testing a package, both ways.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::crates::Entry;
use crate::outcome::{Row, Step, Tests};

/// Builds the command `cargo-greenroom` of this repository; returns where it is.
pub(crate) fn command(home: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "-p", "cargo-greenroom"])
        .current_dir(home);
    let status = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("cargo-greenroom does not build".into());
    }
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = this.ancestors().nth(2).ok_or("this program is nowhere")?;
    Ok(target.join("debug").join("cargo-greenroom"))
}

/// Builds `package`, and runs its tests if asked for, on std and on greenroom's.
pub(crate) fn compare(
    entry: &Entry,
    package: &Path,
    work: &Path,
    command: &Path,
    tests: bool,
    limit: Duration,
) -> Row {
    let mut row = Row::new(entry);
    let tests = tests && !entry.build_only;
    let target = work.join("target");
    let step = |mut command: Command, name: &str| {
        command.arg(if tests { "test" } else { "build" });
        if tests {
            command.arg("--no-fail-fast");
        }
        command
            .arg("--target-dir")
            .arg(&target)
            .args(&entry.cargo_args);
        if tests && !entry.test_args.is_empty() {
            command.arg("--").args(&entry.test_args);
        }
        // One directory serves all crates, so the debug information of each would fill the disk.
        command
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0");
        command.env("RUST_BACKTRACE", "0").current_dir(package);
        // The same on each machine. Tests that spin for another thread need more workers than spinners.
        command.env("GREENROOM_WORKERS", "4");
        let log = work.join("logs").join(format!("{}-{name}", entry.name));
        finish(command, &log, limit, tests)
    };
    row.on_std = step(Command::new(env!("CARGO")), "std").0;
    let on_greenroom = || {
        let mut greenroom = Command::new(command);
        greenroom.arg("greenroom").env("CARGO", env!("CARGO"));
        step(greenroom, "greenroom")
    };
    let (outcome, mut output) = on_greenroom();
    row.on_greenroom = outcome;
    if row.is_surprise() {
        // Tests that watch the clock fail now and then on a busy machine. What fails twice is a finding.
        let (again, second) = on_greenroom();
        row.on_greenroom = row.on_greenroom.or(again);
        output = second;
    }
    let lines: Vec<_> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(60)..];
    row.details = last.iter().flat_map(|line| [line, "\n"]).collect();
    row
}

/// Runs a command to its end, for `limit` at most; returns what came of it and what it wrote.
fn finish(mut command: Command, log: &Path, limit: Duration, tests: bool) -> (Step, String) {
    let failed = |error: std::io::Error| (Step::Failed, error.to_string());
    let dir = log.parent().unwrap_or(log);
    let file = match fs::create_dir_all(dir).and_then(|()| File::create(log)) {
        Ok(file) => file,
        Err(error) => return failed(error),
    };
    let Ok(both) = file.try_clone() else {
        return (Step::Failed, String::new());
    };
    // A group of its own, so that what a test has started can be ended with it.
    command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(both)
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(error),
    };
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            _ => {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                break None;
            }
        }
    };
    let output = fs::read(log).unwrap_or_default();
    let output = String::from_utf8_lossy(&output).into_owned();
    let read = Tests::read(&output);
    let step = match status {
        None => Step::TooLong,
        Some(status) if !tests => {
            if status.success() {
                Step::Built
            } else {
                Step::Failed
            }
        }
        Some(status) if read.passed.is_empty() && !status.success() => Step::Failed,
        Some(_) => Step::Tested(read),
    };
    (step, output)
}
