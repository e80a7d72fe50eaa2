//! [`std::thread`], but threads are coroutines.
//!
//! [`spawn`], [`scope`] and [`Builder`] make coroutines, and start the default runtime if the caller is
//! not in a runtime. A wait in a coroutine parks the coroutine. A wait on an OS thread blocks the
//! thread.
//!
//! # Differences from std
//!
//! - Names, ids and [`current`] are those of the coroutine. Coroutines share an OS thread, which keeps
//!   its own name and id. Code that asks the operating system sees the OS thread.
//! - When a runtime shuts down, its coroutines unwind at interruption points, such as [`sleep`] and
//!   joins. Joining such a coroutine returns [`Cancelled`](crate::Cancelled).
//! - If nothing joins a coroutine and the destructor of its result panics, the panic hook reports the
//!   panic, and the program goes on. std aborts the process.
//!
//! # What is missing
//!
//! Everything stable in std is here. A coroutine has no `pthread_t`, so the methods of
//! [`os::unix::thread::JoinHandleExt`](crate::shims::os::unix::thread::JoinHandleExt) panic for its
//! handle.
//!
//! Unstable items of std are missing until they are stable: `sleep_until` (use
//! [`park_until`](crate::park_until)), `Thread::{into_raw, from_raw}`, `ThreadId::as_u64`,
//! `add_spawn_hook`, `Builder::no_hooks`.
#![forbid(unsafe_code)]

use std::time::Duration;

pub use ::std::thread::{Result, available_parallelism};

pub use crate::{
    AccessError, Builder, JoinHandle, LocalKey, Scope, ScopedJoinHandle, Thread, ThreadId, current,
    scope, spawn, yield_now,
};

use super::park_or_block::park_or_block;
use crate::task;

/// Like [`std::thread::panicking`], but for the calling coroutine.
///
/// std counts the panics of the OS thread. The two differ if another coroutine of the thread waits in the
/// middle of an unwind, which happens while a runtime shuts down.
#[must_use]
pub fn panicking() -> bool {
    task::is_unwinding()
}

/// Like [`std::thread::sleep`], but parks the coroutine.
///
/// Sleeping for zero time yields.
///
/// # Unwinding
///
/// An interruption point, unless `dur` is zero.
#[inline]
pub fn sleep(dur: Duration) {
    if dur.is_zero() {
        return yield_now();
    }
    park_or_block(dur, crate::park::sleep, ::std::thread::sleep);
}

/// Like [`std::thread::sleep_ms`].
#[deprecated(note = "replaced by `shims::thread::sleep`")]
pub fn sleep_ms(ms: u32) {
    sleep(Duration::from_millis(ms.into()));
}

/// Like [`std::thread::park`], but parks the coroutine. See [`crate::park()`].
#[inline]
pub fn park() {
    crate::park();
}

/// Like [`std::thread::park_timeout`], but parks the coroutine. See [`crate::park()`].
#[inline]
pub fn park_timeout(dur: Duration) {
    crate::park_timeout(dur);
}

/// Like [`std::thread::park_timeout_ms`].
#[deprecated(note = "replaced by `shims::thread::park_timeout`")]
pub fn park_timeout_ms(ms: u32) {
    park_timeout(Duration::from_millis(ms.into()));
}
