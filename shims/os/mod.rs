//! [`std::os`], where what waits parks the coroutine.
#![forbid(unsafe_code)]

pub mod linux;
pub mod unix;

pub use ::std::os::*;
