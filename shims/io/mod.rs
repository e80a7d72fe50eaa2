//! [`std::io`], and buffered files over sockets.

pub mod makefile;
pub(crate) mod pipe;

pub use ::std::io::*;

pub use pipe::{PipeReader, PipeWriter, pipe};
