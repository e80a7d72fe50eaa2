//! Timers and deadlines, beyond what std promises: see also `tests/behaviour`.

use serial_test::serial;

#[path = "../util/mod.rs"]
mod util;

mod after;
mod every;
mod timing;

/// Tests that count memory or descriptors, or fork, run alone.
#[test]
#[serial]
fn each_test_is_serial_or_parallel() {
    util::assert_serial("time/main.rs");
}
