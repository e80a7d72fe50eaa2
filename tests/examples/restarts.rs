//! `examples/server.rs` and `examples/web.rs`, restarted under the load of wrk. (`examples/restarts.rs` restarts the
//! first with clients of its own.)

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::program::{PATIENCE, command, example, have};

/// Servers, each of which takes over from the one before.
pub(crate) struct Servers {
    first: Child,
    /// What they log. Disconnected when the last one has ended.
    log: Receiver<String>,
}

impl Servers {
    pub(crate) fn start(name: &str) -> Servers {
        let mut server = Command::new(example(name));
        let server = server.arg("127.0.0.1:0").stdin(Stdio::null());
        let server = server.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut first = server.spawn().unwrap();
        let lines = BufReader::new(first.stderr.take().unwrap()).lines();
        let (say, log) = mpsc::channel();
        thread::spawn(move || {
            for line in lines {
                let _ = say.send(line.unwrap());
            }
        });
        Servers { first, log }
    }

    /// Waits until the next server serves. Returns its process and its address.
    pub(crate) fn next(&self) -> (Pid, String) {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap();
            if let Some((process, address)) = line.split_once(" serves on ") {
                let process = Pid::from_raw(process.parse().unwrap());
                return (process.unwrap(), address.to_owned());
            }
        }
    }

    /// Waits for a line with this text.
    pub(crate) fn wait_for(&self, text: &str) {
        while !self.log.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }

    /// Ends the last one.
    pub(crate) fn end(mut self, last: Pid) {
        kill_process(last, Signal::TERM).unwrap();
        while self.log.recv_timeout(PATIENCE).is_ok() {}
        self.first.wait().unwrap();
    }
}

#[test]
fn wrk_loses_no_connection_to_a_server_that_is_restarted() {
    restart_under_load("server", "/1000");
}

#[test]
fn wrk_loses_no_connection_to_a_web_site_that_is_reloaded() {
    restart_under_load("web", "/plaintext");
}

#[test]
fn a_successor_that_fails_leaves_no_process_and_the_server_serves_on() {
    for name in ["server", "web"] {
        let servers = Servers::start(name);
        let (process, address) = servers.next();
        // After a request, the server has its memory. Its successor does not get enough to start.
        let mut client = TcpStream::connect(&address).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        client.write_all(request).unwrap();
        io::copy(&mut client, &mut io::sink()).unwrap();
        let limit = getrlimit(Resource::As);
        let little = Rlimit {
            current: Some(4 << 20),
            ..limit
        };
        prlimit(Some(process), Resource::As, little).unwrap();
        kill_process(process, Signal::HUP).unwrap();
        servers.wait_for(" has no successor: it has not become ready");
        assert_eq!(children(process), Vec::<String>::new(), "{name}");
        prlimit(Some(process), Resource::As, limit).unwrap();
        assert!(TcpStream::connect(&address).is_ok());
        kill_process(process, Signal::HUP).unwrap();
        let (process, _) = servers.next();
        servers.end(process);
    }
}

/// The status of each child of a process, also of those that have ended and were not waited for.
fn children(parent: Pid) -> Vec<String> {
    let parent = format!("\nPPid:\t{}\n", parent.as_raw_nonzero());
    let processes = fs::read_dir("/proc").unwrap();
    let statuses = processes
        .filter_map(|process| fs::read_to_string(process.unwrap().path().join("status")).ok());
    statuses.filter(|status| status.contains(&parent)).collect()
}

fn restart_under_load(server: &str, path: &str) {
    if !have(&["wrk"]) {
        return;
    }
    let servers = Servers::start(server);
    let (mut process, address) = servers.next();
    let url = format!("http://{address}{path}");
    let wrk = thread::spawn(move || {
        // A server may close a kept connection before the next request has reached it.
        let mut wrk = command("wrk");
        wrk.args(["--connections=50", "--duration=10s", "--timeout=60s"]);
        wrk.args(["--header=Connection: close", &url]);
        wrk.output().unwrap()
    });
    let mut restarts = 0;
    while !wrk.is_finished() {
        thread::sleep(Duration::from_millis(100));
        kill_process(process, Signal::HUP).unwrap();
        (process, _) = servers.next();
        restarts += 1;
    }
    servers.end(process);

    assert_no_errors(wrk.join().unwrap());
    assert!(restarts > 1, "{restarts}");
}

/// Checks that wrk has had answers, and none that it complains of.
#[track_caller]
pub(crate) fn assert_no_errors(wrk: Output) {
    let report = String::from_utf8(wrk.stdout).unwrap();
    let requests = report.split(" requests in").next().unwrap();
    let requests = requests.split_whitespace().next_back().unwrap();
    assert!(requests.parse::<u64>().unwrap() > 0, "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    assert!(!report.contains("Non-2xx"), "{report}");
}
