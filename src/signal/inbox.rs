//! What a handler hands over to the code that waits for signals.
//!
//! A pipe has one byte for each signal that has come and was not taken: the number of the signal. So the reading
//! end is readable exactly while there is a signal to be taken, and the signals keep their order. A flag for each
//! signal tells whether its byte is in the pipe. So there is one byte of each at most, and the pipe cannot be full.
//!
//! `take` reads the byte before it clears the flag. A signal that comes in between is taken together with the one
//! before it, and that is returned only after both have come.
//!
//! A forked child writes to the same pipe, but to flags of its own. A byte whose flag is not set comes from there.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};

/// One more than the largest number of a signal.
const SIGNALS: usize = 65;

/// The signals that have come and were not taken.
pub(super) struct Inbox {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Whether the signal of this number is in the pipe.
    is_in: [AtomicBool; SIGNALS],
}

impl Inbox {
    /// An empty inbox.
    ///
    /// # Errors
    ///
    /// The operating system's: out of descriptors.
    pub(super) fn new() -> io::Result<Inbox> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Inbox {
            reader,
            writer,
            is_in: [const { AtomicBool::new(false) }; SIGNALS],
        })
    }

    /// Puts `signal` in, unless it is in already. Async-signal-safe: an atomic, and a system call that does not
    /// go through the C library. Leaves `errno` alone.
    pub(super) fn put(&self, signal: i32) {
        let is_in = self.is_in.get(signal as usize);
        if is_in.is_some_and(|is_in| !is_in.swap(true, Ordering::SeqCst)) {
            // Fails only if forked children have filled the pipe. The next signal then tries again.
            if rustix::io::write(&self.writer, &[signal as u8]).is_err() {
                self.is_in[signal as usize].store(false, Ordering::SeqCst);
            }
        }
    }

    /// Takes the signal that has come first.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(super) fn take(&self) -> io::Result<Option<i32>> {
        let mut byte = [0];
        loop {
            match retry_on_intr(|| rustix::io::read(&self.reader, &mut byte)) {
                Err(Errno::AGAIN) => return Ok(None),
                read => read?,
            };
            let is_in = &self.is_in[usize::from(byte[0])];
            if is_in.swap(false, Ordering::SeqCst) {
                return Ok(Some(i32::from(byte[0])));
            }
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
