//! [`greenroom::shims`] for a whole crate: add this package as a dependency that is renamed to `std`.
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1" }
//! ```
//!
//! In every file of the dependent package, including tests and examples, the name `std` then stands for
//! the shims, without any change to the source. `greenroom::guide::porting` says which uses are covered
//! and which stay std's.

pub use greenroom::shims::*;
