//! A counted reference to a task.

use std::mem;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Body, Task};
use crate::fatal;

/// A counted reference to a task with any body. The task is freed with the last reference. See `refs`.
pub(crate) struct TaskRef(NonNull<Task>);

// SAFETY: as for `Arc<Task>`: a task is `Send` and `Sync` (checked below), and its references are counted
// by an atomic.
unsafe impl Send for TaskRef {}
// SAFETY: as for `Arc<Task>`: a shared `TaskRef` gives access to a shared task, and lets other threads
// clone the reference. A task is `Send` and `Sync` (checked below).
unsafe impl Sync for TaskRef {}

const _: () = {
    const fn send_and_sync<T: ?Sized + Send + Sync>() {}
    send_and_sync::<Task>();
};

impl TaskRef {
    /// Allocates a task and returns its first two references. Its body may borrow.
    ///
    /// # Safety
    ///
    /// Nothing uses what the body borrows after that borrow has ended. (The body itself is dropped with
    /// the last reference, which may be later.)
    pub(crate) unsafe fn pair<'a, B: Body + 'a>(task: Task<B>) -> (TaskRef, TaskRef) {
        let task: Box<Task<dyn Body + 'a>> = Box::new(task);
        // SAFETY: the two types differ only in the lifetime of the body's borrows, and the caller promises
        // that nothing is used beyond that lifetime.
        let task = unsafe { mem::transmute::<Box<Task<dyn Body + 'a>>, Box<Task>>(task) };
        let task = NonNull::from(Box::leak(task));
        // `Task::new` has counted both.
        (TaskRef(task), TaskRef(task))
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Task> {
        self.0
    }

    /// A new reference to a task that is known by its address.
    ///
    /// # Safety
    ///
    /// `task` came from `as_ptr`, and a reference to it exists during the call.
    pub(crate) unsafe fn another(task: NonNull<Task>) -> TaskRef {
        // SAFETY: the caller promises that a reference exists, which keeps the task allocated.
        if !unsafe { task.as_ref() }.refs.another() {
            fatal::abort(format_args!("too many references to a coroutine"));
        }
        TaskRef(task)
    }

    /// Restores a reference that was forgotten.
    ///
    /// # Safety
    ///
    /// `task` came from `as_ptr` of a reference that was forgotten since, and is restored only once.
    pub(super) unsafe fn taken_back(task: NonNull<Task>) -> TaskRef {
        TaskRef(task)
    }

    #[cfg(test)]
    pub(super) fn is_referred_to_once(&self) -> bool {
        self.refs.is_one()
    }
}

impl Deref for TaskRef {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: this counted reference keeps the task allocated.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> TaskRef {
        // SAFETY: `self` is a reference to the task, and exists during the call.
        unsafe { TaskRef::another(self.0) }
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        if self.refs.let_go() {
            // SAFETY: `pair` has made the task from a box. This was the last reference, so nothing else
            // uses the task.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}
