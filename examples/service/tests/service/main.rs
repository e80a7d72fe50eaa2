//! The service as a process, with clients that know nothing of greenroom.

mod client;
mod ends;
mod insight;
#[allow(dead_code, reason = "the tests of the other examples use more of it")]
#[path = "../../../../tests/examples/program.rs"]
mod program;
#[path = "../../../../tests/util/prometheus.rs"]
mod prometheus;
mod requests;

#[path = "../../../../tests/util/mod.rs"]
mod util;
