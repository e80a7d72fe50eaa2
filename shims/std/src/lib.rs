//! [`greenroom::shims`] for a whole crate: a dependency that is renamed to `std`.
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1" }
//! ```
//!
//! Every file of that package, its tests and examples too, then means the shims where it says
//! `std`; no source changes. `greenroom::guide::porting` says what that covers and what stays std's.

pub use greenroom::shims::*;
