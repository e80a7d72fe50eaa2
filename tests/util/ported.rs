//! Programs that are built twice by cargo: against std, and with the shims under the name of std.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a program may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(100);

/// The renamed dependency.
pub(crate) const RENAME: &str =
    "[dependencies.std]\npackage = \"greenroom-std\"\npath = \"{root}/shims/std\"\n";

/// A workspace of generated packages.
pub(crate) struct Workspace {
    root: &'static Path,
    pub(crate) directory: PathBuf,
    members: Vec<String>,
}

impl Workspace {
    /// `root` is the directory of greenroom.
    pub(crate) fn new(root: &'static str, name: &str) -> Workspace {
        let directory = scratch().join(name);
        fs::create_dir_all(&directory).unwrap();
        Workspace {
            root: Path::new(root),
            directory,
            members: Vec::new(),
        }
    }

    /// Adds a package. In `manifest`, `{root}` stands for greenroom's directory, and `{sources}` for the
    /// directory of the fixtures.
    pub(crate) fn add(&mut self, name: &str, manifest: &str) {
        let manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n{manifest}\n");
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("Cargo.toml"), self.filled_in(&manifest)).unwrap();
        self.members.push(name.into());
    }

    pub(crate) fn filled_in(&self, manifest: &str) -> String {
        manifest
            .replace("{sources}", "{root}/tests/fixtures/ported")
            .replace("{root}", self.root.to_str().unwrap())
    }

    /// Runs cargo in the workspace. Returns its output, as an error if cargo fails.
    pub(crate) fn try_cargo(&self, arguments: &[&str]) -> Result<String, String> {
        let members = &self.members;
        let manifest = format!("[workspace]\nresolver = \"2\"\nmembers = {members:?}\n");
        fs::write(self.directory.join("Cargo.toml"), manifest).unwrap();
        // The versions in greenroom's lock file are available without a registry.
        let lock = self.root.join("Cargo.lock");
        fs::copy(lock, self.directory.join("Cargo.lock")).unwrap();
        let output = Command::new(env!("CARGO"))
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", scratch().join("target"))
            .args(arguments)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        if output.status.success() {
            Ok(printed)
        } else {
            Err(printed)
        }
    }

    /// Where cargo builds.
    #[allow(dead_code, reason = "each binary uses its part")]
    pub(crate) fn target(&self) -> PathBuf {
        scratch().join("target")
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> String {
        let printed = self.try_cargo(arguments);
        printed.unwrap_or_else(|complaint| panic!("{complaint}"))
    }
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("ported")
}

/// The outcome of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    /// The number of threads when the program said that it was ready.
    pub(crate) threads: usize,
    pub(crate) transcript: String,
}

/// Runs a program of the workspace. The shims use `workers` workers. The program prints "ready" at some
/// point, and goes on after it has read a line.
pub(crate) fn run(program: &str, workers: usize) -> Run {
    let mut child = Command::new(scratch().join("target/debug").join(program))
        .env("GREENROOM_WORKERS", workers.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let pid = child.id();
    let (over, watch) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let hangs = watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if hangs {
            child.kill().unwrap();
        }
        (hangs, child.wait().unwrap())
    });
    let run = converse(pid, stdin, BufReader::new(stdout));
    drop(over);
    let (hangs, status) = watchdog.join().unwrap();
    assert!(!hangs, "{program} on {workers} workers hangs after {run:?}");
    assert!(
        status.success(),
        "{program} on {workers} workers: {status}, after {run:?}"
    );
    run
}

fn converse(pid: u32, mut stdin: ChildStdin, mut stdout: BufReader<ChildStdout>) -> Run {
    let mut transcript = String::new();
    while !transcript.ends_with("ready\n") && stdout.read_line(&mut transcript).unwrap() > 0 {}
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let threads = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    // A program that has already ended has no threads, and does not read the line.
    let threads = threads.map_or(0, |number| number.trim().parse().unwrap());
    let _ = stdin.write_all(b"\n");
    drop(stdin);
    stdout.read_to_string(&mut transcript).unwrap();
    Run {
        threads,
        transcript,
    }
}
