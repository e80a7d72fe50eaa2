//! Sockets, files and terminals, beyond what std promises: see also `tests/behaviour`.

#[path = "../util/mod.rs"]
mod util;

mod addresses;
mod connect_within;
mod copy;
mod descriptor_limit;
mod fs;
mod listen_options;
mod makefile;
mod room;
mod socket2;
mod stalls;
mod terminal;
mod unix;
