//! Timers that run a closure.
//!
//! A timer that is pending is an entry in the *agenda* of its runtime, and no coroutine. One
//! coroutine for all of them, the *keeper*, sleeps until the first deadline, spawns what is due,
//! and ends when nothing is pending. It is an ordinary coroutine: so [`wait_idle`] waits for it, and
//! a shutdown unwinds it, by which it drops what is pending.
//!
//! [`wait_idle`]: crate::wait_idle
//!
//! # A timer
//!
//! ```text
//!              ┌─reset─┐
//!              ▼       │      deadline: the keeper takes it
//!   after ──▶ PENDING ─┴───────────────────────────────────▶ FIRED: its closure is spawned
//!                │ │
//!                │ └─ cancel ─────▶ CANCELLED: the canceller drops its closure
//!                └─── shutdown ───▶ CANCELLED: the keeper drops its closure
//! ```
//!
//! It is PENDING while it is in the queue, and its `place` says where. Both change together, under
//! the lock of the agenda. So one party alone takes it from there, and has its closure: it fires
//! once, or is cancelled once. FIRED is for good, even where no stack can be had: then the keeper
//! tries again, with this timer in its hands. No closure is run or dropped under the lock, since it
//! may come back to it.
//!
//! # The keeper
//!
//! ```text
//!              after: spawn           first turn             nothing is due
//!   (absent) ───────────────▶ APPOINTED ─────────▶ AWAKE ◀────────────────────▶ ASLEEP until t
//!       ▲                                            │    t, an earlier deadline,
//!       └────────────────────────────────────────────┘    or nothing left
//!                        nothing is pending
//! ```
//!
//! *Whatever is pending has a keeper.* Who adds a timer reads under the same lock how many keepers
//! there are: spawned, and not at their end. If there are some, the last of them has its end ahead,
//! for which it must find the queue empty, under the lock. If there are none, the adder spawns one,
//! after the lock; and where that fails, takes its timer back, or finds that it has fired. A keeper
//! is counted when its spawn has succeeded, so nobody relies on one that may not come. Two adders
//! may so appoint two: the second finds on its first turn that one keeps, and ends. One that has
//! run to its end before it was counted makes the count negative for that long, and never too
//! large. (Only where a reserved stack cannot be had after all does one end unheard: then what is
//! pending waits for the next `after`, which appoints another.)
//!
//! *No deadline is slept through.* The keeper writes into the agenda until when it sleeps, in the
//! same critical section in which it looked at the queue. Who then makes an earlier deadline, or
//! removes the last timer, erases that and wakes it. The keeper, under the lock of its wait queue,
//! does not wait if it has been erased; and the waker comes to that lock after it has erased: it
//! finds the keeper in the queue, or the keeper finds it erased. Who erases it wakes, nobody else
//! does: that so many timers are set and cancelled, while the keeper has no turn, costs it one.

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::default_runtime::with_current_or_default;
use super::keeper;
use crate::task::Deadline;
use crate::time::Timer;

/// Runs `f` in a coroutine of its own when `delay` has passed.
///
/// Timers fire by their deadlines, and those of equal deadlines as they were set: in this order
/// their coroutines are spawned, and on a runtime with one worker they start in it. A `delay` of
/// zero fires as soon as possible, with more than one worker maybe before this returns; one that is
/// beyond the clock, like [`Duration::MAX`], never does. A delay may take 1/64 longer, at most 1 ms,
/// to share a wake-up with others; and of course as long as the worker is kept busy by one of its
/// coroutines. If no stack can be had when the time has come, `f` runs when one can.
///
/// The coroutine is detached: its panic goes to the panic hook and nowhere else. A pending timer
/// takes no stack. [`wait_idle`](crate::wait_idle) waits for it to fire, or to be cancelled; when
/// its runtime shuts down, `f` is dropped without being called.
///
/// As with [`spawn`](crate::spawn()), on an OS thread that is no worker this is a timer of the
/// default runtime, which it starts.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// let (log, logged) = mpsc::channel();
/// let [second, first, never] = [20, 10, 10].map(|millis| {
///     let log = log.clone();
///     greenroom::after(Duration::from_millis(millis), move || log.send(millis).unwrap())
/// });
/// assert!(never.cancel());
/// drop(log); // each closure has its own, and that of `never` is gone
/// assert_eq!(logged.iter().collect::<Vec<_>>(), [10, 20]);
/// assert!(!first.cancel() && !second.is_active());
/// ```
///
/// # Panics
///
/// If no timer is pending, and the coroutine that serves them cannot be had, or the default runtime
/// not be started. `f` is then dropped.
#[track_caller]
pub fn after<F>(delay: Duration, f: F) -> TimerHandle
where
    F: FnOnce() + Send + 'static,
{
    let deadline = Deadline::after(delay);
    let site = Location::caller();
    with_current_or_default(|scheduler| {
        let timer = Timer::new(Arc::clone(scheduler.agenda()), site, f);
        keeper::add(scheduler, &timer, deadline)?;
        Ok(TimerHandle(timer))
    })
    .expect("failed to set a timer")
}

/// A timer that was set by [`after`].
///
/// Dropping it does not cancel the timer. It may be used from any thread and in any runtime; in a
/// forked child, the timers of the parent are not active.
#[derive(Clone)]
pub struct TimerHandle(Arc<Timer>);

impl TimerHandle {
    /// Cancels the timer; returns whether this did: it then has not fired, and will not.
    ///
    /// Its closure has been dropped when this returns true. Otherwise it has fired, which does not
    /// mean that its coroutine has run already, or was cancelled before.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Has the timer fire when `delay` has passed from now, which may be earlier or later than it
    /// would have; returns false, without any effect, if it has fired or was cancelled.
    ///
    /// Among timers of equal deadlines it then is the one that was set last.
    pub fn reset(&self, delay: Duration) -> bool {
        self.0.reset(Deadline::after(delay))
    }

    /// Whether the timer is pending: has neither fired nor been cancelled.
    pub fn is_active(&self) -> bool {
        self.0.place().is_some()
    }

    /// When the timer is due; `None`, if it is not active, or that is beyond the clock.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.place()?.instant()
    }
}

// As std's handles: what others do to the timer meanwhile shows in no invariant of the handle.
impl UnwindSafe for TimerHandle {}
impl RefUnwindSafe for TimerHandle {}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHandle")
            .field("active", &self.is_active())
            .field("deadline", &self.deadline())
            .field("set_at", &format_args!("{}", self.0.site()))
            .finish()
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<TimerHandle>();
};
