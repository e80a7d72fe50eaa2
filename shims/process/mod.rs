//! [`std::process`], where waiting for a child parks the coroutine.
//!
//! A child gets blocking descriptors, whatever of the shims' types they come from, and whoever
//! else waits for children of theirs (`waitpid`, a handler of `SIGCHLD`) is not disturbed: the end
//! of a child is seen by a pidfd of its own.

mod child;
mod command;
mod pipes;

pub use ::std::process::*;

pub use child::{Child, ChildExt};
pub use command::{Command, CommandExt};
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
