//! What the tests share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::RuntimeBuilder;

/// How long a test may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs `test` wherever it must come out the same: on an OS thread with no runtime of its own,
/// and in a coroutine on one worker and on four.
#[track_caller]
pub(crate) fn everywhere(test: impl Fn()) {
    on_an_os_thread(&test);
    on_workers(1, &test);
    on_workers(4, &test);
}

/// Runs `test` on the calling OS thread; a hang ends the process.
pub(crate) fn on_an_os_thread<T>(test: impl FnOnce() -> T) -> T {
    watched("on an OS thread", test)
}

/// Runs `test` as the main coroutine of a runtime with so many workers; a hang ends the process.
pub(crate) fn on_workers<T>(workers: usize, test: impl FnOnce() -> T) -> T {
    let place = format!("on {workers} workers");
    watched(&place, || {
        let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
        runtime.run(test)
    })
}

/// Says where a test failed, and does not let it hang.
fn watched<T>(place: &str, test: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let watchdog = std::thread::spawn({
        let (over, place) = (Arc::clone(&over), place.to_owned());
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        move || {
            let start = Instant::now();
            while !over.load(Ordering::Acquire) {
                if start.elapsed() > PATIENCE {
                    eprintln!("{test} hangs {place}");
                    std::process::abort();
                }
                std::thread::park_timeout(PATIENCE);
            }
        }
    });
    let result = catch_unwind(AssertUnwindSafe(test));
    over.store(true, Ordering::Release);
    watchdog.thread().unpark();
    watchdog.join().unwrap();
    result.unwrap_or_else(|payload| {
        eprintln!("failed {place}");
        resume_unwind(payload)
    })
}

/// The number of descriptors that this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
