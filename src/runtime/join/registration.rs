//! What a future has registered with the end of the task that it awaits.
//!
//! The future is a joiner that always leaves (see `task/completion.rs`): before it registers another waker, when it
//! has the result, and when it is dropped. The joiner is allocated, so that it stays where it is if the future
//! moves, and also if the future is forgotten and never leaves.
//!
//! ```text
//! poll:     not registered, or another waker is: leave ; store the waker ; await   (the task has ended: ready)
//!           the same waker is registered: nothing
//! finisher: take the waker ; LET_GO ; call the waker
//! ```
//!
//! *The last waker is called, or the poll sees the end.* The finisher takes the waker if it finds that the task is
//! awaited, and otherwise the await finds that the task has ended. A poll that finds no waker to compare with has
//! come after the finisher took it. So it leaves, and its await finds the end.
#![forbid(unsafe_code)]

use std::mem;
use std::sync::Arc;
use std::task::Waker;

use crate::atomic::{Mutex, own_lock};
use crate::task::{Awaiter, Completion, Joiner};

pub(super) struct Registration {
    /// Made by the first poll that has to wait.
    joiner: Option<Arc<Joiner<Awaiter>>>,
    /// Whether the finisher may use the joiner.
    is_registered: bool,
}

impl Registration {
    pub(super) const NONE: Registration = Registration {
        joiner: None,
        is_registered: false,
    };

    /// Has `waker` called when the task has ended. Returns false if it has ended already.
    pub(super) fn register(&mut self, task: &Completion<Awaiter>, waker: &Waker) -> bool {
        // Foreign code, which may panic or take its time: not while something is half done or locked.
        let waker = waker.clone();
        let joiner = self.joiner.get_or_insert_with(|| {
            let awaiter = Awaiter::Future(Mutex::new(None));
            Arc::new(Joiner::of_several(awaiter, 1))
        });
        let Awaiter::Future(registered) = &joiner.wait else {
            unreachable!("the joiner of a future has a waker");
        };
        if self.is_registered {
            let is_same = |registered: &Waker| registered.will_wake(&waker);
            if own_lock(registered).as_ref().is_some_and(is_same) {
                return true;
            }
            task.leave();
        }
        let before = own_lock(registered).replace(waker);
        self.is_registered = task.await_by(Arc::as_ptr(joiner));
        drop(before);
        self.is_registered
    }

    /// Takes the joiner back from the task, whose finisher does not use it any more after this.
    pub(super) fn leave(&mut self, task: &Completion<Awaiter>) {
        if mem::take(&mut self.is_registered) {
            task.leave();
        }
    }

    /// Leaves the joiner to the finisher for good.
    pub(super) fn forget(&mut self) {
        if mem::take(&mut self.is_registered) {
            mem::forget(self.joiner.take());
        }
    }
}
