//! Time: the deadlines of a worker's coroutines, the timers of a runtime, and tickers.
//!
//! The closures of pending timers are run by the runtime: see `runtime/after.rs`.
#![forbid(unsafe_code)]

mod agenda;
mod interval;
mod queue;
mod timers;

pub(crate) use agenda::{Added, Agenda, Next, Timer};
pub use interval::{Interval, interval};
pub(crate) use timers::Timers;
