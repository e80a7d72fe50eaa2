//! How many operations a coroutine may do before it must yield.
//!
//! An operation that can always complete at once never parks. Without a budget, a coroutine that reads
//! from a fast peer would never give up its worker.
#![forbid(unsafe_code)]

use std::cell::Cell;

/// The operations that a coroutine may do in one turn.
const TURN: u32 = 32;

thread_local! {
    /// What is left of the budget of the coroutine that runs on this thread.
    static LEFT: Cell<u32> = const { Cell::new(TURN) };
}

/// Gives a full budget to the coroutine that begins its turn.
#[inline]
pub(crate) fn refill() {
    LEFT.set(TURN);
}

/// Takes one operation from the budget. Returns whether the budget was used up, so that the coroutine
/// must yield first.
#[inline]
#[must_use]
pub(crate) fn spend() -> bool {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    left == 0
}

/// How many operations were done in the turn that has just ended.
#[inline]
pub(crate) fn spent() -> u32 {
    TURN - LEFT.get()
}
