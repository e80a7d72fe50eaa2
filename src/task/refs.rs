//! The number of references to a task.
//!
//! ```text
//!   n ──another──▶ n + 1        by the owner of a reference
//!   n ──let_go───▶ n - 1        1 ──let_go──▶ the last one: the caller frees the task
//! ```
//!
//! This differs from `Arc` in two ways. There are no weak references. And a task begins with as many
//! references as its maker needs, so a spawn and join takes one atomic read-modify-write for its two
//! references, where `Arc` takes four.
//!
//! A thread that reads a count of one owns the only reference. No other thread can make a new one
//! meanwhile, so the count need not be decremented. Everything that was done with the other references
//! has happened before: they were let go with `Release`, and this thread has read the count with
//! `Acquire`, from the last such change or from a later one in the same release sequence.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(super) struct Refs(AtomicUsize);

/// The limit of the count, as `Arc`'s. Only references that were forgotten can add up to so many, since
/// others take memory. Far from the point at which the count would wrap around.
const MOST: usize = isize::MAX as usize;

impl Refs {
    pub(super) fn new(count: usize) -> Refs {
        Refs(AtomicUsize::new(count))
    }

    /// Counts one more reference. The caller owns one. Returns false if there are too many.
    #[inline]
    #[must_use]
    pub(super) fn another(&self) -> bool {
        // Relaxed: passing the new reference to another thread orders that thread's accesses.
        self.0.fetch_add(1, Ordering::Relaxed) < MOST
    }

    /// Counts one reference less. The caller has owned it. Returns whether it was the last one.
    #[inline]
    #[must_use]
    pub(super) fn let_go(&self) -> bool {
        self.is_one() || self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether there is exactly one reference.
    #[inline]
    pub(super) fn is_one(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}
