//! Timeouts and cancellation: what is interrupted, where, and what is left.

#[path = "../util/mod.rs"]
mod util;

mod cancel;
mod delivery;
mod random;
mod scope;
mod timeout;
mod waits;
