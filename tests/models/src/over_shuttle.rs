//! The models over shuttle. See the binary, which has them over loom.

#![allow(clippy::print_stdout, reason = "the results go to standard output")]

#[path = "check/shuttle.rs"]
mod check;
mod models;

use check::atomic;
pub use check::{all, replay};
use models::{park, task};
