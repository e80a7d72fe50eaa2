//! Tests in processes of their own.

use std::any::type_name;
use std::process::Command;
use std::time::Duration;

use greenroom::RuntimeBuilder;

use crate::threads::{count_as_worker, named};

/// The environment variable that tells a process that it is for one test alone.
const ALONE: &str = "GREENROOM_ALONE";

/// How long a test may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(100);

/// Runs the test, which is the calling function and consists of this call, in a process of its own.
#[track_caller]
pub(crate) fn alone<T: FnOnce()>(test: T) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    // The harness leaves out the name of the crate.
    let name = type_name::<T>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").expect("a path").1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "")
        .env("RUST_BACKTRACE", "0");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    eprint!("{err}");
    assert!(output.status.success(), "{}: {out}", output.status);
    assert!(out.contains(" 1 passed"), "{name} was not found: {out}");
}

/// Runs `test` on a coroutine of a runtime with one worker, which is the calling thread. If it hangs, the process
/// ends.
pub(crate) fn on_one_worker<R>(test: impl FnOnce() -> R) -> R {
    count_as_worker();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let watch = move || {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        if is_over.recv_timeout(HUNG) == Err(Timeout) {
            eprintln!("the test hangs");
            std::process::abort();
        }
    };
    let watchdog = named("watchdog").spawn(watch).unwrap();
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    let result = runtime.run(test);
    drop(over);
    watchdog.join().unwrap();
    result
}
