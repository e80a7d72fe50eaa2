//! Spinning for a moment at a lock that another OS thread may be about to unlock.
#![forbid(unsafe_code)]

use std::hint;

use super::futex::Holder;

/// How often to look again: some microseconds in all. That is about what it costs to suspend and to
/// wake a waiter on another OS thread, so a spin in vain at most doubles the cost of the wait.
const MOST_SPINS: u32 = 32;

/// Lets a moment pass and returns true, unless the caller has spun enough, or cannot hope that
/// `holder` unlocks meanwhile: a coroutine of the calling thread does not run while the caller spins.
pub(super) fn once(spins: &mut u32, holder: Option<Holder>) -> bool {
    if *spins == MOST_SPINS || holder.is_some_and(Holder::is_here) {
        return false;
    }
    *spins += 1;
    hint::spin_loop();
    true
}
