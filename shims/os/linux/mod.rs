//! [`std::os::linux`], for the types of the shims.
#![forbid(unsafe_code)]

pub mod net;

pub use ::std::os::linux::*;
