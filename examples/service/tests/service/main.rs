//! The service as a process, with clients that know nothing of greenroom.

mod client;
mod ends;
mod insight;
#[path = "../../../../tests/examples/program.rs"]
mod program;
#[path = "../../../../tests/util/prometheus.rs"]
mod prometheus;
mod requests;
#[path = "../../../../tests/util/mod.rs"]
mod util;
