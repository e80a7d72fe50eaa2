//! Running cargo and `cargo greenroom`, and testing a package by both.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::crates::Entry;
use crate::outcome::{Row, Step, Tests};

/// The two commands to compare, and where they work.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Where everything is that the survey makes.
    pub(crate) work: PathBuf,
    /// `cargo-greenroom` of this repository.
    command: PathBuf,
}

/// How a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    Failure,
    /// It was not over in time, and was killed.
    TooLate,
}

impl Tools {
    /// Builds the command `cargo-greenroom` of this repository.
    pub(crate) fn new(home: &Path) -> Result<Tools, String> {
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
        Ok(Tools {
            // Below cargo's target directory, so that `cargo clean` removes it.
            work: target.join("survey"),
            command: target.join("debug").join("cargo-greenroom"),
        })
    }

    /// cargo, for a program on std.
    pub(crate) fn cargo(&self) -> Command {
        self.set_up(Command::new(env!("CARGO")))
    }

    /// `cargo greenroom`.
    pub(crate) fn greenroom(&self) -> Command {
        let mut command = Command::new(&self.command);
        command.arg("greenroom").env("CARGO", env!("CARGO"));
        self.set_up(command)
    }

    fn set_up(&self, mut command: Command) -> Command {
        // One directory serves all crates, so the debug information of each would fill the disk.
        command
            .env("CARGO_TARGET_DIR", self.work.join("target"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0");
        // A package may name its own toolchain, which rustup's `rustc` would take. This is the real one.
        let toolchain = Path::new(env!("CARGO")).parent().unwrap_or(Path::new(""));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(toolchain.to_owned()).chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(dirs) {
            command.env("PATH", path);
        }
        // The same on each machine. Tests that spin for another thread need more workers than spinners.
        command.env("GREENROOM_WORKERS", "4");
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Where to write what `name` writes on the std `on`.
    pub(crate) fn log(&self, name: &str, on: &str) -> PathBuf {
        self.work.join("logs").join(format!("{name}-{on}"))
    }
}

/// Runs the tests of `package` on greenroom's std. Runs them on std as well if some fail, or if `both`.
pub(crate) fn compare(
    entry: &Entry,
    package: &Path,
    tools: &Tools,
    both: bool,
    limit: Duration,
) -> Row {
    let step = |mut command: Command, name: &str| {
        command
            .args(["test", "--no-fail-fast"])
            .args(&entry.cargo_args)
            .current_dir(package);
        if !entry.test_args.is_empty() {
            command.arg("--").args(&entry.test_args);
        }
        let (end, output) = finish(command, &tools.log(&entry.name, name), limit);
        (Step::of_tests(end, Tests::read(&output)), output)
    };
    let on_greenroom = || step(tools.greenroom(), "greenroom");
    let mut row = Row::new(entry);
    let (outcome, mut output) = on_greenroom();
    row.on_greenroom = outcome;
    if both || !row.on_greenroom.is_good() {
        row.on_std = step(tools.cargo(), "std").0;
    }
    if row.is_surprise() {
        // Tests that watch the clock fail now and then on a busy machine. What fails twice is a finding.
        let (again, second) = on_greenroom();
        row.on_greenroom = row.on_greenroom.or(again);
        output = second;
    }
    row.details = end(&output);
    row
}

/// The last lines of `output`.
pub(crate) fn end(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let last = &lines[lines.len().saturating_sub(60)..];
    last.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Runs a command to its end, for `limit` at most. Returns how it ended and what it wrote, which is in `log`,
/// too.
pub(crate) fn finish(command: Command, log: &Path, limit: Duration) -> (End, String) {
    match try_finish(command, log, limit) {
        Ok(end) => {
            let output = fs::read(log).unwrap_or_default();
            (end, String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) => (End::Failure, error.to_string()),
    }
}

fn try_finish(mut command: Command, log: &Path, limit: Duration) -> io::Result<End> {
    fs::create_dir_all(log.parent().unwrap_or(log))?;
    let file = File::create(log)?;
    // A group of its own, so that what a test has started can be ended with it.
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(End::Success),
            Some(_) => return Ok(End::Failure),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            None => {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                child.wait()?;
                return Ok(End::TooLate);
            }
        }
    }
}
