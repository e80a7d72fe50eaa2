//! Programs: the examples, and what talks to them.

#![allow(dead_code, reason = "each binary uses its part")]

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::util::until;

/// Longer than anything that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// How long a client may take to read a last answer, before a server resets the connection for what it has not read.
const LINGER: Duration = Duration::from_secs(2);

/// If this variable is set, a client that is not on the machine fails its tests.
const REQUIRE: &str = "GREENROOM_REQUIRE_CLIENTS";

/// Whether all these programs are on the machine. If not, says that the calling test does not test anything.
#[track_caller]
pub(crate) fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing = programs.iter().find(|name| !is_there(name));
    missing.is_none_or(|missing| have_or_skip(missing, false))
}

/// Whether this client is on the machine. If not, says that the calling test does not test anything.
#[track_caller]
pub(crate) fn have_or_skip(client: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(std::env::var_os(REQUIRE).is_none(), "there is no {client}");
        // Past the harness, which keeps to itself what a test prints.
        let _ = writeln!(io::stderr(), "NOT TESTED: there is no {client}");
    }
    is_there
}

/// A command whose traffic goes to this machine directly.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command.stdin(Stdio::null());
    command
}

/// A program of the folder `book`.
pub(crate) fn book(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/examples/book").join(name)
}

/// The output of a command that must succeed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaints}");
    output
}

/// The executable of an example.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let profile = match cfg!(debug_assertions) {
            true => "dev",
            false => "release",
        };
        succeed(
            Command::new(env!("CARGO"))
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .args(["build", "--quiet", "--offline", "--examples"])
                .args(["--profile", profile]),
        );
    });
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    profile.join("examples").join(name)
}

/// A running example that serves. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it with these arguments. It says where it serves in its first line.
    pub(crate) fn start(name: &str, arguments: &[&OsStr]) -> Server {
        Server::start_command(command(example(name)).args(arguments))
    }

    pub(crate) fn start_command(command: &mut Command) -> Server {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("serving on ");
        let address = address.unwrap_or_else(|| panic!("{line:?}"));
        let address = address.parse().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        keep_lines(output, &log);
        keep_lines(BufReader::new(child.stderr.take().unwrap()), &log);
        Server {
            child,
            address,
            log,
        }
    }

    /// What it has written so far, after its first line.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).unwrap();
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `request`, and returns all that comes until the server closes.
    pub(crate) fn ask(&self, request: &[u8]) -> String {
        let start = Instant::now();
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read_to_the_end(&mut stream, start)
    }

    /// A number of `/proc/PID/status`.
    pub(crate) fn status(&self, key: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        let number = value.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    pub(crate) fn open_descriptors(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        descriptors.count()
    }

    /// Waits until it ends by itself, which must be without an error.
    #[track_caller]
    pub(crate) fn assert_ends(&mut self) {
        until("the server has ended", || {
            self.child.try_wait().unwrap().is_some()
        });
        let status = self.child.try_wait().unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Panics if the server has ended.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the server ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends the lines to the log, on a thread, until there are no more.
fn keep_lines(lines: impl BufRead + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            *log.lock().unwrap() += &(line + "\n");
        }
    });
}

/// All that comes until the server closes. A client that takes too long to read it, from `start` on, may see a reset
/// after it.
pub(crate) fn read_to_the_end(stream: &mut TcpStream, start: Instant) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset && start.elapsed() > LINGER => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

/// The status of the only answer of HTTP.
pub(crate) fn status(answer: &str) -> &str {
    let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or(answer);
    status.get(..3).unwrap_or(answer)
}

/// The answers of HTTP without their fields `Date`.
pub(crate) fn without_dates(answers: &str) -> String {
    let lines = answers.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("Date: ")).collect()
}

/// A new directory, which is removed in the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("greenroom-example-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Directory(path),
                // An earlier process of the same number was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
