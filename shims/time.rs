//! [`std::time`], unchanged: nothing in the module blocks.
#![forbid(unsafe_code)]

pub use ::std::time::*;
