//! [`std::thread`], where threads are coroutines.
//!
//! [`spawn`], [`scope`] and [`Builder`] make coroutines, and start the default runtime if the
//! caller has none. What waits parks the coroutine; off-coroutine it blocks the OS thread.
//!
//! # What differs from std
//!
//! - Names, ids and [`current`] are the coroutine's. The OS thread below it is shared, and keeps
//!   its own: what asks the operating system sees that.
//! - Where a runtime shuts down, its coroutines unwind at interruption points, of which [`sleep`]
//!   and joins are some; and joining them gives [`Cancelled`](crate::Cancelled).
//! - A destructor that panics, of a result that nobody joins, is reported by the panic hook and ends
//!   there; std aborts the process.
//!
//! # What is not there
//!
//! All of what is stable in std is, but for `os::unix::thread::JoinHandleExt`: a coroutine has no
//! `pthread_t`, and that of its worker, if it were given out, would let a `pthread_join`,
//! `pthread_cancel` or `pthread_kill` reach all coroutines of the worker. The trait is std's own, and
//! not implemented here.
//!
//! What is unstable in std is left out until it is not: `sleep_until` (on a coroutine,
//! [`park_until`](crate::park_until) has a deadline), `Thread::{into_raw, from_raw}`,
//! `ThreadId::as_u64`, `add_spawn_hook`, `Builder::no_hooks`.

use std::time::Duration;

pub use ::std::thread::{Result, available_parallelism};

pub use crate::{
    AccessError, Builder, JoinHandle, LocalKey, Scope, ScopedJoinHandle, Thread, ThreadId, current,
    scope, spawn, yield_now,
};

use crate::task;

/// Like [`std::thread::panicking`], but of the calling coroutine.
///
/// std counts the panics of the OS thread. That is the same as long as no other coroutine of the
/// thread waits in the middle of an unwind; some do while a runtime shuts down.
#[must_use]
pub fn panicking() -> bool {
    task::is_unwinding()
}

/// Like [`std::thread::sleep`], but parks the coroutine.
///
/// Sleeping for no time at all yields.
///
/// # Unwinding
///
/// An interruption point, unless it is for no time.
#[inline]
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
