//! [`std::process`], but waiting for a child parks the coroutine.
//!
//! A child always gets descriptors in blocking mode, even if they come from types of the shims. A pidfd
//! reports the end of a child. The program may therefore wait for other children by its own means
//! (`waitpid`, a handler of `SIGCHLD`).

mod child;
mod command;
mod pipes;

pub use ::std::process::*;

pub use child::{Child, ChildExt};
pub use command::{Command, CommandExt};
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
