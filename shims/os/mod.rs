//! [`std::os`], where what waits parks the coroutine.

pub mod linux;
pub mod unix;

pub use ::std::os::*;
