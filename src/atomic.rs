//! The atomics of the protocols that are model-checked.
//!
//! Those protocols stand in files that use nothing but this module, so that the
//! package in `tests/models` can compile the same files over loom's atomics: `task/word.rs`,
//! `task/completion.rs`, `task/refs.rs`, `channel/spin.rs`, `scheduler/attention.rs`,
//! `scheduler/sleep.rs`, `reactor/ready_word.rs`, `sync/lot.rs` and the locks beside it.

pub(crate) use std::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

pub(crate) use crate::sys::switches::own_lock;

/// Has the processor pause so many times; in the models, once.
pub(crate) fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}
