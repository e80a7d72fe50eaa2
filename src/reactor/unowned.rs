//! Waiting on descriptors that their owner may close meanwhile.
//!
//! Code that calls the C library, with the [patch](crate::patch!) in force, lends nothing to this crate. So
//! two things differ from `watch.rs`:
//!
//! *A registration is kept.* The next wait for the same descriptor renews it, by one system call instead of
//! two. That call also tells whether the file of the registration is still open under that number: if not,
//! the kernel has dropped the registration, and a new one is made.
//!
//! *A close ends the waits.* Otherwise they would never end, since the kernel reports nothing more. The close
//! is told here before it happens. The waits fail with `EBADF`, and do not try again: the number may belong
//! to another file by then. A registration that was kept is undone at the same time. So it does not outlive
//! the descriptor if a duplicate stays open.
//!
//! A bit per descriptor says whether a registration may have been kept. So the close of any other descriptor
//! costs one load. A close that goes past the C library's functions is not seen: the waits then last as long
//! as they would in the kernel's own calls.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::watch::{Afterwards, WatchedDescriptors, time_left};
use super::{Handle, Interest};
use crate::park;
use crate::task::{self, Deadline};

/// Parks the calling coroutine until `look` returns something, or until `deadline`. The caller has looked
/// once already.
///
/// # Errors
///
/// Those of `look`, and the kernel's if it does not register a descriptor. `EBADF`, if a descriptor is closed
/// meanwhile. That of an interrupt, if interrupts are delivered as errors.
///
/// # Unwinding
///
/// An interruption point.
pub(crate) fn wait_for_unowned<R>(
    fds: impl IntoIterator<Item = (RawFd, Interest)>,
    deadline: Option<Deadline>,
    mut look: impl FnMut() -> io::Result<Option<R>>,
) -> io::Result<Option<R>> {
    if deadline.is_some_and(|deadline| time_left(deadline).is_zero()) {
        park::yield_now();
        return look();
    }
    let mut watched = WatchedDescriptors::new(Afterwards::Keep)?;
    for (fd, interest) in fds {
        note_kept(fd);
        watched.add(fd, interest)?;
    }
    watched.wait_until(deadline, look)
}

/// Whether there may be waits for `fd`, or a registration of it that was kept. Async-signal-safe.
#[inline]
pub(crate) fn may_be_awaited(fd: RawFd) -> bool {
    let (word, bit) = place(fd);
    word.load(Ordering::SeqCst) & bit != 0
}

/// Ends the waits for `fd`, which the caller is about to close.
#[cold]
pub(crate) fn about_to_close(fd: RawFd) {
    let (word, bit) = place(fd);
    word.fetch_and(!bit, Ordering::SeqCst);
    let reactors = task::lock_aside(&REACTORS);
    let alive: Vec<_> = reactors.iter().filter_map(Weak::upgrade).collect();
    drop(reactors);
    for reactor in alive {
        reactor.close_watched(fd);
    }
}

/// A bit for each descriptor, or for several with high numbers: whether a registration may have been kept.
static KEPT: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

const WORDS: usize = 1024;

fn place(fd: RawFd) -> (&'static AtomicU64, u64) {
    let fd = fd as usize;
    (&KEPT[fd / 64 % WORDS], 1 << (fd % 64))
}

/// Set before the wait, so that a close that begins after the wait finds the bit.
fn note_kept(fd: RawFd) {
    if !may_be_awaited(fd) {
        let (word, bit) = place(fd);
        word.fetch_or(bit, Ordering::SeqCst);
    }
}

/// The reactors of all workers.
static REACTORS: Mutex<Vec<Weak<Handle>>> = Mutex::new(Vec::new());

/// Notes a new reactor, so that a close on any thread finds it.
pub(super) fn add_reactor(reactor: &Arc<Handle>) {
    let mut reactors = task::lock_aside(&REACTORS);
    reactors.retain(|reactor| reactor.strong_count() > 0);
    reactors.push(Arc::downgrade(reactor));
}
