//! perf and coroutines: their names in its call graphs, and what the example prints of their waits.

use std::io::{self, Write};

use crate::program::{Directory, command, example, have, succeed};

/// Whether there is a perf, and the kernel lets it take samples.
fn can_profile(directory: &Directory) -> bool {
    if !have(&["perf"]) {
        return false;
    }
    let mut perf = command("perf");
    let perf = perf.args(["record", "-e", "cpu-clock", "-o"]);
    let output = perf.arg(directory.join("probe")).args(["--", "true"]);
    let output = output.output().unwrap();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        // Past the harness, which keeps to itself what a test prints.
        let _ = writeln!(io::stderr(), "NOT TESTED: perf takes no samples: {why}");
    }
    output.status.success()
}

/// The functions of each sample, innermost first.
fn samples(script: &str) -> Vec<Vec<&str>> {
    let samples = script.split("\n\n");
    let frames = samples.map(|sample| {
        let lines = sample.lines().map(str::trim_start);
        lines
            .filter_map(|line| line.split_once(' '))
            .map(|(_address, function)| function)
            .collect()
    });
    frames.collect()
}

#[test]
fn perf_shows_the_names_of_coroutines_at_the_end_of_its_call_graphs() {
    let directory = Directory::new();
    if !cfg!(target_arch = "x86_64") || !can_profile(&directory) {
        return;
    }
    let data = directory.join("data");
    let mut perf = command("perf");
    let perf = perf.args([
        "record",
        "-e",
        "cpu-clock",
        "-F",
        "2999",
        "--call-graph",
        "dwarf",
        "-o",
    ]);
    succeed(perf.arg(&data).arg("--").arg(example("profile")));
    let script = |fields: &str| {
        let mut perf = command("perf");
        let perf = perf.args(["script", "--no-inline", "-F", fields, "-i"]);
        String::from_utf8(succeed(perf.arg(&data)).stdout).unwrap()
    };
    let processes = script("pid");
    let process: u32 = processes
        .lines()
        .next_back()
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let script = script("ip,sym");
    std::fs::remove_file(format!("/tmp/perf-{process}.map")).unwrap();

    let mut computing = samples(&script);
    computing.retain(|sample| {
        sample
            .iter()
            .any(|frame| frame.contains("profile::compute"))
    });
    let of = |name: &str| {
        let ends = computing
            .iter()
            .filter(|sample| sample.last() == Some(&name));
        ends.count()
    };
    let (heavy, light) = (of("coroutine heavy"), of("coroutine light"));
    assert!(heavy > light && light > 0, "{heavy}, {light}: {script}");
    // Perf does without some frames, if it has lost a part of the stack.
    let others = computing.len() - heavy - light;
    assert!(others <= computing.len() / 10, "{script}");
}

#[test]
fn the_example_prints_where_its_coroutines_wait() {
    let output = succeed(&mut command(example("profile")));
    let folded = String::from_utf8(output.stdout).unwrap();
    let waits = |name: &str, function: &str, reason: &str| -> u64 {
        let lines = folded.lines().map(|line| line.rsplit_once(' ').unwrap());
        let found = lines.filter(|(stack, _)| {
            let frames: Vec<_> = stack.split(';').collect();
            frames[0] == name && frames.contains(&function) && frames.last() == Some(&reason)
        });
        found
            .map(|(_, micros)| micros.parse::<u64>().unwrap())
            .sum()
    };
    // 300 times two milliseconds.
    assert!(
        waits("feeder", "profile::feed", "sleep") > 300_000,
        "{folded}"
    );
    // On a slow machine the heavy one always has a job.
    assert!(waits("light", "profile::work", "receive") > 0, "{folded}");
}
