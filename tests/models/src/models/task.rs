//! Of `task`, what the channels use.

#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../../../src/task/waiting.rs"]
mod waiting;

pub(crate) use super::futex::Deadline;
pub(crate) use super::parking::Task;
pub(crate) use super::word;
pub(crate) use waiting::{Waiting, Woken};
