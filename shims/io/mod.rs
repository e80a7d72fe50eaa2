//! [`std::io`], and buffered files over sockets.

pub(crate) mod any_file;
pub mod makefile;
pub(crate) mod pipe;
mod stdin;
mod terminal;
mod waiting;

pub use ::std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stdin::{Stdin, StdinLock, stdin};
pub use terminal::{IsTerminal, RawMode, TerminalExt, WindowSize};
