//! Shared by the benches.

#![allow(dead_code, reason = "each bench uses its part")]

use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion};
use greenroom::{Runtime, RuntimeBuilder, Unparker, park, spawn};

/// Runs `bench` with the arguments of the process.
///
/// The measurements are short, because on a shared machine no single run is exact, however long. To
/// compare two versions, run them in turns.
pub(crate) fn run(bench: fn(&mut Criterion)) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500))
        .configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}

/// A runtime whose only worker is the calling thread.
pub(crate) fn one_worker() -> Runtime {
    RuntimeBuilder::new().workers(1).build().expect("a runtime")
}

/// Measures round trips between two coroutines of one worker: two parks and two unparks each. The caller
/// parks by `await_pong`.
pub(crate) fn ping_pong(bencher: &mut Bencher<'_>, await_pong: impl Fn()) {
    let runtime = one_worker();
    bencher.iter_custom(|trips| {
        runtime.run(|| {
            let ping = Unparker::current();
            let pong = spawn(move || {
                for _ in 0..=trips {
                    park();
                    ping.unpark();
                }
            });
            let trip = || {
                pong.thread().unpark();
                await_pong();
            };
            trip(); // which starts the other
            let start = Instant::now();
            for _ in 0..trips {
                trip();
            }
            let elapsed = start.elapsed();
            pong.join().expect("a coroutine that does not panic");
            elapsed
        })
    });
}
