//! Locks, channels and futexes, beyond what std promises: see also `tests/behaviour`.

#[path = "../util/mod.rs"]
mod util;

mod channel;
mod futex;
mod locks;
mod mpsc;
mod primitives;
mod select;
mod send_queue;
mod timed_locks;
