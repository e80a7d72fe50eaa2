//! [`std::sync`], where waiting parks.

pub use ::std::sync::*;

pub mod mpsc;
