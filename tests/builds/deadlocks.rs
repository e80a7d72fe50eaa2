//! Deadlocks are reported, and nothing else is.

use std::process::{Command, Output};

use serial_test::serial;

use crate::examples::built_example;

/// Runs a program. It is killed if it hangs.
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command
        .arg("100")
        .arg(built_example("deadlocks"))
        .args(arguments);
    command.output().unwrap()
}

#[track_caller]
fn assert_prints(arguments: &[&str], wanted: &str) {
    let output = run(arguments);
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed, wanted, "{arguments:?}: {complaints}");
}

#[test]
#[serial]
fn deadlocks_are_reported_with_all_coroutines() {
    assert_prints(&["lock-cycle"], "deadlock: main, a, b\nend\n");
    assert_prints(&["receives-in-vain"], "deadlock: main\nend\n");
    assert_prints(&["with-a-daemon"], "deadlock: main, daemon (daemon)\nend\n");
    assert_prints(&["after-everything-else"], "deadlock: main\nend\n");
    assert_prints(&["under-the-monitor"], "deadlock: main\nend\n");
    assert_prints(&["after-the-monitor"], "deadlock: main\nend\n");
    // In the order of their workers.
    for program in ["lock-cycle-on-two-workers", "joins-each-other"] {
        let printed = String::from_utf8(run(&[program]).stdout).unwrap();
        let either = ["deadlock: main, a, b\nend\n", "deadlock: main, b, a\nend\n"];
        assert!(either.contains(&&*printed), "{program}: {printed}");
    }
}

#[test]
#[serial]
fn a_hook_may_end_a_deadlock_and_hears_of_the_next_one() {
    assert_prints(&["resolved"], "deadlock: main\ndeadlock: main\nend\n");
}

#[test]
#[serial]
fn a_hook_may_dump_all_coroutines_with_their_stacks() {
    for workers in ["1", "2"] {
        let output = run(&["dumps-in-the-hook", workers]);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.ends_with("end\n"), "{printed}");
        assert_has_all_stacks(&printed);
    }
}

/// The text has a dump of `lock_cycle`, in which no coroutine is missing.
#[track_caller]
fn assert_has_all_stacks(text: &str) {
    let all = "greenroom: 3 coroutines: 0 running, 0 ready, 3 parked, 0 fresh\n\n\
        these coroutines wait for each other, and will for ever:\n";
    assert!(text.contains(all), "{text}");
    for (reason, count) in [("mutex", "2 coroutines"), ("join", "1 coroutine")] {
        let group = format!("\n\n{count}, parked ({reason}), spawned at tests/fixtures/");
        let (_, group) = text.split_once(&group).unwrap_or_else(|| panic!("{text}"));
        let (group, _) = group.split_once("\n\n").unwrap();
        assert!(group.contains(" so far; stack "), "{text}");
        // An optimised build may have inlined the function.
        let is_there = group.contains("deadlocks::lock_cycle");
        assert!(is_there || cfg!(not(debug_assertions)), "{text}");
    }
}

#[test]
#[serial]
fn a_deadlock_aborts_the_process_if_asked_to() {
    let output = run(&["aborts"]);
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        complaints.contains("all coroutines wait for each other"),
        "{complaints}"
    );
    // Main is the first whose number was asked for.
    let line = |name: &str| {
        let mut lines = complaints.lines();
        let found = lines.find(|line| {
            line.contains(&format!(
                "'{name}' (spawned at tests/fixtures/deadlocks.rs:"
            ))
        });
        found.unwrap_or_else(|| panic!("{complaints}")).to_owned()
    };
    assert!(line("main").ends_with("'a'"), "{complaints}");
    assert!(line("main").contains(" joins "), "{complaints}");
    assert!(
        line("a").contains(" waits for a mutex at 0x"),
        "{complaints}"
    );
    assert!(line("a").ends_with("'b' has"), "{complaints}");
    assert!(line("b").ends_with("'a' has"), "{complaints}");
    assert_has_all_stacks(&complaints);
}

#[test]
#[serial]
fn waits_that_will_end_are_not_reported() {
    for program in [
        "sleeps",
        "reads",
        "waits-for-a-child",
        "waits-for-a-signal",
        "has-a-job",
        "a-thread-has-the-handle",
        "has-a-timer",
        "selects-a-descriptor",
        "looks-never",
    ] {
        assert_prints(&[program], "end\n");
    }
}

#[test]
#[serial]
fn random_cycles_of_locks_and_joins_are_reported_unless_a_link_is_missing() {
    for seed in 0..60 {
        assert_prints(&["cycle", &seed.to_string()], "end\n");
    }
}

#[test]
#[serial]
fn random_programs_are_reported_if_and_only_if_they_deadlock() {
    let count = if cfg!(debug_assertions) {
        "2000"
    } else {
        "10000"
    };
    let output = run(&["random", count, "60"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    println!("{printed}");
    assert!(printed.ends_with("end\n"), "{printed}{complaints}");
    let count = printed.split(' ').next().map(str::parse);
    assert!(matches!(count, Some(Ok(200u32..))), "{printed}");
}
