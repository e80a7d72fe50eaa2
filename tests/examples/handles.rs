//! `examples/handles` and `examples/eof.rs`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use crate::program::{Directory, Server, command, example, succeed};
use crate::util::until;

const KINDS: [&str; 15] = [
    "timer", "tcp", "udp", "pipe", "tty", "poll", "idle", "async", "signal", "process", "fs",
    "fs-event", "dns", "work", "makefile",
];

fn handles(arguments: &[&str]) -> Command {
    let mut handles = command(example("handles"));
    handles.args(arguments);
    handles
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_handle_by_itself_shows_what_it_shows_among_all() {
    let all = text(succeed(&mut handles(&["all"])));
    let mut one_by_one = String::new();
    for kind in KINDS {
        let shown = text(succeed(&mut handles(&[kind])));
        assert!(shown.starts_with(&format!("{kind} ")), "{shown}");
        one_by_one += &shown;
    }
    assert_eq!(one_by_one, all);
    // Some of them change what belongs to the process.
    let backwards: Vec<_> = KINDS.iter().rev().copied().collect();
    let mut lines: Vec<_> = all.lines().collect();
    let shown = text(succeed(&mut handles(&backwards)));
    let mut shown: Vec<_> = shown.lines().collect();
    lines.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, lines);
}

#[test]
fn handles_leave_no_file_behind() {
    let directory = Directory::new();
    succeed(handles(&["all"]).env("TMPDIR", directory.path()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_handle_whose_name_is_wrong_is_an_error_before_any_is_shown() {
    let output = handles(&["timer", "timre"]).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.starts_with("error: no handle 'timre'\nUsage: handles [all|timer|tcp|"));
}

#[test]
fn a_handle_that_fails_is_named() {
    let output = handles(&["timer", "fs", "tcp"])
        .env("TMPDIR", "/nowhere")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.starts_with("error: fs: No such file"),
        "{complaint}"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("timer ") && shown.lines().count() == 1);
}

fn eof(end: &str) -> Server {
    Server::start("eof", &[end.as_ref(), "127.0.0.1:0".as_ref()])
}

/// A reset does not take from the client what the server has sent before.
fn read_data(stream: &mut TcpStream) {
    let mut data = [0; 4];
    stream.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"DATA");
}

fn assert_at_the_end_for_ever(stream: &mut TcpStream) {
    for _ in 0..100 {
        assert_eq!(stream.read(&mut [0; 100]).unwrap(), 0);
    }
}

#[test]
fn a_client_of_a_server_that_closes_reads_the_data_and_then_the_end_for_ever() {
    let server = eof("close");
    let mut client = server.connect();
    read_data(&mut client);
    assert_at_the_end_for_ever(&mut client);
}

#[test]
fn a_client_of_a_server_that_resets_reads_the_data_and_one_error_and_then_the_end_for_ever() {
    for end in ["reset", "unread"] {
        let server = eof(end);
        let mut client = server.connect();
        if end == "unread" {
            client.write_all(b"hello").unwrap();
        }
        read_data(&mut client);
        let error = client.read(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{end}");
        assert_at_the_end_for_ever(&mut client);
    }
}

#[test]
fn clients_that_go_away_end_no_other_conversation() {
    let mut server = eof("unread");
    let mut patient = server.connect();
    // With this one, the server has all descriptors that it keeps.
    let mut first = server.connect();
    first.write_all(b"hello").unwrap();
    read_data(&mut first);
    let served = server.open_descriptors();
    for _ in 0..100 {
        drop(server.connect());
    }
    patient.write_all(b"hello").unwrap();
    read_data(&mut patient);
    server.assert_alive();
    until("the connections are closed", || {
        server.open_descriptors() < served
    });
}

#[test]
fn eof_says_what_is_wrong_with_its_arguments() {
    for (arguments, complaint) in [
        (&["close"][..], "error: no end and address\n"),
        (&["shut", "127.0.0.1:0"], "error: no end 'shut'\n"),
        (&["close", "nowhere"], "error: "),
    ] {
        let output = command(example("eof")).args(arguments).output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(complaint), "{said}");
        assert!(said.ends_with("Usage: eof [close|reset|unread IP:PORT]\n"));
    }
}
