//! A shared reference to a task.

use std::mem;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Body, Task};
use crate::fatal;

/// A shared reference to a task of any kind, which is freed with the last. See `refs`.
pub(crate) struct TaskRef(NonNull<Task>);

// SAFETY: as `Arc`: a task is `Send` and `Sync`, and the references to it are counted by atomics.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

const _: () = {
    const fn send_and_sync<T: ?Sized + Send + Sync>() {}
    send_and_sync::<Task>();
};

impl TaskRef {
    /// The two references to a new task, which may borrow.
    ///
    /// # Safety
    ///
    /// The body uses nothing that it borrows after the end of the borrow. (What is left of it when
    /// the last reference goes is dropped then, whenever that is.)
    pub(crate) unsafe fn pair<'a, B: Body + 'a>(task: Task<B>) -> (TaskRef, TaskRef) {
        let task: Box<Task<dyn Body + 'a>> = Box::new(task);
        // SAFETY: only the lifetime changes, by the caller's promise.
        let task = unsafe { mem::transmute::<Box<Task<dyn Body + 'a>>, Box<Task>>(task) };
        let task = NonNull::from(Box::leak(task));
        // `Task::new` has counted both.
        (TaskRef(task), TaskRef(task))
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Task> {
        self.0
    }

    /// # Safety
    ///
    /// `task` came from `as_ptr`, and there is a reference to it.
    pub(crate) unsafe fn another(task: NonNull<Task>) -> TaskRef {
        // SAFETY: the caller's promise.
        if !unsafe { task.as_ref() }.refs.another() {
            fatal::abort(format_args!("too many references to a coroutine"));
        }
        TaskRef(task)
    }

    /// # Safety
    ///
    /// `task` came from `as_ptr` of a reference that was forgotten since, and is taken back once.
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
        // SAFETY: it is there as long as this reference counts.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> TaskRef {
        // SAFETY: this one is there.
        unsafe { TaskRef::another(self.0) }
    }
}

impl Drop for TaskRef {
    #[inline]
    fn drop(&mut self) {
        if self.refs.let_go() {
            // SAFETY: it came from a box, and nobody else refers to it now.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}
