//! [`std::io`], but waits park the coroutine; and buffered files over sockets.

#[doc(hidden)]
#[path = "print.rs"]
pub mod __print;
pub(crate) mod any_file;
pub(crate) mod copy;
pub mod makefile;
mod output;
pub(crate) mod pipe;
mod stderr;
mod stdin;
mod stdout;
mod terminal;
mod waiting;

pub use ::std::io::*;

pub use copy::copy;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stderr::{Stderr, StderrLock, stderr};
pub use stdin::{Stdin, StdinLock, stdin};
pub use stdout::{Stdout, StdoutLock, stdout};
pub use terminal::{IsTerminal, RawMode, TerminalExt, WindowSize};
