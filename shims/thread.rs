//! [`std::thread`], where threads are coroutines.
//!
//! [`spawn`], [`scope`] and [`Builder`] make coroutines, and start the default runtime if the
//! caller has none. What waits parks the coroutine; off-coroutine it blocks the OS thread.

use std::time::Duration;

pub use ::std::thread::{Result, available_parallelism, panicking};

pub use crate::{
    AccessError, Builder, JoinHandle, LocalKey, Scope, ScopedJoinHandle, Thread, ThreadId, current,
    scope, spawn, yield_now,
};

use crate::task;

/// Like [`std::thread::sleep`], but parks the coroutine.
///
/// Sleeping for no time at all yields.
///
/// # Unwinding
///
/// An interruption point.
pub fn sleep(dur: Duration) {
    if dur.is_zero() {
        yield_now();
    } else if task::on_coroutine() {
        crate::park::sleep(dur);
    } else {
        ::std::thread::sleep(dur);
    }
}

/// Like [`std::thread::sleep_ms`].
#[deprecated(note = "replaced by `shims::thread::sleep`")]
pub fn sleep_ms(ms: u32) {
    sleep(Duration::from_millis(ms.into()));
}

/// Like [`std::thread::park`], but parks the coroutine. See [`crate::park()`].
pub fn park() {
    crate::park();
}

/// Like [`std::thread::park_timeout`], but parks the coroutine. See [`crate::park()`].
pub fn park_timeout(dur: Duration) {
    crate::park_timeout(dur);
}

/// Like [`std::thread::park_timeout_ms`].
#[deprecated(note = "replaced by `shims::thread::park_timeout`")]
pub fn park_timeout_ms(ms: u32) {
    park_timeout(Duration::from_millis(ms.into()));
}
