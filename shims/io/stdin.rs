//! Standard input.

use std::fmt;
use std::io::{self, BufRead, BufReader, IoSliceMut, Lines, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;

use super::any_file::AnyFile;
use crate::reactor::Descriptor;
use crate::shims::fs::file_system::Nature;
use crate::shims::park_or_block::park_or_block;
use crate::shims::sync::{Mutex, MutexGuard, PoisonError};
use crate::task;

/// Like [`std::io::stdin`], but waits park the coroutine.
///
/// The buffer is separate from that of std's `stdin`. Bytes that one of the two has read ahead are
/// invisible to the other.
#[must_use]
pub fn stdin() -> Stdin {
    static INPUT: OnceLock<Mutex<BufReader<InputFd>>> = OnceLock::new();
    Stdin {
        input: task::get_or_init_aside(&INPUT, || Mutex::new(BufReader::new(InputFd))),
    }
}

/// Like [`std::io::Stdin`], but waits park the coroutine. The descriptor stays in blocking mode.
pub struct Stdin {
    input: &'static Mutex<BufReader<InputFd>>,
}

/// Like [`std::io::StdinLock`].
pub struct StdinLock<'a> {
    input: MutexGuard<'a, BufReader<InputFd>>,
}

impl Stdin {
    /// Like [`std::io::Stdin::lock`].
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock {
            input: self.input.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Like [`std::io::Stdin::read_line`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn read_line(&self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_line(buf)
    }

    /// Like [`std::io::Stdin::lines`].
    #[must_use = "`Stdin::lines` is lazy"]
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }
}

/// Descriptor 0, unbuffered. Each read looks at what the descriptor leads to at that time.
struct InputFd;

fn descriptor() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 belongs to the process and stays open while the process runs. std assumes the
    // same: code that closes the descriptor must open another file under its number.
    unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) }
}

impl Read for InputFd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let read = park_or_block(
            bufs,
            |bufs| {
                let (io, nature) = (Descriptor::foreign(descriptor()), Nature::of(descriptor()));
                AnyFile::new(&io, nature, false).read_vectored(bufs)
            },
            |bufs| rustix::io::readv(descriptor(), bufs).map_err(io::Error::from),
        );
        match read {
            // As std: in a process without standard input, reads find the end.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(0),
            read => read,
        }
    }
}

/// Implements `Read` by the reader that the expression `$lock` makes of `$this`.
macro_rules! reads_by {
    ($($type:ty: |$this:ident| $lock:expr;)*) => {$(
        impl Read for $type {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let $this = self;
                $lock.read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                let $this = self;
                $lock.read_vectored(bufs)
            }

            fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
                let $this = self;
                $lock.read_to_end(buf)
            }

            fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
                let $this = self;
                $lock.read_to_string(buf)
            }

            fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
                let $this = self;
                $lock.read_exact(buf)
            }
        }
    )*};
}

reads_by! {
    Stdin: |this| this.lock();
    &Stdin: |this| this.lock();
    StdinLock<'_>: |this| this.input;
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }

    fn read_until(&mut self, byte: u8, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.input.read_until(byte, buf)
    }

    fn read_line(&mut self, buf: &mut String) -> io::Result<usize> {
        self.input.read_line(buf)
    }
}

/// Implements the traits of an input type other than `Read`.
macro_rules! is_descriptor_0 {
    ($($type:ty: $name:literal),*) => {$(
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                descriptor()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                libc::STDIN_FILENO
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }
    )*};
}

is_descriptor_0!(Stdin: "Stdin", StdinLock<'_>: "StdinLock");
