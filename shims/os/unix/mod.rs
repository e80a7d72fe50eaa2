//! [`std::os::unix`], but waits park the coroutine.
#![forbid(unsafe_code)]

pub mod fs;
pub mod net;
pub mod prelude;
pub mod process;
pub mod thread;

pub use ::std::os::unix::*;
