//! I/O tests that run one at a time: they count the descriptors or threads of the process, expect a
//! descriptor number, replace the resolver, or load all workers.

use serial_test::serial;

#[path = "../util/mod.rs"]
mod util;

mod closing;
mod listeners;
mod patience;
mod resolver;
mod reuse;
mod select;
mod state;
mod trackers;
mod wait_fd;

#[test]
#[serial]
fn each_test_is_serial() {
    util::assert_serial("io/serial.rs");
}
