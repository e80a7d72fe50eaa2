//! The program, with servers that know nothing of greenroom.
//!
//! Without Python on the machine, the tests of its servers say so and pass, unless `GREENROOM_REQUIRE_CLIENTS` is set.

#![allow(
    dead_code,
    reason = "part of what these tests share with others is for the others"
)]

mod https;
mod pages;
#[path = "../../../tests/examples/program.rs"]
mod program;
mod servers;
#[path = "../../../tests/util/mod.rs"]
mod util;

use std::process::Output;

fn fetch(arguments: &[&str]) -> Output {
    let mut program = program::command(env!("CARGO_BIN_EXE_fetch"));
    program.args(arguments).output().unwrap()
}

/// Fetches pages at the same time, and compares the beginning of what is told of each. Some must fail.
#[track_caller]
fn assert_told(options: &[&str], cases: &[(String, &str)]) {
    let urls: Vec<_> = cases.iter().map(|(url, _)| url.as_str()).collect();
    let fetched = fetch(&[options, &urls].concat());
    assert!(!fetched.status.success());
    let told = String::from_utf8([fetched.stdout, fetched.stderr].concat()).unwrap();
    for (url, wanted) in cases {
        let line = format!("{url}: {wanted}");
        let is_told = told.lines().any(|told| told.starts_with(&line));
        assert!(is_told, "{line}\n{told}");
    }
    assert_eq!(told.lines().count(), cases.len(), "{told}");
}

#[test]
fn without_arguments_it_prints_what_it_quotes() {
    let source = include_str!("../src/main.rs");
    let mut lines = source.lines();
    assert!(lines.any(|line| line == "//! $ cargo run -p fetch"));
    let quoted = lines.take_while(|&line| line != "//! ```");
    let quoted: Vec<_> = quoted.map(|line| line.trim_start_matches("//! ")).collect();
    let output = fetch(&[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().collect::<Vec<_>>(), quoted);
    assert!(output.status.success());
}
