//! Closures that run at multiples of a period.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::join::{JoinHandle, unjoined, wait_all};
use super::spawn::Builder;
use crate::interrupt::deadline::Deadline;
use crate::park::{self, Waiters};
use crate::task::word::Kind;
use crate::task::{self, Reason};
use crate::time::{Interval, interval};

/// Calls `f` at multiples of `period`, in a coroutine of its own, until the returned guard is dropped. The
/// first call is one period from now.
///
/// ```
/// use greenroom::shims::sync::mpsc;
/// use std::time::Duration;
///
/// let (sender, receiver) = mpsc::channel();
/// let ticker = greenroom::every(Duration::from_millis(2), move |tick| {
///     let _ = sender.send(tick.missed());
/// });
/// for _ in 0..3 {
///     receiver.recv().unwrap();
/// }
/// drop(ticker); // stops it
/// ```
///
/// The calls do not drift, and never overlap: a call that takes longer than the period makes `f` miss ticks.
/// Missed ticks are skipped, so the calls stay at multiples of the period. If `f` panics, the panic hook
/// reports that, and the next tick comes as usual.
///
/// The coroutine is a [daemon](Builder::daemon). An [`interval`](crate::interval()) does the same for a
/// loop of the caller's own.
///
/// # Panics
///
/// If there is no stack for the coroutine, or if the default runtime cannot be started. `f` is then
/// dropped. [`try_every`] returns an error instead.
#[track_caller]
pub fn every<F>(period: Duration, f: F) -> Every
where
    F: FnMut(&Tick<'_>) + Send + 'static,
{
    try_every(period, f).expect("failed to spawn a coroutine")
}

/// Like [`every`], but returns an error instead of panicking.
///
/// # Errors
///
/// Those of [`Builder::spawn`]. `f` is then dropped.
#[track_caller]
pub fn try_every<F>(period: Duration, f: F) -> io::Result<Every>
where
    F: FnMut(&Tick<'_>) + Send + 'static,
{
    let stop = Arc::new(Stop {
        stopped: AtomicBool::new(false),
        waiting: Waiters::new(Reason::Tick),
    });
    let ticks = interval(period);
    let handle = Builder::new().name("every".into()).daemon(true).spawn({
        let stop = Arc::clone(&stop);
        move || run(&stop, ticks, f)
    });
    Ok(Every {
        stop,
        handle: handle?,
        detached: false,
    })
}

/// Shared by the guard and the coroutine.
#[derive(Debug)]
struct Stop {
    stopped: AtomicBool,
    /// The coroutine waits here for its next tick.
    waiting: Waiters,
}

impl Stop {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waiting.wake_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until `due`. Returns false if the calls are stopped.
    fn wait_until(&self, due: Option<Instant>) -> bool {
        let due = due.map(task::Deadline::at);
        self.waiting.wait(Kind::Event, due, || self.is_stopped());
        !self.is_stopped()
    }
}

/// The body of the coroutine.
fn run(stop: &Stop, mut ticks: Interval, mut f: impl FnMut(&Tick<'_>)) {
    while stop.wait_until(ticks.next_due()) {
        let (due, missed) = ticks.advance(Instant::now());
        let tick = Tick { due, missed, stop };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(&tick))) {
            if park::is_interrupt(&*payload) {
                resume_unwind(payload);
            }
            unjoined::report_caught(payload);
        }
    }
}

/// Stops the calls of [`every`] when it is dropped. Does not interrupt a call that is under way.
#[must_use = "dropping it stops the calls"]
pub struct Every {
    stop: Arc<Stop>,
    handle: JoinHandle<()>,
    /// The calls go on without this.
    detached: bool,
}

impl Every {
    /// Stops the calls. Does not interrupt a call that is under way.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Stops the calls, and waits until none is under way, for `timeout` at most. Returns whether none is.
    ///
    /// # Panics
    ///
    /// If it is called by such a call, which would wait for its own end. Use [`Tick::stop`] there.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn stop_wait(&mut self, timeout: Duration) -> bool {
        self.stop();
        wait_all([&mut self.handle], Deadline::after(timeout))
    }

    /// Whether further calls will be made. False once they are stopped, and if their runtime has ended.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.stop.is_stopped() && !self.handle.is_finished()
    }

    /// Keeps the calls going without a guard, until [`Tick::stop`] or the end of the runtime.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Every {
    fn drop(&mut self) {
        if !self.detached {
            self.stop();
        }
    }
}

impl fmt::Debug for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Every")
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

/// One call of the closure of [`every`].
#[derive(Debug)]
pub struct Tick<'a> {
    due: Instant,
    missed: u64,
    stop: &'a Stop,
}

impl Tick<'_> {
    /// When this call was due.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// How many calls were skipped between the last one and this one, because they were late.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Makes this call the last one.
    pub fn stop(&self) {
        self.stop.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use super::try_every;
    use crate::coroutine::lacks;
    use crate::runtime::RuntimeBuilder;

    #[test]
    fn calls_that_find_no_stack_are_an_error_where_asked_for() {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let captured = Arc::new(());
            let calls = {
                let captured = Arc::clone(&captured);
                move || {
                    let captured = Arc::clone(&captured);
                    try_every(Duration::MAX, move |_| drop(Arc::clone(&captured)))
                }
            };
            lacks::RESERVATIONS.set(1);
            let error = calls().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert_eq!(Arc::strong_count(&captured), 2, "the closure was dropped");
            assert!(calls().unwrap().is_active());
        });
    }
}
