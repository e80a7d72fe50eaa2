//! How many references to a task there are.
//!
//! ```text
//!   n ──another──▶ n + 1        by who has one
//!   n ──let_go───▶ n - 1        1 ──let_go──▶ the last: by whom the task is freed
//! ```
//!
//! Unlike `Arc`'s there are no weak ones, and a task begins with as many as its maker needs: a spawn
//! and join takes one atomic read-modify-write for its two references, where `Arc` takes four.
//!
//! Whoever sees a count of one has the only reference, so nobody can make another meanwhile, and it
//! need not be counted down. All that others did with theirs happened before: they let go with
//! `Release`, and this was read with `Acquire`, from the last of them or a later change of the count.

use crate::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Refs(AtomicUsize);

/// As `Arc`: long before the count could wrap around. Each reference takes memory, but for those that
/// were forgotten.
const MOST: usize = isize::MAX as usize;

impl Refs {
    pub(super) fn new(count: usize) -> Refs {
        Refs(AtomicUsize::new(count))
    }

    /// Counts one more, for who has one; returns whether there are not too many.
    #[inline]
    #[must_use]
    pub(super) fn another(&self) -> bool {
        // Handing it to another thread is what orders that thread's accesses after these.
        self.0.fetch_add(1, Ordering::Relaxed) < MOST
    }

    /// Counts one less, for who had it; returns whether it was the last.
    #[inline]
    #[must_use]
    pub(super) fn let_go(&self) -> bool {
        self.is_one() || self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    #[inline]
    pub(super) fn is_one(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}
