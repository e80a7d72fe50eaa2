//! Of `task`, what the channels use.

pub(crate) use super::futex::Deadline;
pub(crate) use super::parking::Task;
pub(crate) use super::word;
