//! [`std::os::linux`], for the types of the shims.

pub mod net;

pub use ::std::os::linux::*;
