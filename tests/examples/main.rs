//! The larger examples, each run as a program, with clients that know nothing of greenroom: raw sockets, curl,
//! git, wrk, Python; and gdb and perf.
//!
//! `.ci/run` has the list of Debian's packages with these clients. If a client is not on the machine, its tests
//! say so and pass, unless `GREENROOM_REQUIRE_CLIENTS` is set.

mod arguments;
mod chunked;
mod datagrams;
mod dates;
mod debugger;
mod dht;
mod echo;
mod git_http;
mod handles;
mod million;
mod perf;
mod program;
mod request_id;
mod restarts;
mod scarce;
mod slow_clients;
mod transports;
mod upload;
#[path = "../util/mod.rs"]
mod util;
mod web;
