//! The program.

use std::process::{Command, Output};

use crate::postgres_server;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let program = env!("CARGO_BIN_EXE_database");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program).args(arguments).output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    (status.code(), stdout, stderr)
}

#[test]
fn the_table_tells_that_only_the_pool_needs_threads() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    let (status, stdout, stderr) = run(&[
        "--port",
        &server.port().to_string(),
        "--user",
        "test",
        "--queries",
        "40",
        "--connections",
        "20",
    ]);
    assert_eq!((status, &*stderr), (Some(0), ""), "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[0], "40 queries of 500ms on 20 connections");
    let mut ways = Vec::new();
    for line in &lines[2..] {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [way, seconds, threads, memory, "MiB", right, "of", of] = fields[..] else {
            panic!("{stdout}")
        };
        ways.push(way);
        assert_eq!((right, of), ("40", "40"));
        // Two rounds of half a second.
        assert!(
            seconds.trim_end_matches('s').parse::<f64>().unwrap() >= 1.0,
            "{stdout}"
        );
        assert!(memory.parse::<usize>().unwrap() > 0, "{stdout}");
        let threads: usize = threads.parse().unwrap();
        match way {
            "threads" => assert!(threads > 20, "{stdout}"),
            // main, the worker, and a thread that resolves names.
            _ => assert!(threads <= 3, "{stdout}"),
        }
    }
    assert_eq!(ways, ["threads", "patch", "wire"]);
}

#[test]
fn errors_are_told_and_end_the_program_with_a_status() {
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["--port", "1", "--queries", "2", "--way", "wire"],
            1,
            "refused",
        ),
        (
            &["--port", "1", "--queries", "2", "--way", "patch"],
            1,
            "refused",
        ),
        (
            &["--port", "1", "--queries", "2", "--way", "threads"],
            1,
            "refused",
        ),
        (
            &["--host", "/nonexistent", "--queries", "1"],
            1,
            "No such file",
        ),
        (
            &["--port", "seven"],
            2,
            "--port seven: this is no such number",
        ),
        (&["--way", "sideways"], 2, "unknown way sideways"),
        (&["--connections", "0"], 2, "there must be one"),
        (&["--queries"], 2, "--queries has no value"),
        (&["please", "1"], 2, "unknown option please"),
    ];
    for (arguments, wanted, why) in cases {
        let (status, _, stderr) = run(arguments);
        assert_eq!(status, Some(*wanted), "{arguments:?}: {stderr}");
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    }
    let (status, stdout, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("Usage: database"));
}
