//! `examples/million.rs`, with fewer coroutines.

use crate::program::{command, example, succeed};

#[test]
fn all_coroutines_of_a_small_crowd_live_and_are_joined() {
    for more in [&[][..], &["--stack-size", "65536"]] {
        let mut million = command(example("million"));
        let output = succeed(million.args(["--count", "1000"]).args(more));
        let printed = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = printed.lines().collect();
        let starts = [
            "spawned and parked   ",
            "woken and joined     ",
            "page tables          ",
            "ok: 1000 coroutines, ",
        ];
        assert_eq!(lines.len(), starts.len(), "{printed}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{printed}");
        }
    }
}

#[test]
fn a_wrong_number_of_coroutines_is_an_error() {
    for wrong in [
        &["--count"][..],
        &["--count", "0"],
        &["--count", "many"],
        &["1000"],
    ] {
        let output = command(example("million")).args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stderr.starts_with(b"error: "), "{wrong:?}");
    }
}
