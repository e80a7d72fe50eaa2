//! The models over shuttle. See the binary, which has them over loom.

#[path = "check/shuttle.rs"]
mod check;
mod models;

use check::atomic;
pub use check::{all, replay};
use models::{park, task};
