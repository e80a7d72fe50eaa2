//! The backdoor: who is let in, what it bounds, and what its commands do. The tests look at all coroutines of the
//! process, and set its monitor.

mod util;

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use greenroom::backdoor::{self, Backdoor};
use greenroom::shims::{self, thread};
use greenroom::{Builder, Cancelled, JoinHandle};
use serial_test::serial;

use crate::util::{Finally, Scratch, again, role, uninterrupted, until};

/// A client, which gives up on a reply only after a while.
struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(path: &Path) -> Client {
        let stream = uninterrupted(|| UnixStream::connect(path)).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The next line without its end. Empty if the conversation is over.
    fn receive(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            // There was more to read when the other side closed.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            read => drop(read.unwrap()),
        }
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n").as_bytes());
        self.receive()
    }
}

fn ask(path: &Path, command: &str) -> String {
    Client::connect(path).ask(command)
}

fn error(why: &str) -> String {
    format!(r#"{{"error":"{why}"}}"#)
}

/// A backdoor in a directory of its own.
fn served() -> (Backdoor, Scratch) {
    let directory = Scratch::new();
    let backdoor = backdoor::serve(directory.join("door")).unwrap();
    (backdoor, directory)
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(body).unwrap()
}

/// The description of a coroutine in a dump, from its id on.
fn described<'a>(dump: &'a str, name: &str) -> Option<&'a str> {
    let coroutines = dump.split(r#"{"id":"#).skip(1);
    let name = format!(r#","name":"{name}","#);
    let mut found = coroutines.filter(|coroutine| coroutine.contains(&name));
    found.next()
}

/// Waits until the coroutine is in this state, and returns its id.
fn id_of(client: &mut Client, name: &str, state: &str) -> u64 {
    let state = format!(r#""state":"{state}""#);
    let mut id = 0;
    until("the coroutine is in that state", || {
        let dump = client.ask("dump brief");
        let Some(found) = described(&dump, name).filter(|found| found.contains(&state)) else {
            return false;
        };
        id = found.split(',').next().unwrap().parse().unwrap();
        true
    });
    id
}

/// Sets the user of this process. It must be root.
fn become_user(uid: libc::uid_t) {
    // SAFETY: the calls take numbers.
    let done = unsafe { (libc::setgid(uid), libc::setuid(uid)) };
    assert_eq!(done, (0, 0), "{}", io::Error::last_os_error());
}

fn is_root() -> bool {
    // SAFETY: the call has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("NOT TESTED: only root can become another user");
    }
    is_root
}

/// The variable with the path of the socket, for a process that a test has started.
const PATH: &str = "GREENROOM_TEST_BACKDOOR";

fn path_from_parent() -> PathBuf {
    std::env::var_os(PATH).unwrap().into()
}

/// Starts `test` again. The child ends when its standard input does.
fn start(test: &str, role: &str, path: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut command = again!(test, role);
    let command = command.env(PATH, path).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The rest of the first line of `output` that begins with `start`.
fn line_after(output: &mut impl BufRead, start: &str) -> String {
    let mut lines = output.lines().map(Result::unwrap);
    let line = lines.find_map(|line| line.split_once(start).map(|(_, rest)| rest.to_owned()));
    line.unwrap_or_else(|| panic!("no line with {start}"))
}

fn wait_for_end_of_stdin() {
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
#[serial]
fn the_socket_is_for_its_owner_from_its_first_moment() {
    const TEST: &str = "the_socket_is_for_its_owner_from_its_first_moment";
    if role().is_none() {
        let directory = Scratch::new();
        let (mut child, mut output) = start(TEST, "serves", &directory.join("door"));
        assert_eq!(line_after(&mut output, "modes: "), "[600]");
        assert!(child.wait().unwrap().success());
        return;
    }
    // In a process of its own, since the mask belongs to the process.
    // SAFETY: the call has no preconditions.
    unsafe { libc::umask(0) };
    let path = path_from_parent();
    let (stop, looked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut modes = Vec::new();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut modes = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                if let Ok(file) = fs::symlink_metadata(&path) {
                    assert!(file.file_type().is_socket());
                    modes.push(file.mode() & 0o7777);
                    looked.fetch_add(1, Ordering::SeqCst);
                }
            }
            modes
        });
        for _ in 0..200 {
            let backdoor = backdoor::serve(&path).unwrap();
            let before = looked.load(Ordering::SeqCst);
            until("the file was looked at", || {
                looked.load(Ordering::SeqCst) > before
            });
            drop(backdoor);
        }
        stop.store(true, Ordering::SeqCst);
        modes = watcher.join().unwrap();
    });
    modes.sort_unstable();
    modes.dedup();
    let modes: Vec<String> = modes.iter().map(|mode| format!("{mode:o}")).collect();
    println!("modes: [{}]", modes.join(" "));
}

#[test]
#[serial]
fn other_users_are_refused_even_if_the_file_lets_them_in() {
    const TEST: &str = "other_users_are_refused_even_if_the_file_lets_them_in";
    if role().is_some() {
        become_user(65534);
        let stream = UnixStream::connect(path_from_parent());
        let stream = stream.map(BufReader::new);
        let reply = stream.and_then(|mut stream| {
            // Refused before it has asked.
            let mut line = String::new();
            stream.read_line(&mut line)?;
            Ok(line)
        });
        println!("reply: {reply:?}");
        return;
    }
    if !is_root() {
        return;
    }
    let (backdoor, _directory) = served();
    let reply_to_stranger = || {
        let (mut child, mut output) = start(TEST, "stranger", backdoor.path());
        let reply = line_after(&mut output, "reply: ");
        assert!(child.wait().unwrap().success());
        reply
    };
    let reply = reply_to_stranger();
    assert!(reply.contains("PermissionDenied"), "{reply}");
    fs::set_permissions(backdoor.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let refused = error("only the user of this process, and root, are let in") + "\n";
    assert_eq!(reply_to_stranger(), format!("Ok({refused:?})"));
    // The backdoor goes on.
    assert!(ask(backdoor.path(), "metrics").starts_with(r#"{"pid":"#));
}

#[test]
#[serial]
fn root_is_let_in_by_a_process_of_another_user() {
    const TEST: &str = "root_is_let_in_by_a_process_of_another_user";
    if role().is_some() {
        become_user(65534);
        let _backdoor = backdoor::serve(path_from_parent()).unwrap();
        println!("serves: {}", std::process::id());
        return wait_for_end_of_stdin();
    }
    if !is_root() {
        return;
    }
    let directory = Scratch::new();
    fs::set_permissions(&*directory, fs::Permissions::from_mode(0o777)).unwrap();
    let path = directory.join("door");
    let (mut child, mut output) = start(TEST, "serves", &path);
    let pid = line_after(&mut output, "serves: ");
    assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 65534);
    let metrics = ask(&path, "metrics");
    assert!(
        metrics.starts_with(&format!(r#"{{"pid":{pid},"#)),
        "{metrics}"
    );
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(!path.exists());
}

#[test]
#[serial]
fn a_socket_that_nobody_serves_is_replaced_and_another_file_is_not() {
    const TEST: &str = "a_socket_that_nobody_serves_is_replaced_and_another_file_is_not";
    if role().is_some() {
        // The program ends without closing it.
        std::mem::forget(backdoor::serve(path_from_parent()).unwrap());
        println!("serves: yes");
        return wait_for_end_of_stdin();
    }
    let directory = Scratch::new();
    let path = directory.join("door");
    let kind_of_error = |path: &Path| backdoor::serve(path).unwrap_err().kind();

    let (mut child, mut output) = start(TEST, "serves", &path);
    line_after(&mut output, "serves: ");
    assert_eq!(kind_of_error(&path), ErrorKind::AddrInUse);
    // The one that serves is not disturbed.
    assert!(ask(&path, "help").starts_with(r#"["dump: "#));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(path.exists(), "the socket is left");

    let backdoor = backdoor::serve(&path).unwrap();
    assert!(ask(&path, "metrics").contains(&format!(r#""pid":{},"#, std::process::id())));
    assert_eq!(kind_of_error(&path), ErrorKind::AddrInUse);
    drop(backdoor);
    assert!(!path.exists());

    fs::write(&path, "precious").unwrap();
    assert_eq!(kind_of_error(&path), ErrorKind::AddrInUse);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let too_long = directory.join("d".repeat(200));
    assert_eq!(kind_of_error(&too_long), ErrorKind::InvalidInput);
    let std_says = UnixListener::bind(&too_long).unwrap_err().kind();
    assert_eq!(std_says, ErrorKind::InvalidInput);
    assert_eq!(kind_of_error(Path::new("")), ErrorKind::InvalidInput);
    let nowhere = directory.join("nowhere/door");
    assert_eq!(kind_of_error(&nowhere), ErrorKind::NotFound);
}

fn threads_of_backdoors() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
    // A thread may end in between.
    let names = names.map(Result::unwrap_or_default);
    names
        .filter(|name| name.starts_with("greenroom-backd"))
        .count()
}

#[test]
#[serial]
fn dropping_it_removes_the_socket_disconnects_clients_and_ends_its_threads() {
    until("no other backdoor is left", || threads_of_backdoors() == 0);
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    let mut client = Client::connect(&path);
    client.ask("help");
    let idle = Client::connect(&path);
    until("both are served", || threads_of_backdoors() == 3);
    drop(backdoor);
    assert!(!path.exists());
    assert_eq!(client.receive(), "");
    until("the threads have ended", || threads_of_backdoors() == 0);
    drop(idle);

    // Another socket in its place is not removed.
    let first = backdoor::serve(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let second = backdoor::serve(&path).unwrap();
    drop(first);
    assert!(ask(&path, "help").starts_with('['));
    drop(second);
    assert!(!path.exists());
}

#[test]
#[serial]
fn a_forked_child_does_not_close_its_parents_backdoor() {
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    // SAFETY: the child calls nothing but the destructor, which takes no lock there, and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(backdoor);
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid, and the child is ours.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((ended, status), (child, 0));
    assert!(ask(&path, "help").starts_with('['));
}

#[test]
#[serial]
fn garbage_gets_an_error_and_a_line_that_is_cut_off_nothing() {
    let (backdoor, _directory) = served();
    let mut client = Client::connect(backdoor.path());
    let unknown = error("no such command: see help");
    for garbage in [
        &b"\n"[..],
        b"\0\0\0\n",
        b"\xff\xfe\xfd\n",
        b"GET / HTTP/1.1\r\n",
        b"dump dump\n",
    ] {
        client.send(garbage);
        assert_eq!(client.receive(), unknown);
    }
    let no_id = error("an id is a number, as in a dump");
    assert_eq!(client.ask("cancel all"), no_id);
    assert_eq!(client.ask("backtrace 99999999999999999999"), no_id);
    let no_number = error("a threshold is a number of milliseconds, or off");
    assert_eq!(client.ask("threshold -5"), no_number);
    assert_eq!(
        client.ask("threshold 0"),
        error("every turn takes longer than zero")
    );
    // Several at once, and one in pieces.
    client.send(b"help\nnonsense\nthre");
    assert!(client.receive().starts_with('['));
    assert_eq!(client.receive(), unknown);
    client.send(b"shold\n");
    assert!(client.receive().starts_with(r#"{"threshold_ms":"#));

    let longest = [&[b' '; 251][..], b"help\n"].concat();
    client.send(&longest);
    assert!(client.receive().starts_with('['));
    client.send(&[b'x'; 256]);
    assert_eq!(client.receive(), error("a line has at most 256 bytes"));
    assert_eq!(client.receive(), "", "disconnected");

    greenroom::run(|| {
        let parked = named("not to be cancelled", thread::park);
        let mut client = Client::connect(backdoor.path());
        let id = greenroom::join_thread(std::thread::spawn(move || {
            let id = id_of(&mut client, "not to be cancelled", "parked");
            client.send(format!("cancel {id}").as_bytes());
            client.0.get_mut().shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.receive(), "");
            id
        }));
        let id = id.unwrap();
        let mut other = Client::connect(backdoor.path());
        let again = std::thread::spawn(move || other.ask(&format!("backtrace {id}")));
        let again = greenroom::join_thread(again).unwrap();
        assert!(again.contains(r#""state":"parked""#), "{again}");
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
#[serial]
fn slow_clients_disturb_nobody_and_are_disconnected() {
    let (backdoor, _directory) = served();
    let mut half = Client::connect(backdoor.path());
    half.send(b"he");
    let mut deaf = Client::connect(backdoor.path());
    let deaf_side = std::thread::spawn(move || {
        // Asks for so much that the replies fill all buffers. In the end nobody takes the questions any more.
        let questions = b"help\n".repeat(100);
        let failed = loop {
            if let Err(error) = deaf.0.get_mut().write_all(&questions) {
                break error.kind();
            }
        };
        assert!(
            matches!(failed, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
            "{failed}"
        );
    });
    let start = Instant::now();
    let mut other = Client::connect(backdoor.path());
    while !deaf_side.is_finished() {
        assert!(other.ask("threshold").starts_with('{'));
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    deaf_side.join().unwrap();
    assert_eq!(half.receive(), "");
    assert!(start.elapsed() >= Duration::from_secs(9));
    assert!(
        other.ask("help").starts_with('['),
        "it may wait between lines"
    );
}

#[test]
#[serial]
fn there_are_eight_clients_at_most() {
    let (backdoor, _directory) = served();
    let mut clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::connect(backdoor.path());
            assert!(client.ask("help").starts_with('['));
            client
        })
        .collect();
    for _ in 0..100 {
        let mut ninth = Client::connect(backdoor.path());
        assert_eq!(ninth.receive(), error("there are too many clients"));
        assert_eq!(ninth.receive(), "");
    }
    clients.pop();
    until("another one is let in", || {
        let mut client = Client::connect(backdoor.path());
        // One that is turned away cannot always write.
        let sent = client.0.get_mut().write_all(b"help\n");
        sent.is_ok() && client.receive().starts_with('[')
    });
    for client in &mut clients {
        assert!(client.ask("help").starts_with('['));
    }
}

#[test]
#[serial]
fn a_client_that_has_gone_causes_no_sigpipe() {
    const TEST: &str = "a_client_that_has_gone_causes_no_sigpipe";
    if role().is_none() {
        let directory = Scratch::new();
        let (mut child, mut output) = start(TEST, "serves", &directory.join("door"));
        assert_eq!(line_after(&mut output, "lives: "), "yes");
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    // SAFETY: this sets no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let backdoor = backdoor::serve(path_from_parent()).unwrap();
    for _ in 0..50 {
        let mut client = Client::connect(backdoor.path());
        assert!(client.ask("help").starts_with('['));
        client.send(&b"help\n".repeat(800));
        drop(client);
        until("it has been served", || threads_of_backdoors() == 1);
    }
    println!("lives: yes");
}

#[test]
#[serial]
fn each_reply_is_a_line_of_json() {
    const SCRIPT: &str = r#"
import json, sys
replies = [json.loads(line) for line in sys.stdin]
dump, brief, text, metrics, threshold, commands, unknown, backtrace = replies
one, = [c for c in dump["coroutines"] if c["name"] == 'a "name"\n']
assert dump["version"] == brief["version"] == 1
assert dump["traces"] and not brief["traces"]
assert one["id"] in [c["id"] for c in brief["coroutines"]]
assert f"{one['id']} 'a \\\"name\\\"\\n'" in text and text.count("\n") > 5, text
assert metrics["live"] >= 2 and metrics["pid"] > 1 and metrics["run_queue_delay"]["buckets"]
assert list(threshold) == ["threshold_ms"]
assert len(commands) == 10
assert list(unknown) == ["error"]
assert backtrace["id"] == one["id"] and backtrace["state"] == "parked"
assert [f["address"] for f in backtrace["frames"]] == [f["address"] for f in dump["traces"][one["trace"]]]
"#;
    let (backdoor, directory) = served();
    let replies = greenroom::run(|| {
        let parked = named("a \"name\"\n", thread::park);
        let path = backdoor.path().to_owned();
        let asking = std::thread::spawn(move || {
            let mut client = Client::connect(&path);
            let id = id_of(&mut client, r#"a \"name\"\u000a"#, "parked");
            let last = format!("backtrace {id}");
            let commands = [
                "dump",
                "dump brief",
                "dump text",
                "metrics",
                "threshold",
                "help",
                "?",
                &last,
            ];
            commands.map(|command| client.ask(command) + "\n").concat()
        });
        let replies = greenroom::join_thread(asking).unwrap();
        parked.thread().unpark();
        parked.join().unwrap();
        replies
    });
    let file = directory.join("replies");
    fs::write(&file, &replies).unwrap();
    let python = std::process::Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(fs::File::open(&file).unwrap())
        .output();
    let Ok(output) = python else {
        return eprintln!("skipped, since there is no python3 to parse JSON");
    };
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}{replies}");
}

#[test]
#[serial]
fn a_coroutine_is_cancelled_by_its_id() {
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    greenroom::run(|| {
        let (mut reader, _writer) = shims::io::pipe().unwrap();
        let read = named("reader", move || {
            reader.read_exact(&mut [0]).unwrap();
        });
        let sleeper = named("sleeper", || thread::sleep(Duration::from_secs(1000)));
        let asking = std::thread::spawn(move || {
            let mut client = Client::connect(&path);
            let reader = id_of(&mut client, "reader", "parked");
            let sleeper = id_of(&mut client, "sleeper", "parked");
            let main = id_of(&mut client, "main", "parked");
            for id in [reader, sleeper] {
                let cancelled = format!(r#"{{"cancelled":{id}}}"#);
                assert_eq!(client.ask(&format!("cancel {id}")), cancelled);
            }
            let refused = format!("coroutine {main} is the main coroutine of its runtime");
            assert_eq!(client.ask(&format!("cancel {main}")), error(&refused));
            for id in [reader, 0, u64::MAX] {
                let ended = error(&format!("there is no coroutine {id}, or it has ended"));
                until("it has ended", || {
                    client.ask(&format!("cancel {id}")) == ended
                });
                assert_eq!(client.ask(&format!("backtrace {id}")), ended);
            }
        });
        for handle in [read, sleeper] {
            assert!(handle.join().unwrap_err().is::<Cancelled>());
        }
        greenroom::join_thread(asking).unwrap();
    });
}

#[test]
#[serial]
fn the_coroutine_that_fires_timers_is_not_cancelled() {
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    util::on_workers(1, || {
        let (fired, fires) = shims::sync::mpsc::channel();
        let timer = greenroom::after(Duration::from_secs(1000), move || fired.send(()).unwrap());
        let asking = std::thread::spawn(move || {
            let mut client = Client::connect(&path);
            let keeper = id_of(&mut client, "timers", "parked");
            let refused = error(&format!(
                "coroutine {keeper} fires the timers of its runtime"
            ));
            assert_eq!(client.ask(&format!("cancel {keeper}")), refused);
        });
        greenroom::join_thread(asking).unwrap();
        assert!(timer.reset(Duration::ZERO));
        fires.recv_timeout(Duration::from_secs(60)).unwrap();
    });
}

#[test]
#[serial]
fn it_answers_while_a_coroutine_holds_its_worker() {
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    util::on_workers(1, || {
        let victim = named("victim", || thread::sleep(Duration::from_secs(1000)));
        let (hold, is_to_hold) = shims::sync::mpsc::channel();
        let [holds, release] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let asking = {
            let (holds, release) = (Arc::clone(&holds), Arc::clone(&release));
            std::thread::spawn(move || {
                let release = Finally(|| release.store(true, Ordering::SeqCst));
                let mut client = Client::connect(&path);
                let id = id_of(&mut client, "victim", "parked");
                hold.send(()).unwrap();
                until("the worker is held", || holds.load(Ordering::SeqCst));
                assert!(client.ask("metrics").starts_with(r#"{"pid":"#));
                let dump = client.ask("dump");
                let busy = r#""state":"busy","not_described":2"#;
                assert!(dump.contains(busy), "{dump}");
                let why =
                    format!("no worker that has answered has a coroutine {id}, but one is held");
                assert_eq!(client.ask(&format!("cancel {id}")), error(&why));
                drop(release);
                let cancelled = format!(r#"{{"cancelled":{id}}}"#);
                until("the worker answers", || {
                    client.ask(&format!("cancel {id}")) == cancelled
                });
            })
        };
        is_to_hold.recv().unwrap();
        holds.store(true, Ordering::SeqCst);
        while !release.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
        greenroom::join_thread(asking).unwrap();
        assert!(victim.join().unwrap_err().is::<Cancelled>());
    });
}

#[test]
#[serial]
fn the_threshold_of_the_monitor_is_set_and_its_hook_stays() {
    let (backdoor, _directory) = served();
    let mut client = Client::connect(backdoor.path());
    let (report, reports) = mpsc::channel();
    let report = std::sync::Mutex::new(report);
    greenroom::monitor_with(Duration::from_secs(1000), move |found| {
        let name = found.name().unwrap_or_default().to_owned();
        let _ = report.lock().unwrap().send(name);
    })
    .unwrap();
    assert_eq!(client.ask("threshold"), r#"{"threshold_ms":1000000}"#);
    assert_eq!(client.ask("threshold 20"), r#"{"threshold_ms":20}"#);
    let hold_until = |name: &str, is_over: &(dyn Fn() -> bool + Sync)| {
        util::on_workers(1, || {
            greenroom::scope(|scope| {
                let holder = Builder::new().name(name.into());
                holder
                    .spawn_scoped(scope, || {
                        while !is_over() {
                            std::hint::spin_loop();
                        }
                    })
                    .unwrap();
            });
        });
    };
    let reports = std::sync::Mutex::new(reports);
    let is_reported = |name: &'static str| {
        let reports = &reports;
        move || {
            reports
                .lock()
                .unwrap()
                .try_iter()
                .any(|found| found == name)
        }
    };
    hold_until("first", &is_reported("first"));

    assert_eq!(client.ask("threshold off"), r#"{"threshold_ms":null}"#);
    assert_eq!(client.ask("threshold"), r#"{"threshold_ms":null}"#);
    let start = Instant::now();
    hold_until("unseen", &|| start.elapsed() > Duration::from_millis(200));

    // What the monitor has found comes in order.
    assert_eq!(client.ask("threshold 10"), r#"{"threshold_ms":10}"#);
    let all = std::sync::Mutex::new(Vec::new());
    hold_until("last", &|| {
        let mut all = all.lock().unwrap();
        all.extend(reports.lock().unwrap().try_iter());
        all.iter().any(|name| name == "last")
    });
    let all = all.into_inner().unwrap();
    assert!(!all.contains(&"unseen".to_owned()), "{all:?}");
    assert_eq!(client.ask("threshold off"), r#"{"threshold_ms":null}"#);
}

#[test]
#[serial]
fn the_coroutines_of_two_runtimes_are_told_and_cancelled() {
    let (backdoor, _directory) = served();
    let start = |name: &'static str| {
        std::thread::spawn(move || {
            greenroom::run(|| {
                let waits = named(name, || thread::sleep(Duration::from_secs(1000)));
                waits.join().unwrap_err().is::<Cancelled>()
            })
        })
    };
    let runtimes = ["of one", "of the other"].map(start);
    let mut client = Client::connect(backdoor.path());
    let ids = ["of one", "of the other"].map(|name| id_of(&mut client, name, "parked"));
    let dump = client.ask("dump");
    let runtime_of = |name| {
        let described = described(&dump, name).unwrap();
        let (_, rest) = described.split_once(r#""runtime":"#).unwrap();
        rest.split(',').next().unwrap()
    };
    assert_ne!(runtime_of("of one"), runtime_of("of the other"), "{dump}");
    for id in ids {
        client.ask(&format!("cancel {id}"));
    }
    for runtime in runtimes {
        assert!(runtime.join().unwrap());
    }
}

#[test]
#[serial]
fn a_backdoor_is_closed_by_a_coroutine_while_a_client_waits_for_a_dump() {
    let (backdoor, _directory) = served();
    let path = backdoor.path().to_owned();
    let mut client = util::on_workers(1, || {
        let mut client = Client::connect(&path);
        client.send(b"dump\n");
        // No worker answers before this coroutine waits.
        drop(backdoor);
        client
    });
    until("the threads have ended", || threads_of_backdoors() == 0);
    let last = client.receive();
    // It may not have been accepted before that.
    assert!(
        last.is_empty() || last == error("the backdoor is closed"),
        "{last}"
    );
    assert!(!path.exists());
}
