//! The part of `park` that the checked files use.

pub(crate) use super::waiters::Waiters;
pub(crate) use super::{list, several};

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::task::{Awaiting, Deadline, Reason, Task, Waiting};
use super::waiters::WaitList;
use super::word::{Kind, NotBegun, Outcome, Seq};
use crate::check::atomic::Mutex;
use crate::check::{Arc, thread, thread_of_model};

impl Waiters {
    pub(crate) fn new(reason: Reason) -> Waiters {
        Waiters::of(reason, Mutex::new(WaitList::new()))
    }
}

/// Does nothing: here a wait allocates its task when it begins.
pub(crate) fn prepare_to_wait() {}

pub(crate) fn is_prepared_to_wait() -> bool {
    true
}

/// Does nothing: no task has a budget.
pub(crate) fn spend_operation() {}

thread_of_model! {
    /// The task of the calling thread, if it can be cancelled.
    static CANCELLABLE: RefCell<Option<Rc<Canceller>>> = RefCell::new(None);
}

/// The task of a thread, which cancels its waits.
#[derive(Clone)]
pub(super) struct Canceller(Arc<Task>);

impl Canceller {
    pub(super) fn new() -> Canceller {
        Canceller(Task::new())
    }

    pub(super) fn cancel(&self) {
        self.0.follow_up(self.0.word.interrupt());
    }

    /// Calls `f`. Returns `None` if a wait of it was cancelled, which unwinds it.
    pub(super) fn catch<T>(self, f: impl FnOnce() -> T) -> Option<T> {
        CANCELLABLE.with(|task| task.replace(Some(Rc::new(self))));
        let result = catch_unwind(AssertUnwindSafe(f));
        // Not dropped together with the thread: that would be outside the model.
        CANCELLABLE.with(RefCell::take);
        match result {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Interrupt>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// A wait, with a task of its own if the thread cannot be cancelled.
pub(crate) struct Wait {
    /// Counted without a step of the model: other threads of the model, which are on the same OS thread, would take
    /// the unwind of this one for their own.
    task: Rc<Canceller>,
    seq: Seq,
}

impl Wait {
    pub(crate) fn try_begin(kind: Kind) -> Result<Wait, Interrupt> {
        let cancellable = CANCELLABLE.with(|task| task.borrow().clone());
        let task = cancellable.unwrap_or_else(|| Rc::new(Canceller::new()));
        let seq = task.0.word.begin(kind)?;
        Ok(Wait { task, seq })
    }

    pub(crate) fn begin_for(_: Caller, kind: Kind) -> Result<Wait, Interrupt> {
        Wait::try_begin(kind)
    }

    pub(crate) fn begin(kind: Kind) -> Wait {
        Wait::try_begin(kind).unwrap_or_else(|interrupt| interrupt.unwind())
    }

    pub(crate) fn end(&self) -> bool {
        self.task.0.wake(self.seq, Outcome::Woken)
    }

    pub(crate) fn waiting(&self) -> Waiting {
        Waiting::new(&self.task.0, self.seq)
    }

    pub(crate) fn try_suspend(&self, _: Awaiting<'_>, deadline: Option<Deadline>) -> Waited {
        let timer = match deadline {
            None => None,
            Some(Deadline::AtOnce) => {
                self.task.0.wake(self.seq, Outcome::TimedOut);
                None
            }
            Some(Deadline::Later) => {
                let (task, seq) = (Arc::clone(&self.task.0), self.seq);
                Some(thread::spawn(move || task.wake(seq, Outcome::TimedOut)))
            }
        };
        let outcome = self.task.0.suspend();
        if let Some(timer) = timer {
            assert_eq!(timer.join().unwrap(), outcome == Outcome::TimedOut);
        }
        match outcome {
            Outcome::Woken => Waited::Woken,
            Outcome::TimedOut => Waited::TimedOut,
            Outcome::Interrupted => Waited::Interrupted(Interrupt(())),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Woken,
    TimedOut,
    Interrupted(Interrupt),
}

impl Waited {
    pub(crate) fn is_woken(self) -> bool {
        matches!(self, Waited::Woken)
    }

    pub(crate) fn or_unwind(self) -> Outcome {
        match self {
            Waited::Woken => Outcome::Woken,
            Waited::TimedOut => Outcome::TimedOut,
            Waited::Interrupted(interrupt) => interrupt.unwind(),
        }
    }
}

/// What a caller can do when it is interrupted, which makes no difference here.
#[derive(Clone, Copy)]
pub(crate) enum Caller {
    Unwinds,
    #[allow(dead_code, reason = "named by `Waiters`, and in no model")]
    Fails,
}

/// The caller was cancelled, and unwinds with this to [`Canceller::catch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupt(());

impl Interrupt {
    pub(crate) fn unwind(self) -> ! {
        resume_unwind(Box::new(self))
    }
}

impl From<NotBegun> for Interrupt {
    fn from(_: NotBegun) -> Interrupt {
        Interrupt(())
    }
}
