//! What standard output and standard error share.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::any_file::AnyFile;
use crate::reactor::Descriptor;
use crate::shims::fs::file_system::Nature;
use crate::sync::reentrant::{ReentrantLock, ReentrantLocked};
use crate::sys::socket::at_most_iov_max;
use crate::task;

/// Descriptor 1 or 2, unbuffered. Each write looks at what the descriptor leads to at that time.
///
/// A write parks a coroutine, and blocks an OS thread. Two further cases block the thread. A coroutine
/// that unwinds cannot park: the write would fail, and the print macros would panic during a panic. While
/// the process exits, the exit may run on the caller's worker, which then resumes no coroutine.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputFd(RawFd);

static EXITING: AtomicBool = AtomicBool::new(false);

/// To be called when the process begins to exit. Writes block the thread from now on.
pub(super) fn exit() {
    EXITING.store(true, Ordering::Relaxed);
}

pub(super) fn is_exiting() -> bool {
    EXITING.load(Ordering::Relaxed)
}

impl OutputFd {
    pub(super) const STDOUT: OutputFd = OutputFd(libc::STDOUT_FILENO);
    pub(super) const STDERR: OutputFd = OutputFd(libc::STDERR_FILENO);

    pub(super) fn as_fd(self) -> BorrowedFd<'static> {
        // SAFETY: descriptors 1 and 2 belong to the process and stay open while the process runs. std
        // assumes the same: code that closes one must open another file under its number.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Write for OutputFd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = at_most_iov_max(bufs);
        let parks = task::on_coroutine() && !task::is_unwinding() && !is_exiting();
        let written = match parks {
            true => {
                let (io, nature) = (Descriptor::foreign(self.as_fd()), Nature::of(self.as_fd()));
                AnyFile::new(&io, nature, true).write_vectored(bufs)
            }
            false => rustix::io::writev(self.as_fd(), bufs).map_err(io::Error::from),
        };
        match written {
            // As std: in a process without the descriptor, writes succeed and go nowhere.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                Ok(bufs.iter().map(|buf| buf.len()).sum())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that the whole process shares, behind a lock that its holder may lock again.
#[derive(Debug)]
pub(super) struct SharedWriter<W> {
    lock: ReentrantLock,
    /// Used by the holder of the lock only. Borrowed for single calls, which run no code of the user's.
    writer: RefCell<W>,
    output: OutputFd,
}

// SAFETY: only the holder of the lock uses the writer, and one thread at a time holds the lock. The writer
// passes from thread to thread, which is why `W` is `Send`.
unsafe impl<W: Send> Sync for SharedWriter<W> {}

impl<W: Write> SharedWriter<W> {
    pub(super) const fn new(writer: W, output: OutputFd) -> SharedWriter<W> {
        SharedWriter {
            lock: ReentrantLock::new(),
            writer: RefCell::new(writer),
            output,
        }
    }

    pub(super) fn lock(&'static self) -> SharedWriterGuard<W> {
        SharedWriterGuard {
            shared: self,
            locked: self.lock.lock(),
            not_send: PhantomData,
        }
    }

    pub(super) fn try_lock(&'static self) -> Option<SharedWriterGuard<W>> {
        self.lock.try_lock().then_some(SharedWriterGuard {
            shared: self,
            locked: ReentrantLocked::Held,
            not_send: PhantomData,
        })
    }
}

/// A guard of a [`SharedWriter`].
///
/// If the lock was refused, writes bypass the writer and go straight to the descriptor.
#[derive(Debug)]
pub(super) struct SharedWriterGuard<W: 'static> {
    shared: &'static SharedWriter<W>,
    locked: ReentrantLocked,
    /// Makes the guard `!Send`: only the thread that holds the lock may use the writer.
    not_send: PhantomData<*const ()>,
}

impl<W: Write> SharedWriterGuard<W> {
    /// Flushes the writer and puts `writer` in its place.
    pub(super) fn replace(&mut self, writer: W) -> io::Result<()> {
        let flushed = self.flush();
        if self.locked == ReentrantLocked::Held {
            self.shared.writer.replace(writer);
        }
        flushed
    }

    fn with<R>(&self, write: impl FnOnce(&mut dyn Write) -> R) -> R {
        match self.locked {
            ReentrantLocked::Held => write(&mut *self.shared.writer.borrow_mut()),
            ReentrantLocked::Refused => write(&mut { self.shared.output }),
        }
    }
}

impl<W: Write> Write for SharedWriterGuard<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.with(|writer| writer.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|writer| writer.write_vectored(bufs))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.with(|writer| writer.write_all(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(|writer| writer.flush())
    }
}

impl<W> Drop for SharedWriterGuard<W> {
    fn drop(&mut self) {
        if self.locked == ReentrantLocked::Held {
            // SAFETY: the lock was locked for this guard, which is `!Send` and so on the thread that
            // locked, and which is dropped once.
            unsafe { self.shared.lock.unlock() };
        }
    }
}

/// Implements `Write` by the writer that the expression `$lock` makes of `$this`.
macro_rules! writes_by {
    ($($type:ty: |$this:ident| $lock:expr;)*) => {$(
        impl ::std::io::Write for $type {
            fn write(&mut self, buf: &[u8]) -> ::std::io::Result<usize> {
                let $this = self;
                $lock.write(buf)
            }

            fn write_vectored(
                &mut self,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                let $this = self;
                $lock.write_vectored(bufs)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                let $this = self;
                $lock.flush()
            }

            fn write_all(&mut self, buf: &[u8]) -> ::std::io::Result<()> {
                let $this = self;
                $lock.write_all(buf)
            }

            fn write_fmt(&mut self, args: ::std::fmt::Arguments<'_>) -> ::std::io::Result<()> {
                let $this = self;
                $lock.write_fmt(args)
            }
        }
    )*};
}

/// Implements the traits of an output type other than `Write`.
macro_rules! is_output {
    ($output:expr; $($type:ty: $name:literal),*) => {$(
        impl ::std::os::fd::AsFd for $type {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                $output.as_fd()
            }
        }

        impl ::std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(&$output.as_fd())
            }
        }

        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }

        // A panic can only leave a half-written text behind.
        impl ::std::panic::UnwindSafe for $type {}
        impl ::std::panic::RefUnwindSafe for $type {}
    )*};
}

pub(super) use {is_output, writes_by};
