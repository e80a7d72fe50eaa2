//! [`std::io`], and buffered files over sockets.

pub mod makefile;

pub use ::std::io::*;
