//! `cargo greenroom run`: an unmodified program, and everything that it depends on, on greenroom's
//! green threads.
//!
//! # How it works
//!
//! 1. The *facade*, `greenroom-std`, is greenroom's shims under the name of std. It is built for the
//!    program's target, profile and flags (`facade`).
//! 2. cargo then builds the program as usual, into a target directory of its own, with this program
//!    as its `RUSTC_WRAPPER` (`wrapper`). For each crate of the target, the wrapper tells rustc that
//!    the crate named `std` is the facade. Build scripts and proc macros are left alone.
//!
//! With `--libc`, the facade of executables names `greenroom-patch`, too. So the linker finds functions like `recv`
//! and `poll` there, for all code of the process.
//!
//! The command tells the wrapper what to do in a file, the *session* (`session`).

#![allow(clippy::print_stdout, reason = "a command, whose output it is")]

mod command;
mod config;
mod crates;
mod error;
mod explain;
mod facade;
mod options;
mod session;
mod toolchain;
mod wrapper;

use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match wrapper::Role::of_this_process() {
        Some(role) => wrapper::run(role),
        None => command::run(std::env::args_os().skip(1).collect()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(101)
    })
}
