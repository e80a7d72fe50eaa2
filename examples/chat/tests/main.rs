//! The program with raw sockets, Python's `websockets` and a browser.
//!
//! `.ci/run` has the list of Debian's packages with these clients. If a client is not on the machine, its tests
//! say so and pass, unless `GREENROOM_REQUIRE_CLIENTS` is set.

#![allow(
    dead_code,
    reason = "part of what these tests share with others is for the others"
)]

mod browser;
mod chat;
mod client;
mod frames;
mod handshake;
#[path = "../../../tests/examples/program.rs"]
mod program;
mod python;
#[path = "../../../tests/util/mod.rs"]
mod util;
mod webdriver;
