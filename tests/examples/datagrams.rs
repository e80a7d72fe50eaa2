//! `examples/tracker.rs` and `examples/dht`, with other programs on the other side.

use std::ffi::OsStr;
use std::process::Command;

use crate::program::{Server, book, command, example, have, succeed};

fn python(name: &str) -> Command {
    let mut python = command("python3");
    python.arg(book(name));
    python
}

#[test]
fn a_thousand_trackers_of_which_half_are_silent_take_as_long_as_one() {
    // Long enough for those that answer, on a busy machine, too.
    let output = succeed(command(example("tracker")).args(["--patience", "10"]));
    let table = String::from_utf8(output.stdout).unwrap();
    let last = "500 of 1000 trackers have answered, 500 not within 10 s; this took 1 OS thread\n";
    assert!(table.ends_with(last), "{table}");
    let took = String::from_utf8(output.stderr).unwrap();
    eprintln!("{took}");
    let seconds = took.trim_start_matches("after ").trim_end_matches(" s\n");
    let seconds: f64 = seconds.parse().unwrap();
    assert!(
        (10.0..100.0).contains(&seconds),
        "one after another they take 5000 s"
    );
}

#[test]
fn a_tracker_that_answers_one_that_refuses_and_one_that_is_not_there_are_told_apart() {
    if !have(&["python3"]) {
        return;
    }
    let server = Server::start_command(&mut python("tracker.py"));
    let address = server.address.to_string();
    let ask = |torrent: &str| {
        let mut tracker = command(example("tracker"));
        // Nobody has the first port. One that the system gives may be given to another test, too.
        tracker.args([torrent, &address, "127.0.0.1:1", "127.0.0.1:port"]);
        String::from_utf8(succeed(&mut tracker).stdout).unwrap()
    };
    let known = ask(&"ab".repeat(20));
    let words: Vec<&str> = known.lines().flat_map(str::split_whitespace).collect();
    assert!(
        words.windows(3).any(|row| row == ["11", "22", "33"]),
        "{known}"
    );
    assert!(known.contains("Connection refused"), "{known}");
    assert!(known.contains("invalid port"), "{known}");
    assert!(
        known.contains("1 of 3 trackers have answered, 0 not"),
        "{known}"
    );
    let unknown = ask(&"00".repeat(20));
    assert!(
        unknown.contains(&format!("{address:<20} unknown torrent\u{fffd}[2J\n")),
        "{unknown}"
    );

    let wrong = command(example("tracker"))
        .args(["ab", &address])
        .output()
        .unwrap();
    assert!(!wrong.status.success());
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        told.starts_with("error: a hash has 40 hex digits\n"),
        "{told}"
    );
}

#[test]
fn a_node_of_the_hash_table_answers_another_program_and_bears_garbage() {
    if !have(&["python3"]) {
        return;
    }
    let start = |arguments: &[&str]| {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        Server::start("dht", &arguments)
    };
    let mut first = start(&["127.0.0.1:0"]);
    let second = start(&["127.0.0.1:0", &first.address.to_string()]);
    let ports = [&first, &second].map(|server| server.address.port().to_string());
    for _ in 0..3 {
        let output = succeed(python("dht_client.py").args(&ports));
        assert_eq!(output.stdout, b"ok\n");
    }
    first.assert_alive();
}
