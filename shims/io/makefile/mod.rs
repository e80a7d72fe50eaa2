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
//! written (debug builds say so, once, on stderr, where a program does that); the connection lives until the stream and all files over it are gone; what a file has read
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

/// The files of a stream that its handles share by an `Arc` in their field `io`.
macro_rules! makes_files {
    ($stream:ident) => {
        impl $stream {
            /// A buffered two-way file over this connection, which it shares: the connection is
            /// closed when this stream and all its files are gone.
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

            /// As `makefile`, with settings.
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

            /// A buffered two-way text file over this connection, which it shares.
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

            /// The same stream, in a handle of its own.
            fn shared(&self) -> $stream {
                $stream {
                    io: ::std::sync::Arc::clone(&self.io),
                }
            }
        }
    };
}

pub(crate) use makes_files;
