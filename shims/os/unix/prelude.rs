//! [`std::os::unix::prelude`], with the traits of the shims.
#![forbid(unsafe_code)]

pub use ::std::os::unix::prelude::*;

pub use super::process::CommandExt;
pub use super::thread::JoinHandleExt;
