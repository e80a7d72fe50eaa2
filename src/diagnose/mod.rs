//! Reports on coroutines: calls that block a worker, turns that hold it, unwanted switches, panics, the depth of stacks; and names for perf.
#![forbid(unsafe_code)]

pub(crate) mod blocking_report;
pub(crate) mod deny_blocking;
pub(crate) mod dropped_handle;
pub(crate) mod monitor;
mod monitor_sleep;
pub(crate) mod no_switch;
pub(crate) mod panic_hook;
pub(crate) mod perf_map;
pub(crate) mod pulse;
pub(crate) mod stats;
pub(crate) mod unjoined;
