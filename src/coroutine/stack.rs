//! One stack: a slot of a slab, with a guard at its low end.
//!
//! ```text
//!  low addresses                                              high addresses
//!
//!  limit               low                              top         end
//!    |  guard: faults   |  usable bytes                  |  colour   |  next slot ...
//!    |<--- guard_len -->|<----------------- usable ----------------->|
//!    |<-------------------------- stride --------------------------->|
//! ```
//!
//! A coroutine starts at `top` and its frames grow down towards `low`. The colour is the part of
//! the usable bytes, at most 960, by which the top is staggered: tops that are all aligned to a
//! page would compete for the same few sets of the first-level cache.

use std::num::NonZeroUsize;

use crate::sys::memory;

/// The least length of a guard, in bytes. gcc does not probe large frames by default, so a C
/// function could step over a guard of one page without touching it.
const SHORTEST_GUARD: usize = 64 << 10;

/// The usable bytes of the smallest stacks: the least that std gives a thread.
pub(super) const SMALLEST: usize = 16 << 10;

/// The number of different colours; a colour is a multiple of a cache line.
const COLOURS: usize = 16;

/// A size in which stacks come: 16 KiB, doubled `0` to `COUNT - 1` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackSize {
    doublings: usize,
}

impl StackSize {
    /// The number of sizes. The largest one is 1 GiB.
    pub(super) const COUNT: usize = 17;

    /// The size number `index`, counted from the smallest.
    pub(super) const fn at(index: usize) -> StackSize {
        assert!(index < StackSize::COUNT);
        StackSize { doublings: index }
    }

    /// The smallest size with at least `bytes` usable bytes, or `None` beyond 1 GiB.
    pub(super) fn of_at_least(bytes: usize) -> Option<StackSize> {
        let multiple = bytes
            .div_ceil(SMALLEST)
            .max(1)
            .checked_next_power_of_two()?;
        let doublings = multiple.trailing_zeros() as usize;
        (doublings < StackSize::COUNT).then_some(StackSize { doublings })
    }

    /// The number of this size, counted from the smallest.
    #[inline]
    pub(super) fn index(self) -> usize {
        self.doublings
    }

    /// The usable bytes of a stack: those between its guard and the end of its slot.
    pub(super) fn usable(self) -> usize {
        SMALLEST << self.doublings
    }

    /// The length of a guard in bytes: whole pages, one more than the shortest guard needs. The
    /// extra page makes the stride odd, see [`stride`](StackSize::stride).
    pub(super) fn guard_len(self) -> usize {
        SHORTEST_GUARD.next_multiple_of(memory::page_size()) + memory::page_size()
    }

    /// The distance in bytes between two slots of a slab: an odd number of pages. A stride of a
    /// power of two would put all stacks into the same sets of the second-level cache.
    pub(super) fn stride(self) -> usize {
        self.guard_len() + self.usable()
    }
}

/// A slot of a slab, owned by one coroutine, by one pool, or by the free list of its class.
#[derive(Debug)]
pub(super) struct Stack {
    size: StackSize,
    /// The lowest address of the slot, where the guard begins.
    limit: NonZeroUsize,
    /// The address that a coroutine starts at: the end of the slot, less the colour.
    top: NonZeroUsize,
}

impl Stack {
    /// The stack in slot `index` of a slab, where the slot begins at address `limit`.
    ///
    /// # Safety
    ///
    /// The slot is `size.stride()` bytes of readable and writable memory, except for a guard in
    /// its lowest `size.guard_len()` bytes, which faults when it is touched. The slot stays mapped
    /// for as long as the process lives. Nothing but this value and the coroutine on it uses the
    /// slot.
    pub(super) unsafe fn in_slot(size: StackSize, index: usize, limit: usize) -> Stack {
        let colour = index % COLOURS * memory::CACHE_LINE;
        let address = |at| NonZeroUsize::new(at).expect("no mapping lies at address zero");
        Stack {
            size,
            limit: address(limit),
            top: address(limit + size.stride() - colour),
        }
    }

    /// The size of the stack.
    pub(super) fn size(&self) -> StackSize {
        self.size
    }

    /// The lowest usable address, just above the guard.
    pub(super) fn low(&self) -> usize {
        self.limit.get() + self.size.guard_len()
    }

    /// The end of the slot: the top, plus the colour.
    pub(super) fn end(&self) -> usize {
        self.limit.get() + self.size.stride()
    }
}

// SAFETY: corosensei asks for aligned addresses, at least 4 KiB of usable memory and a guard.
// Slots are aligned to pages and colours to cache lines, so both addresses are aligned to at least
// 64 bytes. Between `top` and the guard lie at least 16 KiB of mapped memory less a colour of at
// most 960 bytes. `Stack::in_slot` was promised that the guard below them is in force.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> NonZeroUsize {
        self.top
    }

    fn limit(&self) -> NonZeroUsize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_smallest_that_has_the_bytes_asked_for() {
        for bytes in [
            0,
            1,
            SMALLEST,
            SMALLEST + 1,
            256 << 10,
            (256 << 10) + 1,
            1 << 30,
        ] {
            let size = StackSize::of_at_least(bytes).unwrap();
            assert!(size.usable() >= bytes);
            assert!(
                size.usable() / 2 < bytes.max(SMALLEST),
                "a smaller size would do"
            );
        }
        assert_eq!(StackSize::of_at_least((1 << 30) + 1), None);
        assert_eq!(StackSize::of_at_least(usize::MAX), None);
    }

    #[test]
    fn strides_are_odd_numbers_of_pages() {
        for index in 0..StackSize::COUNT {
            let stride = StackSize::at(index).stride();
            assert_eq!(stride % memory::page_size(), 0);
            assert_eq!(stride / memory::page_size() % 2, 1);
        }
    }

    #[test]
    fn tops_are_staggered_by_cache_lines() {
        let size = StackSize::at(0);
        let mut tops: Vec<_> = (0..COLOURS)
            // SAFETY: nothing runs on these stacks, so the memory in their slots is not touched.
            .map(|index| unsafe { Stack::in_slot(size, index, 1 << 20) }.top.get())
            .collect();
        assert!(tops.iter().all(|top| top % memory::CACHE_LINE == 0));
        tops.dedup();
        assert_eq!(tops.len(), COLOURS);
    }
}
