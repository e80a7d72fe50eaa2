//! [`std::os::unix::process`], for the types of the shims.
#![forbid(unsafe_code)]

pub use ::std::os::unix::process::*;

pub use crate::shims::process::CommandExt;
