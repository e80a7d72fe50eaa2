//! What standard output and standard error have in common.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write};
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::any_file::AnyFile;
use crate::reactor::Descriptor;
use crate::shims::fs::file_system::Nature;
use crate::sync::reentrant::{Entry, ReentrantLock};
use crate::sys::socket::at_most_iov_max;
use crate::task;

/// One of the process's own descriptors, unbuffered: whatever that is at each write.
///
/// Its writes park the coroutine. They block the OS thread off-coroutine; in a coroutine that unwinds,
/// whose error would be a panic amid a panic; and while the process exits, when the caller's worker may
/// be in the middle of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output(RawFd);

static EXITING: AtomicBool = AtomicBool::new(false);

/// The process exits: writes block from now on.
pub(super) fn exit() {
    EXITING.store(true, Ordering::Relaxed);
}

pub(super) fn is_exiting() -> bool {
    EXITING.load(Ordering::Relaxed)
}

impl Output {
    pub(super) const STDOUT: Output = Output(libc::STDOUT_FILENO);
    pub(super) const STDERR: Output = Output(libc::STDERR_FILENO);

    pub(super) fn as_fd(self) -> BorrowedFd<'static> {
        // SAFETY: it is the process's own, and stays open as long as that runs, or is opened again as
        // something else by whoever closes it. As std has it.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Write for Output {
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
            // As std: a process without the descriptor has one that takes all.
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

/// A writer to a descriptor that all of the process shares.
#[derive(Debug)]
pub(super) struct Shared<W> {
    lock: ReentrantLock,
    /// For the holder of the lock. It is borrowed while that writes, which no user's code can see.
    writer: RefCell<W>,
    output: Output,
}

// SAFETY: the lock is held on one thread at a time, which alone uses the writer, and may have it from
// another one.
unsafe impl<W: Send> Sync for Shared<W> {}

impl<W: Write> Shared<W> {
    pub(super) const fn new(writer: W, output: Output) -> Shared<W> {
        Shared {
            lock: ReentrantLock::new(),
            writer: RefCell::new(writer),
            output,
        }
    }

    pub(super) fn lock(&'static self) -> Guard<W> {
        Guard {
            shared: self,
            entry: self.lock.lock(),
            not_send: PhantomData,
        }
    }

    pub(super) fn try_lock(&'static self) -> Option<Guard<W>> {
        self.lock.try_lock().then_some(Guard {
            shared: self,
            entry: Entry::Held,
            not_send: PhantomData,
        })
    }
}

/// The lock of a [`Shared`].
///
/// Where it is refused, what is written goes straight to the descriptor, past the writer.
#[derive(Debug)]
pub(super) struct Guard<W: 'static> {
    shared: &'static Shared<W>,
    entry: Entry,
    /// Not `Send`: the writer is used on the thread that holds the lock.
    not_send: PhantomData<*const ()>,
}

impl<W: Write> Guard<W> {
    /// Puts `writer` in the place of the one that is there, flushed.
    pub(super) fn replace(&mut self, writer: W) -> io::Result<()> {
        let flushed = self.flush();
        if self.entry == Entry::Held {
            self.shared.writer.replace(writer);
        }
        flushed
    }

    fn with<R>(&self, write: impl FnOnce(&mut dyn Write) -> R) -> R {
        match self.entry {
            Entry::Held => write(&mut *self.shared.writer.borrow_mut()),
            Entry::Refused => write(&mut { self.shared.output }),
        }
    }
}

impl<W: Write> Write for Guard<W> {
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

impl<W> Drop for Guard<W> {
    fn drop(&mut self) {
        if self.entry == Entry::Held {
            // SAFETY: locked for this guard, which is not `Send`.
            unsafe { self.shared.lock.unlock() };
        }
    }
}

/// Writes to what `$lock` makes of `$this`.
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

/// Shows the descriptor of `$output`, and hides all else.
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

        // What a panic leaves half-written is text.
        impl ::std::panic::UnwindSafe for $type {}
        impl ::std::panic::RefUnwindSafe for $type {}
    )*};
}

pub(super) use {is_output, writes_by};
