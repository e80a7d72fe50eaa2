//! Reports: what blocks a worker, who panicked, how deep stacks go.

pub(crate) mod deny_blocking;
pub(crate) mod panic_hook;
pub(crate) mod stats;
