//! Parking: the waist that everything which waits is built on.
//!
//! [`park`] suspends the caller until somebody calls [`Unparker::unpark`] for it. The same call
//! parks a coroutine, whose worker goes on with others, or (off-coroutine) the OS thread. Inside
//! this crate sources, timers, joins and pool jobs wait by [`Wait`], which shares the mechanism
//! but not the token; see the drawing in `task::word`.

pub(crate) mod list;
mod waiters;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::coroutine::{self, Suspend};
use crate::fatal;
use crate::task::word::{Kind, Outcome, Pending, Seq};
use crate::task::{self, Current, Deadline, TaskRef, Waiting, budget};

pub(crate) use crate::task::{is_prepared_to_wait, prepare_to_wait};
pub(crate) use waiters::Waiters;

impl Waiters {
    pub(crate) const fn new() -> Waiters {
        Waiters::of(Mutex::new(waiters::List::new()))
    }
}

/// Parks the caller until its token is made available, and consumes it.
///
/// Like [`std::thread::park`]: if [`Unparker::unpark`] (or [`Thread::unpark`](crate::Thread)) was
/// called before, this returns at once; any number of such calls leaves one token. Reads, sleeps
/// and joins in between do not consume it. Unlike std's, this does not return spuriously.
///
/// # Unwinding
///
/// Not an interruption point.
#[inline]
pub fn park() {
    park_for_token(None);
}

/// Parks the caller until its token is made available or `deadline` has passed; returns whether
/// it consumed the token. See [`park`].
pub fn park_until(deadline: Instant) -> bool {
    park_for_token(Some(Deadline::at(deadline)))
}

/// Parks the caller until its token is made available or `timeout` has passed; returns whether
/// it consumed the token. See [`park`].
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

/// Unwinds the caller, if it would do so at its next interruption point, because its runtime stops:
/// not for it to see what the end of others looks like, which unwind for that too. (Where nothing can
/// unwind, nobody sees that.)
pub(crate) fn unwind_with_runtime() {
    if !cfg!(panic = "abort") && task::is_runtime_stopping() && task::may_unwind() {
        unwind();
    }
}

/// Lets other coroutines of this worker go first.
///
/// The caller goes to the end of its worker's queue; timers and I/O come in between after some
/// turns, or after about half a millisecond. Where nothing else of the worker is ready than coroutines
/// that yield, the worker gives up its processor, too: after a few yields of one that is alone, and now
/// and then for several. Off-coroutine, this is [`std::thread::yield_now`].
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

#[cold]
fn yield_amid_panics() {
    if !Current::get().waits_alone() {
        let _suspended = task::Suspended::begin();
        coroutine::suspend(Suspend::Yielded);
    }
}

/// Accounts for one operation of a coroutine, and makes it yield when it has done its share.
///
/// # Unwinding
///
/// Then, if the caller is interrupted: its operations may never have to wait.
#[inline]
pub(crate) fn spend_operation() {
    if budget::spend() {
        let_others_go_on();
    }
}

/// Yields.
///
/// # Unwinding
///
/// Then, if the caller is interrupted: it may never have to wait.
#[cold]
pub(crate) fn let_others_go_on() {
    if !task::on_coroutine() {
        // The system sees to that.
        return budget::refill();
    }
    yield_now();
    if Current::get().word.is_interrupted() && task::may_unwind() {
        unwind();
    }
}

/// Makes the token of one coroutine or OS thread available, from anywhere.
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

    /// Ends the target's [`park`], or its next one.
    pub fn unpark(&self) {
        self.0.unpark();
    }
}

// As std's handles: what others do to the task meanwhile shows in no invariant of the handle.
impl UnwindSafe for Unparker {}
impl RefUnwindSafe for Unparker {}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unparker").field(&self.0.name()).finish()
    }
}

/// The payload with which a coroutine unwinds that its runtime gives up.
///
/// Joining such a coroutine gives an `Err` with this payload, and so does joining one that had
/// not started, or, in a forked child, one that has stayed in the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the coroutine was cancelled")
    }
}

impl std::error::Error for Cancelled {}

/// Unwinds the calling coroutine, without a word from the panic hook.
#[cold]
pub(crate) fn unwind() -> ! {
    if cfg!(panic = "abort") {
        // Coroutines of a runtime that ends are left behind before they come here; this one, or this
        // thread, has to do with another runtime's.
        fatal::abort(format_args!(
            "what the caller waits for was cancelled, and under panic = \"abort\" nothing can unwind"
        ));
    }
    task::cancel(Box::new(Cancelled))
}

/// One wait of the calling task, begun: it is to be suspended, once.
#[must_use]
pub(crate) struct Wait {
    task: Current,
    seq: Seq,
}

impl Wait {
    /// Begins a wait. From now on it can be ended.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted and `kind` allows it.
    #[inline]
    pub(crate) fn begin(kind: Kind) -> Wait {
        Wait::try_begin(kind).unwrap_or_else(|pending| pending.unwind())
    }

    /// As `begin`, but leaves the unwinding to the caller.
    #[inline(always)]
    pub(crate) fn try_begin(kind: Kind) -> Result<Wait, Pending> {
        let task = Current::get();
        let seq = match task::may_unwind() {
            true => task.word.begin(kind)?,
            // It may be a destructor that waits: there is no unwinding out of it.
            false => task
                .word
                .begin_amid_unwind(kind, task::is_unwinding_for_certain()),
        };
        Ok(Wait { task, seq })
    }

    /// This wait, for others to end.
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting::new(&self.task, self.seq)
    }

    /// Ends the wait, whose event has come; returns whether it lasted. It is to be suspended all
    /// the same.
    pub(crate) fn end(&self) -> bool {
        self.task.wake(self.seq, Outcome::Woken)
    }

    /// Suspends the caller until the wait has ended: woken, or timed out at `deadline`.
    ///
    /// While the caller unwinds from a panic, its worker waits with it: see the crate docs.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted meanwhile.
    #[inline(always)]
    pub(crate) fn suspend(&self, deadline: Option<Deadline>) -> Outcome {
        match self.suspend_uninterrupted(deadline) {
            // It does not unwind, or the wait could not have been interrupted.
            Outcome::Interrupted => unwind(),
            outcome => outcome,
        }
    }

    /// As `suspend`, but leaves the unwinding to the caller.
    #[inline(always)]
    pub(crate) fn suspend_uninterrupted(&self, deadline: Option<Deadline>) -> Outcome {
        self.task.suspend(self.seq, deadline);
        self.task.word.outcome()
    }
}

impl Pending {
    /// Unwinds the caller, who is interrupted and must not wait.
    #[cold]
    pub(crate) fn unwind(self) -> ! {
        // Were it to catch this and try again for ever, others would still run.
        yield_now();
        unwind()
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Unparker>();
};
