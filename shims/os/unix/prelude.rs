//! [`std::os::unix::prelude`], with the traits of the shims.

pub use ::std::os::unix::prelude::*;

pub use super::process::CommandExt;
