//! Waiting for the events of a poll that belongs to another crate.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{Interest, wait_fd};
use crate::{park, task};

/// Parks the calling coroutine until the epoll instance `epoll` has events, or `timeout` has passed.
/// Returns the timeout to call `epoll_wait` with, which then does not block the thread. `None` is for ever.
///
/// Off-coroutine this does nothing, and returns `timeout`. For `cargo greenroom` only.
///
/// # Unwinding
///
/// An interruption point. Where interrupts are delivered as errors, the wait goes on to its end: the caller has no
/// error to return.
pub fn wait_for_poll(epoll: impl AsFd, timeout: Option<Duration>) -> Option<Duration> {
    if !task::on_coroutine() {
        return timeout;
    }
    if timeout == Some(Duration::ZERO) {
        // A loop that only looks must not keep the worker.
        park::spend_operation();
        return timeout;
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    match park::without_errors(|| wait_fd(epoll, Interest::READABLE, deadline)) {
        Ok(_) => Some(Duration::ZERO),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Some(Duration::ZERO),
        // A coroutine that unwinds cannot park.
        Err(_) => deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
    }
}
