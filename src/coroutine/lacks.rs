//! Stacks that cannot be had, for the tests of what happens then.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::thread::LocalKey;

thread_local! {
    /// How many of this thread's next reservations fail.
    pub(crate) static RESERVATIONS: Cell<usize> = const { Cell::new(0) };
    /// How many of the coroutines that this thread is about to start find no stack, despite their reservations.
    pub(crate) static STACKS: Cell<usize> = const { Cell::new(0) };
}

/// Fails, if that is what a test wants.
pub(crate) fn check(lacking: &'static LocalKey<Cell<usize>>) -> io::Result<()> {
    match lacking.get() {
        0 => Ok(()),
        count => {
            lacking.set(count - 1);
            Err(io::Error::from_raw_os_error(libc::ENOMEM))
        }
    }
}
