//! Timers that run a closure.
//!
//! A pending timer is an entry in the *agenda* of its runtime, and no coroutine. One coroutine serves
//! all of them, the *keeper*: it sleeps until the first deadline and spawns the closures that are due.
//! The first timer of a runtime starts the keeper, which ends with the runtime.
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
//! A timer is PENDING while it is in the queue, and its `place` says where. Both change together, under
//! the lock of the agenda. So exactly one party takes a timer out of the queue, and the closure is
//! then that party's: a timer fires once or is cancelled once. FIRED is final, even where no stack can
//! be had: the keeper then holds this timer and tries again. No closure is run or dropped under the
//! lock, since the closure may use timers itself.
//!
//! # The keeper
//!
//! ```text
//!            first after         spawned           nothing is due
//!   ABSENT ─────────────▶ STARTING ─────▶ AWAKE ◀──────────────────▶ ASLEEP until t
//!      ▲                      │            │ ▲      t, an earlier deadline, or the
//!      └────── no stack ──────┘            │ │      last pending timer is gone   ▲
//!                                          │ │                                   │
//!                       nothing is pending │ │ a timer is added                  │
//!                                          ▼ │                                   │
//!                                          IDLE ─────────────────────────────────┘
//!                                               one that is never due is added
//!   any ──── shutdown ───▶ GONE: pending closures are dropped, later timers are refused
//! ```
//!
//! *A pending timer has a keeper.* A timer is added only in the states AWAKE, ASLEEP and IDLE, in which
//! the keeper is there and ends only with its runtime. An adder that finds none spawns one first, while
//! it holds a lock that makes it the only one to do so. If the spawn fails, `after` fails, and no timer
//! has been added. (A keeper whose spawn succeeded may still find no stack on its first turn. It is
//! ABSENT again then, and timers that were added meanwhile wait for the next `after`.)
//!
//! *[`wait_idle`] waits for pending timers.* The keeper is a coroutine like any other, so `wait_idle`
//! waits for it, except while it counts as idling, which is exactly in the state IDLE. An adder counts
//! it back under the lock under which the timer becomes pending. The keeper spawns the closure of the
//! last timer before it idles. So at every moment a timer, its keeper or its coroutine counts.
//!
//! *No deadline is slept through.* The keeper notes until when it sleeps, in the critical section in
//! which it looks at the queue. Whoever then makes an earlier deadline, or removes the last timer, sets
//! AWAKE and wakes the keeper. The keeper, under the lock of its wait queue, does not begin to wait if
//! it is AWAKE; and the waker takes that lock after it has set AWAKE. So either the waker finds the
//! keeper in the wait queue, or the keeper finds AWAKE. Only the party that sets AWAKE wakes: timers
//! that are set and cancelled by the thousand, while the keeper has no turn, cost it one.
//!
//! *An idle runtime makes no wake-up.* In IDLE the keeper waits without a deadline.
//!
//! [`wait_idle`]: crate::wait_idle

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
/// One coroutine serves all timers of a runtime. As every coroutine, it stays on one worker: if that is
/// worker 0 of a [`Runtime`](crate::Runtime), timers fire during [`run`](crate::Runtime::run) only.
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
/// If the coroutine that serves all timers of the runtime cannot be spawned, which the first timer does;
/// or if the default runtime cannot be started. `f` is then dropped.
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
