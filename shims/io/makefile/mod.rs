//! Buffered files over sockets, like those of Python's `socket.makefile`.
//!
//! `stream.makefile()` returns a [`SocketFile`] of bytes with buffers of the usual size. [`MakeFile`] sets
//! options, including Python's mode strings, and also makes a [`TextFile`]. Both kinds of files work over
//! any type that reads and writes: a TCP or Unix stream of the shims, a TLS stream.
//!
//! # Differences from Python
//!
//! - After a timeout, the bytes that were read are kept, and the next read goes on with them. Python loses
//!   the bytes and refuses to read on, as [`MakeFile::refuse_after_timeout`] does.
//! - [`MakeFile::limit`] limits reads that look for an end.
//! - In non-blocking mode, a read that would block fails with `WouldBlock`. Python's read looks as if the
//!   file had ended.
//! - There is no attribute `closed`: a file is closed by dropping the file or by
//!   [`close`](SocketFile::close).
//!
//! # In common with Python
//!
//! - Reads and writes have separate buffers, and reading does not flush what was written. Debug builds
//!   print a hint on stderr, once, if a program reads before it flushes.
//! - The connection lives until the stream and all files over the stream are gone.
//! - Bytes that a file has read ahead are invisible to the stream and to other files over the stream. See
//!   [`SocketFile::buffer`] and [`SocketFile::into_parts`].
#![forbid(unsafe_code)]

mod buffered_stream;
mod options;
mod read_buffer;
mod socket_file;
mod text_file;

pub use options::{Encoding, MakeFile, Newline};
pub use socket_file::{Chunks, Record, SocketFile};
pub use text_file::{TextFile, TextLines};

/// Defines the methods of a stream that make files. The stream has an `Arc` in its field `io`.
macro_rules! makes_files {
    ($stream:ident) => {
        impl $stream {
            /// Makes a buffered two-way file over this connection. The file shares the connection, which
            /// is closed when this stream and all its files are gone.
            ///
            /// ```
            /// use greenroom::shims as std;
            /// use std::io::{BufRead, Write};
            /// use std::os::unix::net::UnixStream;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// let (near, far) = UnixStream::pair()?;
            /// let mut file = near.makefile();
            /// file.write_all(b"hello\n")?;
            /// file.flush()?;
            ///
            /// let mut line = String::new();
            /// far.makefile().read_line(&mut line)?;
            /// assert_eq!(line, "hello\n");
            /// # Ok(())
            /// # }
            /// ```
            pub fn makefile(&self) -> $crate::shims::io::makefile::SocketFile<$stream> {
                $crate::shims::io::makefile::SocketFile::new(self.shared())
            }

            /// Like `makefile`, with options.
            ///
            /// # Errors
            ///
            /// See [`MakeFile::file`](crate::shims::io::makefile::MakeFile::file).
            pub fn makefile_with(
                &self,
                options: &$crate::shims::io::makefile::MakeFile,
            ) -> ::std::io::Result<$crate::shims::io::makefile::SocketFile<$stream>> {
                options.file(self.shared())
            }

            /// Makes a buffered two-way text file, which shares this connection.
            ///
            /// # Errors
            ///
            /// See [`MakeFile::text`](crate::shims::io::makefile::MakeFile::text).
            pub fn maketext(
                &self,
                options: &$crate::shims::io::makefile::MakeFile,
            ) -> ::std::io::Result<$crate::shims::io::makefile::TextFile<$stream>> {
                options.text(self.shared())
            }

            /// Another handle of the same stream.
            fn shared(&self) -> $stream {
                $stream {
                    io: ::std::sync::Arc::clone(&self.io),
                }
            }
        }
    };
}

pub(crate) use makes_files;
