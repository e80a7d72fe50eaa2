//! How many workers of a runtime are STILL, and a look at them that none has disturbed: see `stillness`.
//!
//! ```text
//! worker:   put into its list ; entries += 1 ; still += 1 ; wait ; still -= 1 ; take the mail
//! reporter: read `entries` ; count the threads, copy the lists ; no mail anywhere ; all STILL ; `entries` is as before
//! ```
//!
//! *A look that holds is true.* If there was no other thread at the count, no mail is put later but by a worker, which is
//! not STILL then. Mail that was put before is seen, unless its worker has taken it. That worker was not STILL then. It
//! may be STILL again, after it has started a thread, perhaps; but then `entries` has changed. A worker that replaces
//! its list after `entries` was read is not STILL yet, or has changed `entries`.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicUsize, Ordering};

pub(super) struct Standstill {
    /// How many workers are STILL.
    still: AtomicUsize,
    /// How often a worker has become STILL.
    entries: AtomicUsize,
}

impl Standstill {
    pub(super) fn new() -> Standstill {
        Standstill {
            still: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
        }
    }

    /// Notes that a worker is STILL, which has put its coroutines into its list. Returns how many are STILL.
    pub(super) fn enter(&self) -> usize {
        self.entries.fetch_add(1, Ordering::SeqCst);
        self.still.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes that a worker is not STILL any more. Only then may it take its mail.
    pub(super) fn leave(&self) {
        self.still.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns what `copy` has seen, if all `workers` have been STILL from before its call until `is_quiet`, called
    /// after it, has found no mail.
    pub(super) fn look<T>(
        &self,
        workers: usize,
        copy: impl FnOnce() -> T,
        is_quiet: impl FnOnce() -> bool,
    ) -> Option<T> {
        let entries = self.entries.load(Ordering::SeqCst);
        let copy = copy();
        let holds = is_quiet()
            && self.still.load(Ordering::SeqCst) == workers
            && self.entries.load(Ordering::SeqCst) == entries;
        holds.then_some(copy)
    }
}
