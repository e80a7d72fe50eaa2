//! Joining as one of several things that a task waits for: see `park/several.rs`.

use std::cell::{Cell, RefCell};

use super::many::Joinable;
use super::{Joined, is_running, refuse_to_wait_alone};
use crate::park::several::Arm;
use crate::task::{Awaited, Awaiter, Awaits, Joiner, Waiting};

/// A coroutine to join. Has its handle until it is joined.
pub(crate) struct JoinArm<H: Joinable> {
    handle: RefCell<Option<H>>,
    /// Made anew for each wait, and used by the task that is joined until `leave` returns.
    joiner: RefCell<Option<Joiner<Awaiter>>>,
    joined: Cell<Option<std::thread::Result<H::Output>>>,
}

impl<H: Joinable> JoinArm<H> {
    pub(crate) fn new(handle: H) -> JoinArm<H> {
        JoinArm {
            handle: RefCell::new(Some(handle)),
            joiner: RefCell::new(None),
            joined: Cell::new(None),
        }
    }

    /// The result of the coroutine, if the arm was completed.
    pub(crate) fn take(&self) -> Option<std::thread::Result<H::Output>> {
        self.joined.take()
    }

    /// Whether the coroutine was not joined yet.
    pub(crate) fn has_handle(&self) -> bool {
        self.handle.borrow().is_some()
    }

    /// The handle, if the arm was not completed.
    pub(crate) fn take_handle(&self) -> Option<H> {
        self.handle.take()
    }
}

impl<H: Joinable> Arm for JoinArm<H> {
    fn try_complete(&self) -> bool {
        let has_ended = |handle: &mut H| handle.awaited().has_ended();
        let handle = self.handle.borrow_mut().take_if(has_ended);
        let Some(handle) = handle else { return false };
        self.joined.set(Some(handle.join()));
        true
    }

    fn prepare(&self) {
        let handle = self.handle.borrow();
        if let Some(handle) = &*handle {
            let task = handle.awaited().task;
            assert!(
                !is_running(task),
                "failed to join thread: a coroutine that waits for itself waits for ever"
            );
            if std::thread::panicking() {
                refuse_to_wait_alone(task);
            }
        }
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        *self.joiner.borrow_mut() = Some(Joiner::of_several(Awaiter::Task(waiting), 1));
        // The caller promises that this arm does not move before `leave` has been called. Until then the
        // cell is not changed.
        match (&*self.handle.borrow(), &*self.joiner.borrow()) {
            (Some(handle), Some(joiner)) => handle.awaited().task.completion().await_by(joiner),
            _ => unreachable!("an arm that is not completed has its handle"),
        }
    }

    fn leave(&self) -> bool {
        if let Some(handle) = &*self.handle.borrow() {
            handle.awaited().task.completion().leave();
        }
        // That the coroutine has ended is found by the next try.
        false
    }

    fn describe(&self) -> Awaits {
        let handle = self.handle.borrow();
        let task = handle.as_ref().map(|handle| handle.awaited().task);
        Joined(task.as_slice()).describe()
    }
}
