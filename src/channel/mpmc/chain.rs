//! The queue of a channel: a chain of blocks. Senders use its tail, receivers its head.
//!
//! ```text
//!        popped values             queued values       free slots
//!     ┌───────────────────────┬───────────────────┬ ─ ─ ─ ─ ─ ─ ─
//!     │ block ──▶ block ──▶ block ──▶ block ──▶ block
//!     └───────────────────────┴───────────────────┴ ─ ─ ─ ─ ─ ─ ─
//!       first              popped              pushed
//! ```
//!
//! Two counters say how many values have been pushed, and how many have been popped. The value that
//! comes after `n` others lies in slot `n % SLOTS` of its block. Only one thread pushes at a time: the
//! one that has the `Tail`. Only one thread pops at a time: the one that has the `Head`. A push and a
//! pop may run at the same time.
//!
//! *No slot is read while it is written.* A push writes the slot, then raises `pushed` with a release.
//! A pop reads `pushed` with an acquire, and reads only slots below that count. The links between
//! blocks, and the pointer to the first block, are written before such a release and followed after
//! such an acquire, too: the head follows a link when it pops the first value of the next block.
//!
//! *No block is reused or freed while it is read.* The tail takes a block out of the chain only if
//! `popped`, read with an acquire, has passed the block's end. To have reached the end is not enough,
//! since the head still follows the link of that block. The head's store of the larger `popped` is a
//! release, and comes after its last use of the block.
//!
//! *The two ends seldom touch each other's cache lines.* Each end keeps the last count it has read of
//! the other end. Counts only grow, so an old count is safe, and an end reads again only if the old
//! count does not allow the operation. So a burst is written and read without moving any cache line
//! between processors, other than those of the values.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::{self, MaybeUninit, offset_of};
use std::ptr;

use crate::atomic::{AtomicUsize, Ordering, UnsafeCell};

/// The approximate size of a block in bytes. A block of one slot may be larger.
const BYTES: usize = 2_048;

/// The start of a block. Its slots follow in the same allocation; see [`Block::LAYOUT`].
#[repr(C)]
struct Block<T, const N: usize> {
    /// The block for the values after this block's. Null until it has been added.
    next: UnsafeCell<*mut Block<T, N>>,
    /// Where the slots begin.
    slots: [Slot<T>; 0],
}

/// Holds a value from its push until its pop.
type Slot<T> = UnsafeCell<MaybeUninit<T>>;

impl<T, const N: usize> Block<T, N> {
    /// The number of slots: `N`, or fewer if the values are large.
    ///
    /// A power of two, so that `count % SLOTS` stays continuous when a count wraps around.
    const SLOTS: usize = {
        assert!(N.is_power_of_two());
        let size = size_of::<Slot<T>>();
        match BYTES.checked_div(size) {
            Some(0) => 1,
            Some(fit) if fit < N => 1 << fit.ilog2(),
            _ => N,
        }
    };

    const LAYOUT: Layout = {
        let Ok(slots) = Layout::array::<Slot<T>>(Self::SLOTS) else {
            panic!("a value of that size");
        };
        let Ok((layout, begin)) = Layout::new::<Self>().extend(slots) else {
            panic!("a value of that size");
        };
        assert!(begin == offset_of!(Self, slots));
        layout
    };

    /// Allocates a block with empty slots and a null link.
    fn new() -> *mut Block<T, N> {
        // SAFETY: the layout is not of size zero, for a block has a link.
        let block: *mut Block<T, N> = unsafe { alloc(Self::LAYOUT) }.cast();
        if block.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        // SAFETY: the allocation is new, not shared, and has room for the link and `SLOTS` slots.
        unsafe {
            (&raw mut (*block).next).write(UnsafeCell::new(ptr::null_mut()));
            for slot in 0..Self::SLOTS {
                let slot = Block::slot(block, slot).cast_mut();
                slot.write(UnsafeCell::new(MaybeUninit::uninit()));
            }
        }
        block
    }

    /// Frees a block. Values in its slots are not dropped.
    ///
    /// # Safety
    ///
    /// `block` came from [`new`](Block::new), and is not used any more.
    unsafe fn free(block: *mut Block<T, N>) {
        // SAFETY: the caller promises that `block` came from `new`, so it has this layout and its link
        // and slots are initialised, and that nothing else uses it. Dropping a slot does not drop the
        // `MaybeUninit`'s value.
        unsafe {
            for slot in 0..Self::SLOTS {
                ptr::drop_in_place(Block::slot(block, slot).cast_mut());
            }
            ptr::drop_in_place(block);
            dealloc(block.cast(), Self::LAYOUT);
        }
    }

    /// The slot at index `slot`.
    ///
    /// # Safety
    ///
    /// `block` was allocated with [`LAYOUT`](Block::LAYOUT), and `slot < SLOTS`.
    #[inline]
    unsafe fn slot(block: *mut Block<T, N>, slot: usize) -> *const Slot<T> {
        // SAFETY: `LAYOUT` places `SLOTS` slots at this field, and the caller promises that the index
        // is below `SLOTS`.
        unsafe { (&raw const (*block).slots).cast::<Slot<T>>().add(slot) }
    }
}

/// Blocks that belong to no queue.
///
/// The global allocator may be the user's, and may itself use channels, so it must not be called under
/// a channel's lock. A queue that needs a block takes one from here, and a queue that drops a block
/// puts it here. The owner makes this before it takes the lock and drops it after it has given the lock
/// back.
pub(super) struct SpareBlocks<T, const N: usize> {
    /// A new block, or null.
    fresh: *mut Block<T, N>,
    /// The blocks to free, as a linked list.
    old: *mut Block<T, N>,
}

impl<T, const N: usize> SpareBlocks<T, N> {
    /// No blocks. Allocates nothing.
    #[inline]
    pub(super) fn new() -> SpareBlocks<T, N> {
        SpareBlocks {
            fresh: ptr::null_mut(),
            old: ptr::null_mut(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_null() && self.old.is_null()
    }

    /// Makes sure that there is a new block. Calls the allocator, so no lock must be held.
    #[cold]
    pub(super) fn fill(&mut self) {
        if self.fresh.is_null() {
            self.fresh = Block::new();
        }
    }

    /// Takes the new block out, if there is one.
    fn take(&mut self) -> Option<*mut Block<T, N>> {
        let fresh = mem::replace(&mut self.fresh, ptr::null_mut());
        (!fresh.is_null()).then_some(fresh)
    }

    /// Keeps `block` until it can be freed.
    ///
    /// # Safety
    ///
    /// `block` came from [`Block::new`], and nothing else uses it any more.
    unsafe fn put(&mut self, block: *mut Block<T, N>) {
        // SAFETY: the caller gives us the only pointer to a live block.
        unsafe { (*block).next.with_mut(|next| *next = self.old) };
        self.old = block;
    }

    /// Frees all blocks. Calls the allocator, so no lock must be held.
    #[cold]
    pub(super) fn free(&mut self) {
        if let Some(fresh) = self.take() {
            // SAFETY: the block came from `Block::new`, and has been in no queue.
            unsafe { Block::free(fresh) };
        }
        while !self.old.is_null() {
            // SAFETY: `put` has linked this live block, and its caller has promised that nothing else
            // uses the block. The link is read before the block is freed.
            unsafe {
                let block = self.old;
                self.old = (*block).next.with(|next| *next);
                Block::free(block);
            }
        }
    }
}

impl<T, const N: usize> Drop for SpareBlocks<T, N> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.free();
        }
    }
}

/// The queue needs a new block, and the spare blocks have none.
pub(super) struct NoSpareBlock;

/// What the tail tells the head. Written by the tail only.
pub(super) struct Pushed<T, const N: usize> {
    /// How many values have been pushed.
    count: AtomicUsize,
    /// The block of the first value. Null until that block has been added.
    origin: UnsafeCell<*mut Block<T, N>>,
}

/// What the head tells the tail. Written by the head only.
pub(super) struct Popped {
    /// How many values have been popped.
    count: AtomicUsize,
    /// The last `pushed` count that the head has read.
    known: AtomicUsize,
}

/// The end at which values are pushed.
pub(super) struct Tail<T, const N: usize> {
    /// For how many values the queue keeps room after they have been popped.
    kept: usize,
    /// The last `popped` count that this end has read.
    popped: usize,
    /// The oldest block of the chain.
    first: *mut Block<T, N>,
    /// The count of values at which the first block ends.
    first_end: usize,
    /// The newest block of the chain. Null, and so is `first`, before the first value.
    last: *mut Block<T, N>,
    /// The count of values at which the last block was added. It may have been added without a push.
    extended_at: Option<usize>,
}

/// The end at which values are popped.
pub(super) struct Head<T, const N: usize> {
    /// The block of the value popped last. Null before the first pop.
    block: *mut Block<T, N>,
}

// SAFETY: the pointers lead to blocks of values of type `T: Send`. The module documentation shows that
// an end uses a block only while the other end does not, from whichever thread.
unsafe impl<T: Send, const N: usize> Send for Tail<T, N> {}
// SAFETY: the pointer leads to a block of values of type `T: Send`. The module documentation shows that
// the head uses a block only while the tail neither writes the same slot nor frees the block.
unsafe impl<T: Send, const N: usize> Send for Head<T, N> {}
// SAFETY: `origin` points to a block of values of type `T: Send`, which may cross threads.
unsafe impl<T: Send, const N: usize> Send for Pushed<T, N> {}
// SAFETY: the tail writes `origin` once, before the release that raises `count` from zero. The head
// reads `origin` after an acquire that has seen a count above zero.
unsafe impl<T: Send, const N: usize> Sync for Pushed<T, N> {}

impl<T, const N: usize> Pushed<T, N> {
    pub(super) fn new() -> Pushed<T, N> {
        Pushed {
            count: AtomicUsize::new(0),
            origin: UnsafeCell::new(ptr::null_mut()),
        }
    }
}

impl Popped {
    pub(super) fn new() -> Popped {
        Popped {
            count: AtomicUsize::new(0),
            known: AtomicUsize::new(0),
        }
    }

    /// Whether the queue is empty. Exact only while nothing uses either end.
    pub(super) fn is_empty<T, const N: usize>(&self, pushed: &Pushed<T, N>) -> bool {
        self.count.load(Ordering::Relaxed) == pushed.count.load(Ordering::Relaxed)
    }

    /// Whether the queue seems to be empty. Only a thread that has the tail can know.
    ///
    /// Touches the tail's cache line only if the head knows of no queued value.
    #[inline]
    pub(super) fn seems_empty<T, const N: usize>(&self, pushed: &Pushed<T, N>) -> bool {
        let popped = self.count.load(Ordering::Relaxed);
        popped == self.known.load(Ordering::Relaxed)
            && popped == pushed.count.load(Ordering::Relaxed)
    }
}

impl<T, const N: usize> Tail<T, N> {
    pub(super) fn new(kept: usize) -> Tail<T, N> {
        Tail {
            kept,
            popped: 0,
            first: ptr::null_mut(),
            first_end: Block::<T, N>::SLOTS,
            last: ptr::null_mut(),
            extended_at: None,
        }
    }

    /// How many values are queued. Too many if the head is popping at this moment.
    pub(super) fn len(&mut self, pushed: &Pushed<T, N>, popped: &Popped) -> usize {
        self.popped = popped.count.load(Ordering::Acquire);
        pushed
            .count
            .load(Ordering::Relaxed)
            .wrapping_sub(self.popped)
    }

    /// Whether fewer than `capacity` values are queued.
    #[inline]
    pub(super) fn has_room(
        &mut self,
        capacity: usize,
        pushed: &Pushed<T, N>,
        popped: &Popped,
    ) -> bool {
        let count = pushed.count.load(Ordering::Relaxed);
        // The second comparison reads the head's count, which the first one avoids if it can.
        count.wrapping_sub(self.popped) < capacity || self.len(pushed, popped) < capacity
    }

    /// Whether all slots that were there at the last push are used, so that the next push needs a call
    /// of [`prepare`](Tail::prepare).
    #[inline]
    pub(super) fn is_block_full(&self, pushed: &Pushed<T, N>) -> bool {
        let count = pushed.count.load(Ordering::Relaxed);
        count.is_multiple_of(Block::<T, N>::SLOTS)
    }

    /// Makes sure that there is a slot for the next value.
    ///
    /// Fails if a new block is needed and `spare` has none.
    #[inline]
    pub(super) fn prepare(
        &mut self,
        pushed: &Pushed<T, N>,
        popped: &Popped,
        spare: &mut SpareBlocks<T, N>,
    ) -> Result<(), NoSpareBlock> {
        if !self.is_block_full(pushed) {
            return Ok(());
        }
        let count = pushed.count.load(Ordering::Relaxed);
        self.extend(count, pushed, popped, spare)
    }

    /// Pushes a value into the next slot.
    ///
    /// The slot must be there: either the last block is not full, or `prepare` has succeeded since the
    /// last push.
    #[inline]
    pub(super) fn push(&mut self, value: T, pushed: &Pushed<T, N>) {
        let count = pushed.count.load(Ordering::Relaxed);
        // SAFETY: the last block is in the chain, so it lives; the index is below `SLOTS`. The head does
        // not read this slot before `pushed` says that it is written, and no value is in it: the one
        // before was popped, or the block is new.
        unsafe {
            let slot = Block::slot(self.last, count % Block::<T, N>::SLOTS);
            (*slot).with_mut(|slot| (&mut *slot).write(value));
        }
        pushed.count.store(count.wrapping_add(1), Ordering::Release);
    }

    /// Adds a block for the values from `count` on, unless that has been done.
    ///
    /// Reuses the first block if all its values have been popped. Otherwise takes a spare one. Where
    /// the chain is much longer than it needs to be, also drops one block, so that a queue that is
    /// never empty shrinks again, too.
    #[cold]
    #[inline(never)]
    fn extend(
        &mut self,
        count: usize,
        pushed: &Pushed<T, N>,
        popped: &Popped,
        spare: &mut SpareBlocks<T, N>,
    ) -> Result<(), NoSpareBlock> {
        if self.extended_at == Some(count) {
            return Ok(());
        }
        if !self.first_is_consumed() {
            self.popped = popped.count.load(Ordering::Acquire);
        }
        let block = match self.first_is_consumed() {
            true => self.take_first(),
            false => spare.take().ok_or(NoSpareBlock)?,
        };
        self.extended_at = Some(count);
        if self.last.is_null() {
            self.first = block;
            // SAFETY: no value has been pushed, so the head does not read `origin` yet.
            pushed.origin.with_mut(|origin| unsafe { *origin = block });
        } else {
            // SAFETY: the last block is in the chain, so it lives. The head follows its link only after
            // the first push into the new block.
            unsafe { (*self.last).next.with_mut(|next| *next = block) };
        }
        self.last = block;
        if self.first_is_consumed() && self.has_excess() {
            // SAFETY: the block came from `Block::new` and is out of the chain; the head has passed it.
            unsafe { spare.put(self.take_first()) };
        }
        Ok(())
    }

    /// Whether the head has passed the first block's end, as far as this end knows.
    fn first_is_consumed(&self) -> bool {
        // How far the head is beyond the end. If it is before the end, this wraps to a huge number.
        let beyond = self.popped.wrapping_sub(self.first_end);
        beyond != 0 && beyond <= usize::MAX / 2
    }

    /// Takes the first block out of the chain. The head must have passed its end.
    fn take_first(&mut self) -> *mut Block<T, N> {
        let first = self.first;
        // SAFETY: the first block is in the chain, so it lives. It has a successor, since the head has
        // popped a value from there; this end has written the link itself.
        self.first = unsafe { (*first).next.with(|next| *next) };
        self.first_end = self.first_end.wrapping_add(Block::<T, N>::SLOTS);
        first
    }

    /// Drops blocks beyond the room that is kept, if there are many. Called when the queue was just
    /// found empty.
    #[inline]
    pub(super) fn shrink(&mut self, spare: &mut SpareBlocks<T, N>) {
        if self.has_excess() {
            self.drop_beyond(self.kept, spare);
        }
    }

    /// Drops all blocks from which all values have been popped.
    pub(super) fn shrink_to_nothing(&mut self, popped: &Popped, spare: &mut SpareBlocks<T, N>) {
        self.popped = popped.count.load(Ordering::Acquire);
        self.drop_beyond(0, spare);
    }

    #[cold]
    fn drop_beyond(&mut self, kept: usize, spare: &mut SpareBlocks<T, N>) {
        while self.first_is_consumed() && self.free_slots() > kept {
            // SAFETY: the block came from `Block::new` and is out of the chain; the head has passed it.
            unsafe { spare.put(self.take_first()) };
        }
    }

    /// Frees all blocks.
    ///
    /// # Safety
    ///
    /// The queue is empty, and neither end is used after this call.
    pub(super) unsafe fn free(&mut self) {
        while self.first != self.last {
            let block = self.take_first();
            // SAFETY: the block came from `Block::new` and is out of the chain. The caller promises that
            // neither end is used any more.
            unsafe { Block::free(block) };
        }
        if !self.last.is_null() {
            // SAFETY: this last block came from `Block::new`. The caller promises that neither end is
            // used any more.
            unsafe { Block::free(self.last) };
        }
    }

    /// Whether the chain has more than twice the room that it should keep. Twice, so that a queue of
    /// varying length does not free and allocate all the time.
    fn has_excess(&self) -> bool {
        self.free_slots() / 2 > self.kept
    }

    /// How many slots of the chain lie before the next value to be popped.
    fn free_slots(&self) -> usize {
        self.popped
            .wrapping_sub(self.first_end)
            .wrapping_add(Block::<T, N>::SLOTS)
    }
}

impl<T, const N: usize> Head<T, N> {
    pub(super) fn new() -> Head<T, N> {
        Head {
            block: ptr::null_mut(),
        }
    }

    /// Pops the next value, if one is queued.
    #[inline]
    pub(super) fn pop(&mut self, pushed: &Pushed<T, N>, popped: &Popped) -> Option<T> {
        let count = popped.count.load(Ordering::Relaxed);
        if count == popped.known.load(Ordering::Relaxed) {
            let known = pushed.count.load(Ordering::Acquire);
            if count == known {
                return None;
            }
            popped.known.store(known, Ordering::Relaxed);
        }
        // The value is the first one of its block.
        if count.is_multiple_of(Block::<T, N>::SLOTS) {
            self.block = match self.block.is_null() {
                // SAFETY: a value has been pushed, so the tail has written `origin`, and does not write
                // it again. An acquire load of `pushed`, in this pop or an earlier one, has seen that.
                true => pushed.origin.with(|origin| unsafe { *origin }),
                // SAFETY: the tail keeps this block until `popped` has passed its end, which it has not.
                // A value behind it has been pushed, so its link has been written. An acquire load of
                // `pushed`, in this pop or an earlier one, has seen that.
                false => unsafe { (*self.block).next.with(|next| *next) },
            };
        }
        // SAFETY: the tail keeps the block until `popped` has passed its end. The slot was written
        // before `pushed` rose above `count`, which an acquire load in this pop or an earlier one has
        // seen. The value is read only once, since `popped` rises below.
        let value = unsafe {
            let slot = Block::slot(self.block, count % Block::<T, N>::SLOTS);
            (*slot).with(|slot| (*slot).assume_init_read())
        };
        popped.count.store(count.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}
