//! What the benches share.

use std::time::Duration;

use criterion::Criterion;
use greenroom::{Runtime, RuntimeBuilder};

/// Runs `bench` with the arguments of the process.
///
/// Short, because on a machine that is shared no single run is exact, however long: to compare
/// two versions, run them by turns.
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
