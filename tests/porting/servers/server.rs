//! Server processes.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const TO_START: Duration = Duration::from_secs(90);

/// How long a server may take to end, before it is killed.
const TO_END: Duration = Duration::from_secs(30);

/// How often a server may lose its port to another process between the choice and its start.
const TRIES: usize = 3;

/// If this variable is set, a server that is not on the machine fails its tests.
const REQUIRE: &str = "GREENROOM_REQUIRE_SERVERS";

/// Where the program is: in `PATH`, or where Debian has servers. If it is nowhere, says that the calling test
/// does not test anything.
#[track_caller]
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgres = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .chain(postgres.filter_map(|version| Some(version.ok()?.path().join("bin"))))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        not_tested(&format!("there is no {name}"));
    }
    found
}

/// Says that the calling test does not test anything.
#[track_caller]
pub(crate) fn not_tested(why: &str) {
    assert!(std::env::var_os(REQUIRE).is_none(), "{why}");
    // Past the harness, which keeps to itself what a test prints.
    let _ = writeln!(io::stderr(), "NOT TESTED: {why}");
}

/// A new directory, which belongs to the user under whom servers run. Its path is short enough for a socket.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(of: &str) -> Directory {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let directory = loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("greenroom-{of}-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => break Directory(path),
                // An earlier process of the same number was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{error}"),
            }
        };
        // Servers do not run as root, but its tests may.
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).unwrap();
        directory
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A command that runs the program in the directory: as `nobody`, if the caller is root, because some
    /// servers refuse to run as root. Its output goes to a file of the directory.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match fs::metadata("/proc/self").unwrap().uid() {
            0 => {
                let mut command = Command::new("setpriv");
                // The server also ends if the test is killed.
                command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
                command.args(["--pdeathsig=KILL", "--"]).arg(program);
                command
            }
            _ => Command::new(program),
        };
        let mut options = File::options();
        let log = options.create(true).append(true).open(self.join("log"));
        let log = log.unwrap();
        command
            .current_dir(&self.0)
            // Not one that servers share: MariaDB removes the temporary tables of others as it starts.
            .env("TMPDIR", &self.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// Runs a command that prepares the directory, with this input.
    #[track_caller]
    pub(crate) fn prepare(&self, command: &mut Command, input: &str) {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        let status = child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{command:?}: {status}: {log}");
        written.unwrap();
    }

    /// What the commands have said.
    fn log(&self) -> String {
        let log = fs::read(self.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that has answered. Dropping it ends it, and removes its directory.
#[derive(Debug)]
pub(crate) struct Server {
    /// Dropped first: it uses the directory.
    _process: Process,
    directory: Directory,
    port: u16,
}

impl Server {
    /// Starts the server by the command that `command` makes for a free port, and waits until `answers`
    /// returns true. `signal` ends the server.
    #[track_caller]
    pub(crate) fn start(
        directory: Directory,
        signal: libc::c_int,
        command: impl Fn(&Directory, u16) -> Command,
        answers: impl Fn(&Directory, u16) -> bool,
    ) -> Server {
        for _ in 0..TRIES {
            let port = free_port();
            let mut process = Process::start(command(&directory, port), signal);
            let deadline = Instant::now() + TO_START;
            while process.child.try_wait().unwrap().is_none() {
                if answers(&directory, port) {
                    return Server {
                        _process: process,
                        directory,
                        port,
                    };
                }
                assert!(Instant::now() < deadline, "no answer: {}", directory.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("the server does not start: {}", directory.log());
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Its port of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A port of 127.0.0.1 on which nothing listens. Another process may take it.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A child process that is ended when this is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    signal: libc::c_int,
    /// Ends the thread that has started it.
    _parent: Sender<()>,
}

impl Process {
    /// Starts it on a thread that lives as long as this, because the kernel kills it when that thread ends.
    fn start(mut command: Command, signal: libc::c_int) -> Process {
        let (tell, started) = mpsc::channel();
        let (parent, is_over) = mpsc::channel();
        let start = move || {
            tell.send(command.spawn()).unwrap();
            let _ = is_over.recv();
        };
        let thread = std::thread::Builder::new().name("parent".into());
        thread.spawn(start).unwrap();
        Process {
            child: started.recv().unwrap().unwrap(),
            signal,
            _parent: parent,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + TO_END;
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if !ended(&mut self.child) {
            // SAFETY: kill has no preconditions. The child has not been waited for, so its number is still its own.
            unsafe { libc::kill(self.child.id() as libc::pid_t, self.signal) };
        }
        while !ended(&mut self.child) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
