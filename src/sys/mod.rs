//! What the operating system provides, behind one written contract.
//!
//! A platform provides:
//!
//! - `memory`: address space that is backed only where it is touched, guards inside it, and a way
//!   to give its pages back.
//! - `fork`: to be told of forks, and to tell a process from those it was forked from.
//! - `poll`: the present state of descriptors, and to block for it.
//! - `socket`: one attempt at a socket operation that never blocks, whatever the mode of the
//!   descriptor.
//! - `file`: the same for files and pipes.
//! - `mode_turn`: to be the only one that changes the mode of a listener.
//! - `child`: to learn of the end of a child process.
//! - `initialisers`: to tell, in debug builds, that a wait begins in the initialiser of a
//!   `thread_local!`.
//! - `stderr`: standard error without a lock, a buffer or an allocation.
//! - `switches`: to count how often a thread has waited in the kernel.
//! - `timerfd`: a one-shot alarm, exact to the nanosecond, that a poll can wait for.
//! - `thread_end`: to be told that a thread has ended, and has dropped its thread-locals.
//!
//! Linux is the platform there is; another one is a sibling of these files.

#[cfg(not(target_os = "linux"))]
compile_error!("greenroom runs on Linux");

pub(crate) mod child;
pub(crate) mod file;
pub(crate) mod fork;
#[cfg(debug_assertions)]
pub(crate) mod initialisers;
pub(crate) mod memory;
pub(crate) mod mode_turn;
pub(crate) mod poll;
pub(crate) mod socket;
pub(crate) mod stderr;
pub(crate) mod switches;
pub(crate) mod thread_end;
pub(crate) mod timerfd;
