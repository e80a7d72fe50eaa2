//! Green threads.

mod blocking;
mod coroutine;
mod join;
mod panic;
mod park;
mod reactor;
mod runtime;
mod scheduler;
mod scope;
mod spawn;
mod sys;
mod task;
mod thread;
mod timer;

#[path = "../shims/mod.rs"]
pub mod shims;

pub use blocking::unblock;
pub use join::{JoinHandle, LocalJoinHandle};
pub use park::{Cancelled, Unparker, park, park_timeout, park_until, yield_now};
pub use runtime::{Runtime, RuntimeBuilder, run, wait_idle};
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use spawn::{Builder, spawn, spawn_local};
pub use thread::{Thread, ThreadId, current};
