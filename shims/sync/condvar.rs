//! A condition variable.

use ::std::fmt;
use ::std::sync::{LockResult, PoisonError};
use ::std::time::{Duration, Instant};

use super::mutex::MutexGuard;
use crate::sync::condvar as raw;
use crate::task::Deadline;

/// Like [`std::sync::Condvar`], but waiting parks the coroutine.
///
/// A wait ends spuriously in one case only: a coroutine was notified, and its runtime ended and left the
/// coroutine behind before the coroutine ran.
pub struct Condvar {
    condvar: raw::Condvar,
}

/// Like [`std::sync::WaitTimeoutResult`], which only std can construct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Like [`std::sync::WaitTimeoutResult::timed_out`].
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// Like [`std::sync::Condvar::new`].
    #[must_use]
    #[inline]
    pub const fn new() -> Condvar {
        Condvar {
            condvar: raw::Condvar::new(),
        }
    }

    /// Like [`std::sync::Condvar::wait`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// If the mutex is poisoned. The error holds the guard.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (guard, _) = self.wait_until(guard, None);
        guard.result()
    }

    /// Like [`std::sync::Condvar::wait_while`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    pub fn wait_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// Like [`std::sync::Condvar::wait_timeout_ms`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    #[deprecated(note = "replaced by `shims::sync::Condvar::wait_timeout`")]
    pub fn wait_timeout_ms<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        ms: u32,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let notified = |(guard, result): (_, WaitTimeoutResult)| (guard, !result.timed_out());
        self.wait_timeout(guard, Duration::from_millis(ms.into()))
            .map(notified)
            .map_err(|error| PoisonError::new(notified(error.into_inner())))
    }

    /// Like [`std::sync::Condvar::wait_timeout`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        dur: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (guard, notified) = self.wait_until(guard, Deadline::after(dur));
        let result = WaitTimeoutResult(!notified);
        match guard.result() {
            Ok(guard) => Ok((guard, result)),
            Err(error) => Err(PoisonError::new((error.into_inner(), result))),
        }
    }

    /// Like [`std::sync::Condvar::wait_timeout_while`], but parks the coroutine.
    ///
    /// # Errors
    ///
    /// As [`wait`](Condvar::wait).
    pub fn wait_timeout_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        dur: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let start = Instant::now();
        while condition(&mut *guard) {
            let Some(left) = dur.checked_sub(start.elapsed()) else {
                return Ok((guard, WaitTimeoutResult(true)));
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    /// Waits for a notification until `deadline`. Returns the guard, and whether a notification came.
    fn wait_until<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Option<Deadline>,
    ) -> (MutexGuard<'a, T>, bool) {
        // SAFETY: `mutex` is the mutex of `guard`, and the caller of this function holds `guard`, so the
        // mutex is locked by the calling thread.
        let notified = guard.with_lock(|mutex| unsafe { self.condvar.wait(mutex, deadline) });
        (guard, notified)
    }

    /// Like [`std::sync::Condvar::notify_one`].
    #[inline]
    pub fn notify_one(&self) {
        self.condvar.notify_one();
    }

    /// Like [`std::sync::Condvar::notify_all`].
    #[inline]
    pub fn notify_all(&self) {
        self.condvar.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
