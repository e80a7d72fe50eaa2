//! Coroutines that block or hold their worker are reported by name.

#[path = "../util/mod.rs"]
mod util;

mod deny_blocking;
mod monitor;
