//! Waiting for the first of several operations: the macro [`select!`](crate::select!), and [`Select`] for a
//! number of them that is only known at run time.
//!
//! The arms are made by `parts`. `park/several.rs` has the wait, and how nothing is lost in it. Each module
//! with something to wait for has its own arm: `channel/mpmc/arms.rs`, `reactor/watch.rs`, `sync/futex.rs`,
//! `runtime/join/arm.rs`.

mod dynamic;
mod macros;
pub mod parts;

pub use dynamic::Select;
