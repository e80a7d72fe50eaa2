//! [`std::os::unix`], where what waits parks the coroutine.
//!
//! `thread::JoinHandleExt` is std's own, and not implemented for the handles of coroutines: they
//! have no pthread.

pub mod fs;
pub mod net;
pub mod prelude;
pub mod process;

pub use ::std::os::unix::*;
