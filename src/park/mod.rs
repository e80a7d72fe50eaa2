//! Parking: everything that waits is built on this module.
//!
//! [`park`] suspends the caller until [`Unparker::unpark`] is called for it. The same call parks a
//! coroutine, so that its worker runs others, or the OS thread of a caller that is no coroutine.
//! Inside this crate, sources, timers, joins and pool jobs wait by [`Wait`] instead. It has the same
//! mechanism but does not touch the token of `park`: see the drawing in `task/word.rs`.

mod interrupt;
pub(crate) mod list;
mod waiters;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::coroutine::{self, Suspend};
use crate::task::word::{Kind, Outcome, Seq};
use crate::task::{self, Current, Deadline, Interrupts, Task, TaskRef, Waiting, budget, earlier};

pub(crate) use crate::task::{is_prepared_to_wait, prepare_to_wait};
pub use interrupt::{Cancelled, Elapsed, interruption_point};
pub(crate) use interrupt::{Interrupt, UnwindOfElapsed, is_interrupt, unwind_with_runtime};
pub(crate) use waiters::Waiters;

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters::of(Mutex::new(waiters::WaitList::new()))
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
    task.suspend(seq, deadline);
    match task.word.outcome() {
        Outcome::Woken => true,
        Outcome::TimedOut => false,
        Outcome::Interrupted => unreachable!("nothing interrupts a wait for the token"),
    }
}

/// Parks the calling coroutine for `duration`.
pub(crate) fn sleep(duration: Duration) {
    Wait::begin(Kind::Event).suspend(Deadline::after(duration));
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
        coroutine::suspend(Suspend::Yielded);
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
        coroutine::suspend(Suspend::Yielded);
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
    /// Whether a deadline of the code around the wait limits it.
    is_limited: bool,
}

/// What a caller can do when it is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// It can only unwind.
    Unwinds,
    /// It can also return an [`io::Error`](std::io::Error).
    Fails,
}

/// Whether an interrupt that ends the wait can be delivered, although the task has entered no scope. Where
/// nothing unwinds, only an operation can be interrupted, and only once.
#[inline(always)]
fn may_begin_as_usual(caller: Caller, task: &Task) -> bool {
    !cfg!(panic = "abort") || (caller == Caller::Fails && !task.word.is_interrupted())
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

    /// Begins a wait of an operation that can fail, for an event that comes by itself.
    ///
    /// # Errors
    ///
    /// If the caller is interrupted. Then no wait has begun. The caller must
    /// [`deliver`](Interrupt::deliver) the interrupt.
    #[inline(always)]
    pub(crate) fn try_begin_operation() -> Result<Wait, Interrupt> {
        Wait::begin_for(Caller::Fails, Kind::Event)
    }

    #[inline(always)]
    fn begin_for(caller: Caller, kind: Kind) -> Result<Wait, Interrupt> {
        let task = Current::get();
        let (seq, is_limited) = if !task::may_unwind() {
            // The caller may be a destructor that runs in an unwind, and must not unwind itself.
            let certain = task::is_unwinding_for_certain();
            (task.word.begin_amid_unwind(kind, certain), false)
        } else if task.is_outside_scopes() && may_begin_as_usual(caller, &task) {
            (task.word.begin(kind)?, false)
        } else {
            Wait::begin_in_scope(&task, caller, kind)?
        };
        Ok(Wait {
            task,
            seq,
            is_limited,
        })
    }

    /// Begins a wait of `task`, which is the calling one, in an interrupt scope. Returns whether a
    /// deadline of the scope limits the wait, too.
    #[cold]
    fn begin_in_scope(task: &Task, caller: Caller, kind: Kind) -> Result<(Seq, bool), Interrupt> {
        let reach = task.reach();
        let can_deliver = reach.how == Interrupts::Unwind || caller == Caller::Fails;
        if !(kind.is_interruptible() && can_deliver) {
            return Ok((task.word.begin_uninterruptible(kind), false));
        }
        let seq = match task.is_cancellable_by(reach) {
            true => task.word.begin(kind)?,
            false => task.word.begin_uninterruptible(kind),
        };
        Ok((seq, reach.earliest.is_some()))
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

    /// Suspends the caller until the wait has ended. It times out at `deadline`.
    ///
    /// While the caller unwinds from a panic, its worker runs no other coroutine: see the hazards in the
    /// guide.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted meanwhile.
    #[inline(always)]
    pub(crate) fn suspend(&self, deadline: Option<Deadline>) -> Outcome {
        // Only a wait of a caller that does not unwind can be interrupted, so this is no second unwind.
        self.try_suspend(deadline)
            .unwrap_or_else(|interrupt| interrupt.unwind())
    }

    /// Like `suspend`, but returns instead of unwinding, so that the caller can clean up first.
    ///
    /// # Errors
    ///
    /// If the caller was interrupted meanwhile.
    #[inline(always)]
    pub(crate) fn try_suspend(&self, deadline: Option<Deadline>) -> Result<Outcome, Interrupt> {
        if self.is_limited {
            return self.suspend_limited(deadline);
        }
        self.task.suspend(self.seq, deadline);
        match self.task.word.outcome() {
            Outcome::Interrupted => Err(Interrupt::Cancelled),
            outcome => Ok(outcome),
        }
    }

    /// Suspends the caller until the wait has ended, but not beyond the earliest deadline of the scopes
    /// that the caller is in.
    #[cold]
    fn suspend_limited(&self, deadline: Option<Deadline>) -> Result<Outcome, Interrupt> {
        let limit = self.task.reach().earliest;
        let limit = limit.expect("a limited wait is in a scope with a deadline");
        let first = earlier(limit, deadline);
        self.task.suspend(self.seq, Some(first));
        match self.task.word.outcome() {
            Outcome::Interrupted => Err(Interrupt::Cancelled),
            Outcome::TimedOut if deadline.is_none_or(|own| first.at < own.at) => {
                Err(Interrupt::Elapsed)
            }
            outcome => Ok(outcome),
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Unparker>();
};
