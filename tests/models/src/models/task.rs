//! The part of `task` that the checked files use.

#[allow(dead_code, reason = "no model makes a dump")]
#[path = "../../../../src/task/awaited.rs"]
mod awaited;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/task/awaiter.rs"]
mod awaiter;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/task/waiting.rs"]
mod waiting;

use crate::check::atomic::{Mutex, MutexGuard, own_lock};

pub(crate) use super::completion::{Completion, Joiner};
pub(crate) use super::futex::Deadline;
pub(crate) use super::parking::Task;
pub(crate) use super::word;
pub(crate) use awaited::{Awaited, Awaiting, Awaits, Reason};
pub(crate) use awaiter::{Awaiter, Told};
pub(crate) use waiting::{Waiting, Woken};

/// An ordinary guard: in the models, the allocator does not use locks of ours.
pub(crate) type AsideGuard<'a, T> = MutexGuard<'a, T>;

pub(crate) fn lock_aside<T>(mutex: &Mutex<T>) -> AsideGuard<'_, T> {
    own_lock(mutex)
}
