//! Under `panic = "abort"` nothing can unwind, so coroutines that are left at the end of a runtime are
//! left behind.

use std::path::Path;
use std::process::{Command, Output};

use serial_test::serial;

/// Builds `tests/fixtures/abort.rs` with panics that abort, and runs `case` of it.
fn under_abort(case: &str) -> Output {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abort");
    let built = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--offline", "--example", "abort"])
        .args(["--config", "profile.dev.panic=\"abort\""])
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{stderr}");
    Command::new(target.join("debug/examples/abort"))
        .arg(case)
        .output()
        .unwrap()
}

#[test]
#[serial]
fn runtimes_end_with_coroutines_left() {
    let output = under_abort("all");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    assert_eq!(stderr, "all came out well\n");
}

#[test]
#[serial]
fn a_coroutine_that_keeps_its_worker_goes_on_there_after_the_grace() {
    let output = under_abort("stubborn");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    assert!(
        stderr.contains("greenroom-1 is held by a coroutine"),
        "{stderr}"
    );
}
