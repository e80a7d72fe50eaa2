//! [`std::os::unix`], but waits park the coroutine.
//!
//! `thread::JoinHandleExt` is std's own. The handles of coroutines do not implement the trait, because a
//! coroutine has no pthread.
#![forbid(unsafe_code)]

pub mod fs;
pub mod net;
pub mod prelude;
pub mod process;
pub mod thread;

pub use ::std::os::unix::*;
