//! Coroutines: where and when they run, how they park, panic and overflow, and what they take.

#[path = "../util/mod.rs"]
mod util;

mod compile;
mod context;
mod idlers;
mod outside;
mod overflow;
mod panics;
mod park;
mod poll_hooks;
mod scheduler;
mod sections;
mod stacks;
mod stats;
mod thread;
mod thread_pools;
