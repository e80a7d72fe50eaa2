//! [`std::time`]: nothing in it blocks, so it is std's own.

pub use ::std::time::*;
