//! Buffered files over sockets, as Python's `socket.makefile` makes them.
//!
//! `stream.makefile()` is a [`SocketFile`] of bytes with the usual buffers; [`MakeFile`] has the
//! settings, Python's mode strings among them, and makes [`TextFile`]s, too. Both go over whatever
//! reads and writes: a TCP or Unix stream of the shims, a TLS stream, an end of a pipe.
//!
//! What differs from Python's files, and why:
//!
//! - What a timeout interrupts is kept, and the next read goes on with it; Python loses it, and
//!   refuses to read on ([`MakeFile::refuse_after_timeout`] has that).
//! - A read that has no end in sight can be limited: [`MakeFile::limit`].
//! - In non-blocking mode, a read that would block says so, rather than seem to be at the end.
//! - After the end of a file there is no `closed` to ask for: the file has been dropped, or
//!   [closed](SocketFile::close).
//!
//! What does not: reads and writes have a buffer each, and reading does not flush what was
//! written; the connection lives until the stream and all files over it are gone; what a file has read
//! ahead is invisible to the stream, and to other files over it ([`SocketFile::buffer`],
//! [`SocketFile::into_parts`]).

mod input;
mod options;
mod output;
mod socket_file;
mod text_file;

pub use options::{Encoding, MakeFile, Newline};
pub use socket_file::{Chunks, Record, SocketFile};
pub use text_file::{TextFile, TextLines};
