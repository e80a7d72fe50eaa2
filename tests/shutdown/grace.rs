//! A coroutine that does not end with its runtime is waited for, then named and left behind.
//!
//! Each case runs in a process of its own: this test binary, started again.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use greenroom::{Builder, RuntimeBuilder, catch_cancel, shield, timeout, yield_now};

use crate::util;

const LONG: Duration = Duration::from_secs(1_000);
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `case` in a child, as the main coroutine of a runtime. Returns the child's standard error; `None`
/// in the child itself, after the runtime has ended.
fn in_a_child(test: &str, workers: usize, grace: Duration, case: fn()) -> Option<Output> {
    in_a_child_that_writes_to(Stdio::piped(), test, workers, grace, case)
}

/// As `in_a_child`, but the child's standard error is `stderr`.
fn in_a_child_that_writes_to(
    stderr: Stdio,
    test: &str,
    workers: usize,
    grace: Duration,
    case: fn(),
) -> Option<Output> {
    if let Some(workers) = util::role() {
        let workers = workers.parse().unwrap();
        util::on_an_os_thread(|| {
            let builder = RuntimeBuilder::new().workers(workers).grace(grace);
            builder.build().unwrap().run(case);
        });
        return None;
    }
    let mut child = util::again!(test, &workers.to_string())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{test}: the child hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(child.wait_with_output().unwrap())
}

#[track_caller]
fn assert_ended_naming(output: Option<Output>, names: &[&str]) {
    let Some(output) = output else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    assert!(stderr.contains("have not ended"), "{stderr}");
    for name in names {
        let line = stderr.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not named in {stderr}"));
        assert!(
            line.contains("spawned at tests/shutdown/grace.rs:"),
            "{stderr}"
        );
    }
}

/// Spawns `f` under `name`. Returns when it runs.
fn start(name: &str, f: impl FnOnce() + Send + 'static) {
    let (running, started) = std::sync::mpsc::channel();
    let body = move || {
        running.send(()).unwrap();
        f();
    };
    Builder::new().name(name.into()).spawn(body).unwrap();
    while started.try_recv().is_err() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_coroutine_that_catches_the_unwind_and_waits_again_is_named() {
    for workers in [1, 4] {
        let test = "a_coroutine_that_catches_the_unwind_and_waits_again_is_named";
        let output = in_a_child(test, workers, Duration::from_secs(5), || {
            start("stubborn", || {
                loop {
                    let _ = catch_unwind(|| thread::sleep(LONG));
                }
            });
            start("obedient", || thread::sleep(LONG));
        });
        if let Some(output) = &output {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("obedient"), "{stderr}");
            assert!(
                stderr.contains("has caught its cancellation 255 times"),
                "{stderr}"
            );
        }
        assert_ended_naming(output, &["'stubborn'"]);
    }
}

#[test]
fn a_coroutine_that_caught_its_cancellation_to_clean_up_is_blamed_if_it_waits_on() {
    for workers in [1, 4] {
        let test = "a_coroutine_that_caught_its_cancellation_to_clean_up_is_blamed_if_it_waits_on";
        let output = in_a_child(test, workers, Duration::from_secs(5), || {
            start("stubborn", || {
                loop {
                    let _ = catch_cancel(|| thread::sleep(LONG));
                }
            });
            start("thorough", || {
                let _ = catch_cancel(|| thread::sleep(LONG));
                shield(|| {
                    for _ in 0..3 {
                        let _ = timeout(Duration::from_millis(1), || thread::sleep(LONG));
                    }
                    thread::sleep(LONG);
                });
            });
        });
        if let Some(output) = &output {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let line = |name| stderr.lines().find(|line| line.contains(name)).unwrap();
            let times = "has caught its cancellation 255 times";
            assert!(line("'stubborn'").contains(times), "{stderr}");
            assert!(!line("'thorough'").contains("caught"), "{stderr}");
        }
        assert_ended_naming(output, &["'stubborn'", "'thorough'"]);
    }
}

#[test]
fn a_coroutine_that_is_always_ready_is_named() {
    let test = "a_coroutine_that_is_always_ready_is_named";
    let output = in_a_child(test, 1, Duration::from_millis(200), || {
        start("restless", || {
            loop {
                yield_now();
            }
        });
    });
    assert_ended_naming(output, &["'restless'"]);
}

#[test]
fn a_coroutine_that_keeps_its_thread_stays_there_and_what_others_have_left_is_named() {
    let test = "a_coroutine_that_keeps_its_thread_stays_there_and_what_others_have_left_is_named";
    static STARTED: AtomicBool = AtomicBool::new(false);
    let output = in_a_child(test, 3, Duration::from_millis(200), || {
        // This worker is kept busy until other workers have taken both.
        for name in ["blocked", "also blocked"] {
            STARTED.store(false, SeqCst);
            let block = || {
                STARTED.store(true, SeqCst);
                std::thread::sleep(LONG);
            };
            Builder::new().name(name.into()).spawn(block).unwrap();
            while !STARTED.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        let stubborn = || {
            loop {
                let _ = catch_unwind(|| thread::sleep(LONG));
            }
        };
        start("stubborn", stubborn);
    });
    if let Some(output) = &output {
        let stderr = String::from_utf8_lossy(&output.stderr);
        for worker in ["greenroom-1", "greenroom-2"] {
            assert!(stderr.contains(&format!("{worker} is held")), "{stderr}");
        }
    }
    assert_ended_naming(output, &["'stubborn'"]);
}

#[test]
fn the_runtime_ends_if_stderr_cannot_be_written() {
    let test = "the_runtime_ends_if_stderr_cannot_be_written";
    let full = File::create("/dev/full").unwrap().into();
    let grace = Duration::from_millis(200);
    let output = in_a_child_that_writes_to(full, test, 1, grace, || {
        start("restless", || {
            loop {
                yield_now();
            }
        });
    });
    if let Some(output) = output {
        assert!(output.status.success(), "{}", output.status);
    }
}

/// A thread outside of the runtime joins it, and waits for ever.
#[test]
fn a_coroutine_that_was_left_behind_never_ends() {
    let runtime = RuntimeBuilder::new().workers(1).grace(Duration::ZERO);
    let runtime = runtime.build().unwrap();
    let restless = runtime.spawn(|| {
        loop {
            yield_now();
        }
    });
    runtime.run(yield_now);
    drop(runtime);
    assert!(!restless.is_finished());
    let (joined, is_joined) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = restless.join();
        joined.send(()).unwrap();
    });
    assert!(is_joined.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn coroutines_that_end_within_the_grace_are_waited_for() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    let runtime = RuntimeBuilder::new().workers(2).grace(LONG);
    let runtime = runtime.build().unwrap();
    runtime.run(|| {
        start("slow", || {
            for _ in 0..20 {
                let _ = catch_unwind(AssertUnwindSafe(|| thread::sleep(LONG)));
                std::thread::sleep(Duration::from_millis(10));
            }
            ENDED.store(true, SeqCst);
        });
    });
    drop(runtime);
    assert!(ENDED.load(SeqCst));
}
