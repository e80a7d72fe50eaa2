//! The coroutines of a scope or a group.
#![forbid(unsafe_code)]

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;

use super::join::{Failure, PacketGuard, drop_unwanted, unjoined};
use crate::diagnose::unjoined::UnjoinedPanic;
use crate::park::{Interrupt, Waited, Waiters};
use crate::sys::fork::Process;
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Deadline, Reason, Task, TaskRef};

/// What a scope or a group shares with its coroutines and their handles.
pub(crate) struct Members {
    /// The process that made the scope or group. In a forked child its coroutines do not run.
    made_by: Process,
    /// How many of the coroutines have not ended.
    running: AtomicUsize,
    list: Mutex<List>,
    panics: Panics,
    /// A coroutine that was not joined has panicked.
    panicked: AtomicBool,
    /// A coroutine that was not joined was unwound by its runtime, which shuts down.
    unwound_by_runtime: AtomicBool,
    /// The first panic of those that were not joined, if it is kept.
    first_panic: Mutex<Option<UnjoinedPanic>>,
    /// Waits until `running` is zero.
    ended: Waiters,
}

/// What becomes of the panic of a coroutine that was not joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panics {
    /// It is noted.
    Noted,
    /// The payload of the first one is kept.
    Kept,
}

/// The coroutines that have not ended, to be cancelled.
#[derive(Default)]
struct List {
    /// An entry is empty while its coroutine is being made.
    tasks: Slab<Option<TaskRef>>,
    /// While this is not zero, further coroutines are cancelled at once.
    cancellers: usize,
}

impl Members {
    pub(crate) fn new(panics: Panics) -> Members {
        Members {
            made_by: Process::current(),
            running: AtomicUsize::new(0),
            list: Mutex::default(),
            panics,
            panicked: AtomicBool::new(false),
            unwound_by_runtime: AtomicBool::new(false),
            first_panic: Mutex::default(),
            ended: Waiters::new(Reason::Members),
        }
    }

    /// How many of the coroutines have not ended.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether nothing uses what the coroutines borrow: they have ended, or do not run in this process.
    pub(crate) fn is_idle(&self) -> bool {
        self.running() == 0 || !self.made_by.is_current()
    }

    /// Whether a coroutine that was not joined has panicked.
    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Whether a runtime that shuts down has unwound a coroutine that was not joined.
    pub(crate) fn was_unwound_by_runtime(&self) -> bool {
        self.unwound_by_runtime.load(Ordering::Relaxed)
    }

    /// Takes the payload of the first coroutine that was not joined and has panicked.
    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        let first = task::lock_aside(&self.first_panic).take();
        first.map(UnjoinedPanic::into_payload)
    }

    /// Waits until all of the coroutines have ended.
    ///
    /// # Errors
    ///
    /// If the caller is interrupted before that.
    pub(crate) fn try_wait(&self) -> Result<(), Interrupt> {
        while !self.is_idle() {
            if let Waited::Interrupted(interrupt) = self.ended.try_wait_for_peers(|| self.is_idle())
            {
                return Err(interrupt);
            }
        }
        Ok(())
    }

    /// Waits until all of the coroutines have ended, or until `deadline`. Returns whether they have.
    ///
    /// # Unwinding
    ///
    /// If the caller is interrupted, and `kind` allows it.
    pub(crate) fn wait(&self, kind: Kind, deadline: Option<Deadline>) -> bool {
        while !self.is_idle() {
            if self.ended.wait(kind, deadline, || self.is_idle()) == Outcome::TimedOut {
                return self.is_idle();
            }
        }
        true
    }

    /// Cancels the coroutines, and those that are spawned from now on.
    pub(crate) fn cancel(&self) {
        task::lock_aside(&self.list).cancellers += 1;
        self.cancel_current();
    }

    /// Cancels the coroutines, and those that are spawned before the returned value is dropped.
    pub(crate) fn cancel_for_a_time(&self) -> Cancelling<'_> {
        self.cancel();
        Cancelling(self)
    }

    /// Cancels the coroutines.
    pub(crate) fn cancel_current(&self) {
        let tasks: Vec<_> = {
            let list = task::lock_aside(&self.list);
            let tasks = list.tasks.iter();
            tasks.filter_map(|(_, task)| task.clone()).collect()
        };
        // Not under the lock, for which a woken task may come back at once.
        tasks.iter().for_each(|task| task.cancel());
    }

    /// Enters a coroutine that is about to be queued. Cancels it, if that is so.
    pub(crate) fn enlist(&self, entry: usize, task: &TaskRef) {
        let mut list = task::lock_aside(&self.list);
        list.tasks[entry] = Some(task.clone());
        if list.cancellers > 0 {
            // It does not wait yet, so this wakes nothing.
            task.cancel();
        }
    }

    /// Whether the caller is one of the coroutines.
    pub(crate) fn include_caller(&self) -> bool {
        let Some(caller) = task::running() else {
            return false;
        };
        let list = task::lock_aside(&self.list);
        let mut tasks = list.tasks.iter().filter_map(|(_, task)| task.as_ref());
        tasks.any(|task| std::ptr::addr_eq(task.as_ptr().as_ptr(), caller.as_ptr().as_ptr()))
    }

    /// Notes how a coroutine has ended that has not returned, and that nobody joins.
    pub(crate) fn note(&self, failure: Failure, task: &Task) {
        let Some(panic) = failure.into_panic(task) else {
            // If it was cancelled by a handle, the others go on without it.
            if task::is_runtime_stopping() {
                self.unwound_by_runtime.store(true, Ordering::Relaxed);
            }
            return;
        };
        self.panicked.store(true, Ordering::Relaxed);
        match self.panics {
            Panics::Noted => drop_unwanted(panic),
            Panics::Kept => {
                let mut first = task::lock_aside(&self.first_panic);
                if first.is_none() {
                    *first = Some(panic);
                } else {
                    drop(first);
                    unjoined::report(panic);
                }
            }
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // A panic that nobody has asked for.
        let first = self.first_panic.get_mut();
        if let Some(panic) = first.unwrap_or_else(PoisonError::into_inner).take() {
            unjoined::report(panic);
        }
    }
}

/// While this lives, coroutines that are spawned are cancelled.
pub(crate) struct Cancelling<'a>(&'a Members);

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        task::lock_aside(&self.0.list).cancellers -= 1;
    }
}

/// Held by each coroutine of a scope or group until it uses none of its borrows any more.
pub(crate) struct Member {
    of: Arc<Members>,
    /// The coroutine's entry in the list.
    entry: usize,
}

impl Member {
    pub(crate) fn of(members: &Arc<Members>) -> Member {
        // Relaxed: `scope` reads the count after its closure has returned. If a coroutine of the scope
        // spawns another one, its own count is given back, with SeqCst, only later.
        members.running.fetch_add(1, Ordering::Relaxed);
        Member {
            of: Arc::clone(members),
            entry: task::lock_aside(&members.list).tasks.insert(None),
        }
    }

    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.of
    }

    pub(crate) fn entry(&self) -> usize {
        self.entry
    }
}

impl PacketGuard for Member {
    fn unjoined(&self, failure: Failure, task: &Task) {
        self.of.note(failure, task);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let task = task::lock_aside(&self.of.list).tasks.remove(self.entry);
        // Not under the lock: this may be the last reference.
        drop(task);
        if self.of.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.of.ended.wake_all();
        }
    }
}
