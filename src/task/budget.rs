//! How much a coroutine may do before it must let others run.
//!
//! An operation that always completes at once never parks; without a budget, a coroutine reading
//! from a fast peer would keep its worker to itself.

use std::cell::Cell;

/// The operations of one turn.
const TURN: u32 = 32;

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(TURN) };
}

/// Grants a full budget to the coroutine whose turn begins.
#[inline]
pub(crate) fn refill() {
    LEFT.set(TURN);
}

/// Takes one operation from the budget; returns whether the coroutine must yield first.
#[inline]
#[must_use]
pub(crate) fn spend() -> bool {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    left == 0
}

/// The operations that the turn which just ended has done.
#[inline]
pub(crate) fn spent() -> u32 {
    TURN - LEFT.get()
}
