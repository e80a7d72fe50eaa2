//! The models over shuttle. The binary has them over loom, and says how to run both.

#[path = "check/shuttle.rs"]
mod check;
mod models;

use check::atomic;
pub use check::{all, replay};
use models::{park, task};
