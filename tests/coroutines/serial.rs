//! Coroutine tests that run one at a time: they count turns, wake-ups, jobs or all coroutines, which other
//! tests would disturb.

use serial_test::serial;

#[path = "../util/mod.rs"]
mod util;

mod blocking;
mod dump_callers;
mod dump_trees;
mod dumps;
mod fairness;
mod metrics;
mod poison;
mod profiles;
mod turns;
mod wakes;
mod yields;

#[test]
#[serial]
fn each_test_is_serial() {
    util::assert_serial("coroutines/serial.rs");
}
