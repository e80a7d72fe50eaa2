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
//! *A close on another thread does not miss a wait that begins.* Both clear or set the bit below before they look, and
//! look once more afterwards:
//!
//! ```text
//! waiter:  set the bit; register; set the bit: was it clear? -> look
//! closer:  clear the bit; end the waits; close; is the bit set? -> have the waits look
//! ```
//!
//! A bit per descriptor says whether a registration may have been kept. So the close of any other descriptor
//! costs one load. A close that goes past the C library's functions is not seen: the waits then last as long
//! as they would in the kernel's own calls.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
        // A close on another thread has come between the two, and not seen this wait. Whether the descriptor is
        // closed by now is seen by a look, or else `has_closed` sees the wait.
        if note_kept(fd) {
            watched.fire();
        }
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
    // A bit of several descriptors stays: the others may be awaited.
    if !IS_SHARED.load(Ordering::SeqCst) {
        word.fetch_and(!bit, Ordering::SeqCst);
    }
    for reactor in alive() {
        reactor.close_watched(fd);
    }
}

/// Called after `fd` was closed. A wait that has begun between `about_to_close` and the close looks again, and finds
/// that the descriptor is closed. (One that is for a new descriptor of that number looks in vain.)
pub(crate) fn has_closed(fd: RawFd) {
    if may_be_awaited(fd) {
        for reactor in alive() {
            reactor.fire_watched(fd);
        }
    }
}

/// The reactors that are there.
fn alive() -> Vec<Arc<Handle>> {
    let reactors = task::lock_aside(&REACTORS);
    reactors.iter().filter_map(Weak::upgrade).collect()
}

/// A bit for each descriptor, or for several with high numbers: whether a registration may have been kept.
static KEPT: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

const WORDS: usize = 1024;

fn place(fd: RawFd) -> (&'static AtomicU64, u64) {
    let fd = fd as usize;
    (&KEPT[fd / 64 % WORDS], 1 << (fd % 64))
}

/// Whether there was a descriptor whose number is so high that it shares a bit.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// Set before the wait, so that a close that begins after the wait finds the bit. Returns whether it was not set.
fn note_kept(fd: RawFd) -> bool {
    if fd as usize >= 64 * WORDS {
        IS_SHARED.store(true, Ordering::SeqCst);
    }
    if may_be_awaited(fd) {
        return false;
    }
    let (word, bit) = place(fd);
    word.fetch_or(bit, Ordering::SeqCst);
    true
}

/// The reactors of all workers.
static REACTORS: Mutex<Vec<Weak<Handle>>> = Mutex::new(Vec::new());

/// Notes a new reactor, so that a close on any thread finds it.
pub(super) fn add_reactor(reactor: &Arc<Handle>) {
    let mut reactors = task::lock_aside(&REACTORS);
    reactors.retain(|reactor| reactor.strong_count() > 0);
    reactors.push(Arc::downgrade(reactor));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_leaves_the_note_of_a_descriptor_that_shares_its_bit() {
        // No descriptors of this process.
        let (low, high) = (60_000, 60_000 + 64 * WORDS as RawFd);
        note_kept(low);
        about_to_close(low);
        assert!(!may_be_awaited(low));
        note_kept(low);
        note_kept(high);
        about_to_close(high);
        assert!(may_be_awaited(low));
    }
}
