//! Waiting a moment for a lock that another OS thread is about to give back.

use std::hint;

use super::futex::Holder;

/// How often to look again. Some microseconds in all: about what it takes to suspend and to wake
/// somebody on another OS thread, so that the wait is at worst twice as dear.
const LOOKS: u32 = 32;

/// Lets a moment pass and returns true, if there is any hope that `holder` gets on meanwhile. A
/// coroutine of the calling thread does not.
pub(super) fn once(looks: &mut u32, holder: Option<Holder>) -> bool {
    if *looks == LOOKS || holder.is_some_and(|holder| holder.slot_here().is_some()) {
        return false;
    }
    *looks += 1;
    hint::spin_loop();
    true
}
