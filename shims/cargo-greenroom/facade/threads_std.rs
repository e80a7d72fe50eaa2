//! The facade, but for the threads that are spawned: these are the operating system's.

pub use greenroom_std::*;

pub mod thread {
    pub use ::std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, scope, spawn};
    pub use greenroom_std::thread::*;
}
