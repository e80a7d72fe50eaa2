//! Parking: everything that waits is built on this module.
//!
//! [`park`] suspends the caller until [`Unparker::unpark`] is called for it. The same call parks a
//! coroutine, so that its worker runs others, or the OS thread of a caller that is no coroutine.
//! Inside this crate, sources, timers, joins and pool jobs wait by [`Wait`] instead. It has the same
//! mechanism but does not touch the token of `park`: see the drawing in `task/word.rs`.

mod interrupt;
pub(crate) mod list;
pub(crate) mod several;
mod waiters;

use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::coroutine::{self, Suspend};
use crate::task::word::{Kind, NotBegun, Outcome, Seq};
use crate::task::{
    self, Awaiting, Cancellations, Current, Deadline, Interrupts, Reach, Reason, Suspension, Task,
    TaskRef, Waiting, budget, earlier,
};

pub(crate) use crate::task::{is_prepared_to_wait, prepare_to_wait};
pub use interrupt::{Cancelled, Elapsed, interruption_point};
pub(crate) use interrupt::{
    Interrupt, Untold, UnwindOfElapsed, is_error_of_interrupt, is_interrupt, tell_later, unwind,
    unwind_with_runtime, with_reason, without_errors,
};
pub(crate) use waiters::{WaitPlace, Waiters};

impl Waiters {
    /// An empty queue. Its waiters wait for `reason`.
    pub(crate) const fn new(reason: Reason) -> Waiters {
        Waiters::of(reason, Mutex::new(waiters::WaitList::new()))
    }
}

/// Parks the caller until its token is available, and consumes the token.
///
/// Like [`std::thread::park`]: if [`Unparker::unpark`] (or [`Thread::unpark`](crate::Thread)) was
/// called before, this returns at once. Any number of such calls leaves one token. Reads, sleeps
/// and joins in between do not consume it. Unlike std's, this does not return spuriously.
///
/// # Unwinding
///
/// Not an interruption point.
#[inline]
pub fn park() {
    park_for_token(None);
}

/// Parks the caller until its token is available or `deadline` has passed. Returns whether it consumed
/// the token. See [`park`].
pub fn park_until(deadline: Instant) -> bool {
    park_for_token(Some(Deadline::at(deadline)))
}

/// Parks the caller until its token is available or `timeout` has passed. Returns whether it consumed
/// the token. See [`park`].
pub fn park_timeout(timeout: Duration) -> bool {
    park_for_token(Deadline::after(timeout))
}

#[inline(always)]
fn park_for_token(deadline: Option<Deadline>) -> bool {
    let task = Current::get();
    let Some(seq) = task.word.begin_for_token() else {
        return true;
    };
    let suspension = Suspension::new(Awaiting::only(Reason::Park));
    match task.suspend(seq, &suspension, deadline.as_ref()) {
        Outcome::Woken => true,
        Outcome::TimedOut => false,
        Outcome::Interrupted => unreachable!("nothing interrupts a wait for the token"),
    }
}

/// Parks the calling coroutine for `duration`.
pub(crate) fn sleep(duration: Duration) {
    Wait::begin(Kind::Event).suspend(Awaiting::only(Reason::Sleep), Deadline::after(duration));
}

/// Like [`sleep`], for an operation that can fail.
///
/// # Errors
///
/// That of an interrupt, if interrupts are delivered as errors.
pub(crate) fn pause(duration: Duration) -> io::Result<()> {
    let begun = Wait::begin_for(Caller::Fails, Kind::Event);
    let wait = begun.map_err(Interrupt::deliver)?;
    match wait.try_suspend(Awaiting::only(Reason::Sleep), Deadline::after(duration)) {
        Waited::Interrupted(interrupt) => Err(interrupt.deliver()),
        Waited::Woken | Waited::TimedOut => Ok(()),
    }
}

/// Lets other coroutines of this worker run first.
///
/// The caller goes to the end of its worker's queue. The worker also looks at timers and I/O after some
/// turns, or after about half a millisecond. While all its ready coroutines only yield, the worker
/// sometimes yields its thread to other threads: after a few yields if there is one such coroutine,
/// and less often if there are several. Outside of coroutines, this is [`std::thread::yield_now`].
#[inline]
pub fn yield_now() {
    if !task::on_coroutine() {
        std::thread::yield_now();
    } else if !std::thread::panicking() {
        #[cfg(debug_assertions)]
        task::count_switch();
        coroutine::suspend(Suspend::Yielded, &Suspension::of_yield());
    } else {
        yield_amid_panics();
    }
}

/// Yields while the panic count of the thread is raised. The count is the thread's, so the panic may be
/// that of another, suspended coroutine.
#[cold]
fn yield_amid_panics() {
    // A coroutine that unwinds keeps its worker: see `task/unwind.rs`.
    if !Current::get().waits_alone() {
        let _suspended = task::Suspended::begin();
        coroutine::suspend(Suspend::Yielded, &Suspension::of_yield());
    }
}

/// Counts one operation of the calling coroutine. After a number of operations the coroutine yields.
/// Otherwise a coroutine that never has to wait would keep its worker.
///
/// # Unwinding
///
/// If the caller yields and is interrupted: it may reach no other interruption point.
#[inline]
pub(crate) fn spend_operation() {
    if budget::spend() {
        let_others_go_on();
    }
}

/// Yields, and gives the caller a new budget of operations.
///
/// # Unwinding
///
/// If the caller is interrupted after that: it may reach no other interruption point.
#[cold]
pub(crate) fn let_others_go_on() {
    if !task::on_coroutine() {
        // The operating system lets other threads run.
        return budget::refill();
    }
    yield_now();
    interruption_point();
}

/// Makes the token of one coroutine or OS thread available. Works on any thread.
///
/// ```
/// greenroom::run(|| {
///     let main = greenroom::Unparker::current();
///     greenroom::spawn(move || main.unpark());
///     greenroom::park();
/// });
/// ```
#[derive(Clone)]
pub struct Unparker(TaskRef);

impl Unparker {
    /// The unparker of the calling coroutine or OS thread.
    pub fn current() -> Unparker {
        Unparker(task::current())
    }

    /// Makes the token available: ends the target's current [`park`], or else its next one.
    pub fn unpark(&self) {
        self.0.unpark();
    }
}

// Like std's `Thread`. The handle has no invariant that a panic could break.
impl UnwindSafe for Unparker {}
impl RefUnwindSafe for Unparker {}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unparker").field(&self.0.name()).finish()
    }
}

/// One wait of the calling task. It has begun, and must be suspended once.
#[must_use]
pub(crate) struct Wait {
    task: Current,
    seq: Seq,
    caller: Caller,
    kind: Kind,
}

/// What a caller can do when it is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// It can only unwind.
    Unwinds,
    /// It can also return an [`io::Error`](std::io::Error).
    Fails,
}

impl Wait {
    /// Begins a wait. From now on others can end it.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted and `kind` allows it.
    #[inline]
    pub(crate) fn begin(kind: Kind) -> Wait {
        Wait::try_begin(kind).unwrap_or_else(|interrupt| interrupt.unwind())
    }

    /// Like `begin`, but returns instead of unwinding, so that the caller can unlock something first.
    ///
    /// # Errors
    ///
    /// If the caller is interrupted and `kind` allows it. Then no wait has begun.
    #[inline(always)]
    pub(crate) fn try_begin(kind: Kind) -> Result<Wait, Interrupt> {
        Wait::begin_for(Caller::Unwinds, kind)
    }

    /// Begins a wait of a caller that may be able to return an error.
    ///
    /// # Errors
    ///
    /// If the caller is interrupted and `kind` allows it. Then no wait has begun.
    #[inline(always)]
    pub(crate) fn begin_for(caller: Caller, kind: Kind) -> Result<Wait, Interrupt> {
        let task = Current::get();
        let seq = match task::may_unwind() {
            true => match task.word.begin(kind) {
                Ok(seq) => seq,
                Err(NotBegun) => begin_with_care(&task, caller, kind)?,
            },
            false => begin_amid_unwind(&task, kind),
        };
        Ok(Wait {
            task,
            seq,
            caller,
            kind,
        })
    }

    /// A handle with which others can end this wait.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting::new(&self.task, self.seq)
    }

    /// Ends the wait, because its event has come already. Returns false if the wait had ended before. The
    /// caller must suspend the wait all the same.
    pub(crate) fn end(&self) -> bool {
        self.task.wake(self.seq, Outcome::Woken)
    }

    /// Suspends the caller until the wait, which is for `awaiting`, has ended. It times out at `deadline`.
    ///
    /// While the caller unwinds from a panic, its worker runs no other coroutine: see the hazards in the
    /// guide.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted meanwhile.
    #[inline(always)]
    pub(crate) fn suspend(self, awaiting: Awaiting<'_>, deadline: Option<Deadline>) -> Outcome {
        let waited = self.try_suspend(awaiting, deadline);
        drop(self);
        waited.or_unwind()
    }

    /// Like `suspend`, but returns instead of unwinding, so that the caller can clean up first. An unwind
    /// takes notably longer for each frame in which it has to clean up.
    #[inline(always)]
    pub(crate) fn try_suspend(&self, awaiting: Awaiting<'_>, deadline: Option<Deadline>) -> Waited {
        let suspension = Suspension::new(awaiting);
        if !self.task.is_outside_scopes() {
            return suspend_in_scope(
                &self.task,
                self.seq,
                (self.caller, self.kind),
                &suspension,
                deadline,
            );
        }
        waited(self.task.suspend(self.seq, &suspension, deadline.as_ref()))
    }
}

/// Begins a wait of `task`, which is the calling one, and unwinds or may unwind.
#[cold]
fn begin_amid_unwind(task: &Task, kind: Kind) -> Seq {
    // The caller may be a destructor that runs in an unwind, and must not unwind itself.
    let certain = task::is_unwinding_for_certain();
    task.word.begin_amid_unwind(kind, certain)
}

/// Begins a wait of `task`, which is the calling one, and is interrupted, or is or was in an interrupt scope.
///
/// # Errors
///
/// If the caller is interrupted, and that can be delivered.
#[cold]
fn begin_with_care(task: &Task, caller: Caller, kind: Kind) -> Result<Seq, Interrupt> {
    task.forget_scopes_left();
    let reach = task.reach();
    if !can_interrupt(reach, caller, kind) {
        return Ok(task.word.begin_uninterruptible(kind));
    }
    match task.cancellations(reach) {
        Cancellations::All => {
            let begun = task.word.begin_in_scope(kind);
            begun.map_err(|NotBegun| Interrupt::Pending)
        }
        Cancellations::OfRuntime => Ok(task.word.begin_for_runtime(kind)),
        Cancellations::None => Ok(task.word.begin_uninterruptible(kind)),
    }
}

/// Whether an interrupt ends a wait of this kind, and can be delivered to this caller.
fn can_interrupt(reach: Reach, caller: Caller, kind: Kind) -> bool {
    kind.is_interruptible() && (reach.how == Interrupts::Unwind || caller == Caller::Fails)
}

/// Suspends a wait of `task`, which is the calling one, not beyond the earliest deadline of the scopes that
/// it is in.
#[cold]
fn suspend_in_scope(
    task: &Task,
    seq: Seq,
    (caller, kind): (Caller, Kind),
    suspension: &Suspension,
    deadline: Option<Deadline>,
) -> Waited {
    let reach = task.reach();
    let limit = reach
        .earliest
        .filter(|_| can_interrupt(reach, caller, kind) && task::may_unwind());
    let until = limit.map(|limit| earlier(limit, deadline)).or(deadline);
    let outcome = task.suspend(seq, suspension, until.as_ref());
    let is_own = |until: Deadline| deadline.is_some_and(|own| own.at <= until.at);
    match waited(outcome) {
        Waited::TimedOut if !until.is_some_and(is_own) => Waited::Interrupted(Interrupt::Elapsed),
        waited => waited,
    }
}

/// The earliest deadline of the interrupt scopes around the calling OS thread, which is about to block
/// without a [`Wait`], in an operation that can fail.
pub(crate) fn limit_of_thread() -> Option<Deadline> {
    // A thread without a task has entered no scope.
    let may_be_limited = task::is_prepared_to_wait() && task::may_unwind();
    may_be_limited
        .then(|| Current::get().reach().earliest)
        .flatten()
}

/// How a wait has ended.
#[inline(always)]
fn waited(outcome: Outcome) -> Waited {
    match outcome {
        Outcome::Woken => Waited::Woken,
        Outcome::TimedOut => Waited::TimedOut,
        Outcome::Interrupted => Waited::Interrupted(Interrupt::Cancelled),
    }
}

/// How a wait has ended, if the caller can do something before it is unwound.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Woken,
    TimedOut,
    /// The caller was interrupted, and must deliver that.
    Interrupted(Interrupt),
}

impl Waited {
    /// Unwinds the caller if it was interrupted.
    #[inline(always)]
    pub(crate) fn or_unwind(self) -> Outcome {
        match self {
            Waited::Woken => Outcome::Woken,
            Waited::TimedOut => Outcome::TimedOut,
            // Only a wait of a caller that does not unwind can be interrupted, so this is no second
            // unwind.
            Waited::Interrupted(interrupt) => interrupt.unwind(),
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Unparker>();
};
