//! Timers that run a closure.
//!
//! A pending timer is an entry in the *agenda* of its runtime, not a coroutine. One coroutine, the
//! *keeper*, serves all of them: it sleeps until the first deadline and spawns the closures that are
//! due. The first timer of a runtime starts the keeper, which ends with the runtime.
//!
//! # A timer
//!
//! ```text
//!              ┌─reset─┐
//!              ▼       │      deadline: the keeper takes it
//!   after ──▶ PENDING ─┴───────────────────────────────────▶ FIRED: its closure is spawned
//!                │ │ ▲                                         │
//!                │ │ └──── no stack for the first turn ────────┘
//!                │ └─ cancel ─────▶ CANCELLED: the canceller drops its closure
//!                └─── shutdown ───▶ CANCELLED: the keeper drops its closure
//! ```
//!
//! A timer is PENDING while it is in the queue, and its `position` says where. Both change together,
//! under the lock of the agenda. So exactly one party takes a timer out of the queue, and the closure
//! is then that party's: its closure runs once, or is dropped once. Where no stack can be had, the keeper
//! holds the timer, which has FIRED, and tries again. A stack that was reserved may still be missing when the
//! coroutine has its first turn. The timer is then PENDING once more, for a moment. No closure is run or dropped
//! under the lock, since the closure may use timers itself.
//!
//! # The keeper
//!
//! ```text
//! ABSENT   ── the first `after` ──▶ STARTING
//! STARTING ── it is spawned ──────▶ AWAKE              (no stack: ABSENT again)
//! AWAKE    ── nothing is due ─────▶ ASLEEP until t
//! ASLEEP   ── t, an earlier deadline, or the last timer is removed ──▶ AWAKE
//! AWAKE    ── nothing is pending ─▶ IDLE
//! IDLE     ── a timer is added ───▶ AWAKE              (one that is never due: ASLEEP)
//! any      ── shutdown ───────────▶ GONE: drops pending closures, refuses later timers
//! ```
//!
//! *Every pending timer has a keeper.* A timer is added only in the states AWAKE, ASLEEP and IDLE. In
//! these states the keeper exists, and it ends only with its runtime, since nobody has a handle to cancel it
//! and the backdoor refuses to. If there is no keeper, the adder
//! first spawns one. It holds a lock meanwhile, so that only one keeper is spawned. If that fails,
//! `after` fails, and no timer was added. (A keeper that was spawned may still find no stack for its
//! first turn. The state is then ABSENT again, and timers that were added meanwhile wait for the next
//! `after`.)
//!
//! *[`wait_idle`] waits for pending timers.* It waits for the keeper, a coroutine like any other,
//! except while the keeper counts as idling, in the state IDLE. The count changes under the lock of the
//! agenda, together with the state. So the keeper counts as soon as a timer is pending. It spawns the
//! closure of the last timer before it becomes IDLE. So at every moment the keeper or the spawned
//! coroutine counts.
//!
//! *No deadline is missed.* The keeper looks at the queue and notes the end of its sleep under one
//! lock. Whoever then adds an earlier deadline, or removes the last timer, sets AWAKE and wakes the
//! keeper. The keeper checks for AWAKE under the lock of its wait queue before it parks. The waker
//! takes that lock after setting AWAKE. So either the waker finds the keeper in the wait queue, or the
//! keeper sees AWAKE.
//!
//! *A late wake-up does no harm.* The keeper may see AWAKE before its waker comes to wake it, find nothing
//! pending, and sleep in IDLE. The wake-up then finds it there, and the keeper goes on sleeping: only a
//! new timer ends IDLE.
//!
//! *Wake-ups are few.* Only the change from ASLEEP or IDLE to AWAKE wakes the keeper. Thousands of
//! timers that are set and cancelled before the keeper's next turn cost one wake-up.
//!
//! *An idle runtime makes no wake-up.* In IDLE the keeper waits without a deadline.
//!
//! [`wait_idle`]: crate::wait_idle
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::default_runtime::with_current_or_default;
use super::keeper;
use crate::context;
use crate::task::Deadline;
use crate::time::Timer;

/// Runs `f` in a coroutine of its own when `delay` has passed.
///
/// Timers fire in the order of their deadlines. Timers of equal deadlines fire in the order in which
/// they were set. Their coroutines are spawned in this order, and on a runtime with one worker also
/// start in it.
///
/// A `delay` of zero fires as soon as possible; with more than one worker, perhaps before this returns.
/// A delay beyond the end of the clock, like [`Duration::MAX`], never fires. A delay may take 1/64
/// longer, at most 1 ms, to share a wake-up with other timers. It also takes longer while a coroutine
/// keeps the worker busy. If no stack is available when the time has come, `f` runs when one is.
///
/// The coroutine is detached: its panic goes to the panic hook, and to the hooks for panics that nobody joins
/// ([`with_unjoined_hook`](crate::with_unjoined_hook)). A pending timer
/// takes no stack. [`wait_idle`](crate::wait_idle) waits until the timer has fired or was cancelled.
/// When its runtime shuts down, `f` is dropped without being called.
///
/// One coroutine fires all timers of a runtime, and stays on one worker as all coroutines do. If that
/// is worker 0 of a [`Runtime`](crate::Runtime), timers fire only during [`run`](crate::Runtime::run).
///
/// Like [`spawn`](crate::spawn()), on an OS thread that is no worker, this uses the default runtime,
/// and starts it if needed.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// let (log, logged) = mpsc::channel();
/// let [soon, never] = [1, 60_000].map(|millis| {
///     let log = log.clone();
///     greenroom::after(Duration::from_millis(millis), move || log.send(millis).unwrap())
/// });
/// assert!(never.cancel());
/// drop(log); // the closures have their own senders, and `never` has dropped its one
/// assert_eq!(logged.iter().collect::<Vec<_>>(), [1]);
/// assert!(!soon.cancel() && !soon.is_active()); // it has fired
/// ```
///
/// # Panics
///
/// If the default runtime cannot be started, or the coroutine that fires the timers of a runtime cannot
/// be spawned, when the first timer is set. `f` is then dropped. [`try_after`] returns an error instead.
#[track_caller]
pub fn after<F>(delay: Duration, f: F) -> TimerHandle
where
    F: FnOnce() + Send + 'static,
{
    try_after(delay, f).expect("failed to set a timer")
}

/// Like [`after`], but returns an error instead of panicking.
///
/// # Errors
///
/// Those of [`Builder::spawn`](crate::Builder::spawn), from spawning the coroutine that fires the timers of a
/// runtime, when the first timer is set. `f` is then dropped.
#[track_caller]
pub fn try_after<F>(delay: Duration, f: F) -> io::Result<TimerHandle>
where
    F: FnOnce() + Send + 'static,
{
    let deadline = Deadline::after(delay);
    let site = Location::caller();
    with_current_or_default(|scheduler| {
        let timer = Timer::new(Arc::clone(scheduler.agenda()), site, context::hand_over(f));
        keeper::add(scheduler, &timer, deadline)?;
        Ok(TimerHandle(timer))
    })
}

/// A timer that was set by [`after`].
///
/// Dropping the handle does not cancel the timer. The handle may be used from any thread and in any
/// runtime. In a forked child, the timers of the parent are not active.
#[derive(Clone)]
pub struct TimerHandle(Arc<Timer>);

impl TimerHandle {
    /// Cancels the timer. Returns true if the timer was pending: it will not fire, and its closure has
    /// been dropped.
    ///
    /// Returns false if the timer has fired, or was cancelled before. The coroutine of a timer that has
    /// fired may still be waiting for its first turn. If there is no stack for that turn, the timer is pending
    /// again.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Sets a new deadline, `delay` from now, which may be earlier or later than the old one. Returns
    /// false, without any effect, if the timer has fired or was cancelled.
    ///
    /// Among timers of equal deadlines this timer then counts as set last.
    pub fn reset(&self, delay: Duration) -> bool {
        self.0.reset(Deadline::after(delay))
    }

    /// Whether the timer is pending: it has neither fired nor been cancelled.
    pub fn is_active(&self) -> bool {
        self.0.position().is_some()
    }

    /// When the timer is due; `None` if it is not active, or is due beyond the end of the clock.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.position()?.deadline()
    }
}

// Like std's handles: the handle has no invariant that a panic could leave broken.
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
