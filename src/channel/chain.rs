//! The queue of a channel: a chain of blocks, of which senders use one end and receivers the other.
//!
//! ```text
//!        receivers have read     to be read         to be written
//!     ┌───────────────────────┬───────────────────┬ ─ ─ ─ ─ ─ ─ ─
//!     │ block ──▶ block ──▶ block ──▶ block ──▶ block
//!     └───────────────────────┴───────────────────┴ ─ ─ ─ ─ ─ ─ ─
//!       first              popped              pushed
//! ```
//!
//! Values are counted, by those that have been pushed and those that have been popped. The value
//! that comes after `n` others is in slot `n % SLOTS` of its block. One pushes at a time, who has the
//! `Back`; and one pops at a time, who has the `Front`; these two at once.
//!
//! *Nobody reads what is being written.* A slot is written before `pushed` says so (a release), and
//! read after `pushed` was seen to (an acquire). The same goes for the links from block to block,
//! which are followed at the first pop from the next block.
//!
//! *Nobody writes what is being read.* A block is used again, or freed, when `popped` was seen to be
//! beyond its end: not just there, since the front finds the next block by it. That store came after
//! the last use.
//!
//! *They seldom meet.* Each end goes by what it saw of the other's count, which can only have grown,
//! and looks again when that is too little. So a burst is read and written with no cache line going
//! to and fro but those of the values.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::{self, MaybeUninit, offset_of};
use std::ptr;

use crate::atomic::{AtomicUsize, Ordering, UnsafeCell};

/// The bytes of a block, about, unless a value needs more.
const BYTES: usize = 2_048;

/// What a block begins with. The slots come behind.
#[repr(C)]
struct Block<T, const N: usize> {
    next: UnsafeCell<*mut Block<T, N>>,
    slots: [Slot<T>; 0],
}

type Slot<T> = UnsafeCell<MaybeUninit<T>>;

impl<T, const N: usize> Block<T, N> {
    /// `N`, or fewer if they are large. A power of two, so that it does no harm if the counts wrap.
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

    fn new() -> *mut Block<T, N> {
        // SAFETY: a block is not empty, for it has a link.
        let block: *mut Block<T, N> = unsafe { alloc(Self::LAYOUT) }.cast();
        if block.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        // SAFETY: it is new, and as large as that.
        unsafe {
            (&raw mut (*block).next).write(UnsafeCell::new(ptr::null_mut()));
            for slot in 0..Self::SLOTS {
                let slot = Block::slot(block, slot).cast_mut();
                slot.write(UnsafeCell::new(MaybeUninit::uninit()));
            }
        }
        block
    }

    /// # Safety
    ///
    /// `block` came from `new`, and is used no more.
    unsafe fn free(block: *mut Block<T, N>) {
        // SAFETY: as above. Of what was written to the slots this drops nothing.
        unsafe {
            for slot in 0..Self::SLOTS {
                ptr::drop_in_place(Block::slot(block, slot).cast_mut());
            }
            ptr::drop_in_place(block);
            dealloc(block.cast(), Self::LAYOUT);
        }
    }

    /// # Safety
    ///
    /// `block` is one, and has so many slots.
    #[inline]
    unsafe fn slot(block: *mut Block<T, N>, slot: usize) -> *const Slot<T> {
        // SAFETY: the layout has the slots begin at this field.
        unsafe { (&raw const (*block).slots).cast::<Slot<T>>().add(slot) }
    }
}

/// Blocks outside of any queue: what one needs is allocated before its lock is taken, and what it
/// does not need is freed after that was given back, for the allocator may be the user's. Made before
/// the lock is taken, it is dropped after that.
pub(super) struct Stock<T, const N: usize> {
    /// One to push to, or null.
    fresh: *mut Block<T, N>,
    /// Those to free, linked.
    old: *mut Block<T, N>,
}

impl<T, const N: usize> Stock<T, N> {
    #[inline]
    pub(super) fn new() -> Stock<T, N> {
        Stock {
            fresh: ptr::null_mut(),
            old: ptr::null_mut(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_null() && self.old.is_null()
    }

    /// Makes sure that there is a block. Called under no lock.
    #[cold]
    pub(super) fn fill(&mut self) {
        if self.fresh.is_null() {
            self.fresh = Block::new();
        }
    }

    fn take(&mut self) -> Option<*mut Block<T, N>> {
        let fresh = mem::replace(&mut self.fresh, ptr::null_mut());
        (!fresh.is_null()).then_some(fresh)
    }

    /// # Safety
    ///
    /// `block` came from `Block::new`, and is used no more.
    unsafe fn put(&mut self, block: *mut Block<T, N>) {
        // SAFETY: it is ours.
        unsafe { (*block).next.with_mut(|next| *next = self.old) };
        self.old = block;
    }

    /// Frees what there is. Called under no lock.
    #[cold]
    pub(super) fn free(&mut self) {
        if let Some(fresh) = self.take() {
            // SAFETY: nobody else has it.
            unsafe { Block::free(fresh) };
        }
        while !self.old.is_null() {
            // SAFETY: as above; it was linked by `put`.
            unsafe {
                let block = self.old;
                self.old = (*block).next.with(|next| *next);
                Block::free(block);
            }
        }
    }
}

impl<T, const N: usize> Drop for Stock<T, N> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.free();
        }
    }
}

/// A block is needed, which is not in the stock.
pub(super) struct OutOfStock;

/// What the back says to the front.
pub(super) struct Pushed<T, const N: usize> {
    count: AtomicUsize,
    /// The block of the first value, once that is there.
    origin: UnsafeCell<*mut Block<T, N>>,
}

/// What the front says to the back.
pub(super) struct Popped {
    count: AtomicUsize,
    /// As many are known to have been pushed.
    known: AtomicUsize,
}

/// Where values are pushed.
pub(super) struct Back<T, const N: usize> {
    /// For so many values room is kept when they have gone.
    kept: usize,
    /// As many are known to have been popped.
    popped: usize,
    /// The oldest block, and the count of values up to its end.
    first: *mut Block<T, N>,
    first_end: usize,
    /// The block of the last value. There is none, and no first, before the first value.
    last: *mut Block<T, N>,
    /// There is a block for the value after so many.
    extended_at: Option<usize>,
}

/// Where values are popped.
pub(super) struct Front<T, const N: usize> {
    /// The block of the value popped last. There is none before the first.
    block: *mut Block<T, N>,
}

// SAFETY: what the pointers lead to is used by whoever has the end, as is said above. It is values,
// which cross threads.
unsafe impl<T: Send, const N: usize> Send for Back<T, N> {}
// SAFETY: as above.
unsafe impl<T: Send, const N: usize> Send for Front<T, N> {}
// SAFETY: as above. The origin is written once, before the count that has others read it.
unsafe impl<T: Send, const N: usize> Send for Pushed<T, N> {}
// SAFETY: as above.
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

    /// Whether there is nothing to pop. Asked when nobody has an end.
    pub(super) fn is_all<T, const N: usize>(&self, pushed: &Pushed<T, N>) -> bool {
        self.count.load(Ordering::Relaxed) == pushed.count.load(Ordering::Relaxed)
    }

    /// Whether there seems to be nothing to pop. Who has the back knows.
    #[inline]
    pub(super) fn seems_all<T, const N: usize>(&self, pushed: &Pushed<T, N>) -> bool {
        let popped = self.count.load(Ordering::Relaxed);
        popped == self.known.load(Ordering::Relaxed)
            && popped == pushed.count.load(Ordering::Relaxed)
    }
}

impl<T, const N: usize> Back<T, N> {
    pub(super) fn new(kept: usize) -> Back<T, N> {
        Back {
            kept,
            popped: 0,
            first: ptr::null_mut(),
            first_end: Block::<T, N>::SLOTS,
            last: ptr::null_mut(),
            extended_at: None,
        }
    }

    /// The values that are there, or more: the front may be taking them.
    pub(super) fn len(&mut self, pushed: &Pushed<T, N>, popped: &Popped) -> usize {
        self.popped = popped.count.load(Ordering::Acquire);
        pushed
            .count
            .load(Ordering::Relaxed)
            .wrapping_sub(self.popped)
    }

    /// Whether fewer than `capacity` values are there.
    #[inline]
    pub(super) fn has_room(
        &mut self,
        capacity: usize,
        pushed: &Pushed<T, N>,
        popped: &Popped,
    ) -> bool {
        let count = pushed.count.load(Ordering::Relaxed);
        count.wrapping_sub(self.popped) < capacity || self.len(pushed, popped) < capacity
    }

    /// Whether the next value needs another block. (Which may have been added, by a `prepare` that no
    /// `push` has followed.)
    #[inline]
    pub(super) fn is_block_full(&self, pushed: &Pushed<T, N>) -> bool {
        let count = pushed.count.load(Ordering::Relaxed);
        count.is_multiple_of(Block::<T, N>::SLOTS)
    }

    /// Makes sure that a value can be pushed.
    #[inline]
    pub(super) fn prepare(
        &mut self,
        pushed: &Pushed<T, N>,
        popped: &Popped,
        stock: &mut Stock<T, N>,
    ) -> Result<(), OutOfStock> {
        if !self.is_block_full(pushed) {
            return Ok(());
        }
        let count = pushed.count.load(Ordering::Relaxed);
        self.extend(count, pushed, popped, stock)
    }

    /// Pushes a value, where the last block has a slot for it: see `is_block_full` and `prepare`.
    #[inline]
    pub(super) fn push(&mut self, value: T, pushed: &Pushed<T, N>) {
        let count = pushed.count.load(Ordering::Relaxed);
        // SAFETY: the last block has this slot, which the front does not look at yet.
        unsafe {
            let slot = Block::slot(self.last, count % Block::<T, N>::SLOTS);
            (*slot).with_mut(|slot| (&mut *slot).write(value));
        }
        pushed.count.store(count.wrapping_add(1), Ordering::Release);
    }

    /// Adds a block. What is left of a burst goes as it came, block by block.
    #[cold]
    #[inline(never)]
    fn extend(
        &mut self,
        count: usize,
        pushed: &Pushed<T, N>,
        popped: &Popped,
        stock: &mut Stock<T, N>,
    ) -> Result<(), OutOfStock> {
        if self.extended_at == Some(count) {
            return Ok(());
        }
        if !self.first_is_over() {
            self.popped = popped.count.load(Ordering::Acquire);
        }
        let block = match self.first_is_over() {
            true => self.take_first(),
            false => stock.take().ok_or(OutOfStock)?,
        };
        self.extended_at = Some(count);
        if self.last.is_null() {
            self.first = block;
            // SAFETY: the front reads this once there is a value.
            pushed.origin.with_mut(|origin| unsafe { *origin = block });
        } else {
            // SAFETY: a block in the chain lives; the front reads this once there is one more value.
            unsafe { (*self.last).next.with_mut(|next| *next = block) };
        }
        self.last = block;
        if self.first_is_over() && self.has_far_more() {
            // SAFETY: the front has left it.
            unsafe { stock.put(self.take_first()) };
        }
        Ok(())
    }

    /// Whether the front has left the first block.
    fn first_is_over(&self) -> bool {
        // How far it is beyond the end, or, as a very large number, before it.
        let beyond = self.popped.wrapping_sub(self.first_end);
        beyond != 0 && beyond <= usize::MAX / 2
    }

    /// Takes the first block out, which is over.
    fn take_first(&mut self) -> *mut Block<T, N> {
        let first = self.first;
        // SAFETY: a block in the chain lives; there is a next one, since the front is there.
        self.first = unsafe { (*first).next.with(|next| *next) };
        self.first_end = self.first_end.wrapping_add(Block::<T, N>::SLOTS);
        first
    }

    /// Frees what is beyond the room that is kept, if that is much. The queue was just found empty.
    #[inline]
    pub(super) fn shrink(&mut self, stock: &mut Stock<T, N>) {
        if self.has_far_more() {
            self.free_beyond(self.kept, stock);
        }
    }

    /// Frees all blocks that are over.
    pub(super) fn shrink_to_nothing(&mut self, popped: &Popped, stock: &mut Stock<T, N>) {
        self.popped = popped.count.load(Ordering::Acquire);
        self.free_beyond(0, stock);
    }

    #[cold]
    fn free_beyond(&mut self, kept: usize, stock: &mut Stock<T, N>) {
        while self.first_is_over() && self.room() > kept {
            // SAFETY: the front has left it.
            unsafe { stock.put(self.take_first()) };
        }
    }

    /// Frees all blocks.
    ///
    /// # Safety
    ///
    /// Neither end is used any more, and nothing is left to pop.
    pub(super) unsafe fn free(&mut self) {
        while self.first != self.last {
            let block = self.take_first();
            // SAFETY: it is out of the chain, which is not used any more.
            unsafe { Block::free(block) };
        }
        if !self.last.is_null() {
            // SAFETY: as above.
            unsafe { Block::free(self.last) };
        }
    }

    /// Whether there is more than twice the room that is kept.
    fn has_far_more(&self) -> bool {
        self.room() / 2 > self.kept
    }

    /// The slots before the next value to be popped.
    fn room(&self) -> usize {
        self.popped
            .wrapping_sub(self.first_end)
            .wrapping_add(Block::<T, N>::SLOTS)
    }
}

impl<T, const N: usize> Front<T, N> {
    pub(super) fn new() -> Front<T, N> {
        Front {
            block: ptr::null_mut(),
        }
    }

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
        if count.is_multiple_of(Block::<T, N>::SLOTS) {
            self.block = match self.block.is_null() {
                // SAFETY: it was written before the first value.
                true => pushed.origin.with(|origin| unsafe { *origin }),
                // SAFETY: a block in the chain lives, this one until we have left it; the link was
                // written before the value behind it.
                false => unsafe { (*self.block).next.with(|next| *next) },
            };
        }
        // SAFETY: the block lives, as above; the slot was written, and is read once.
        let value = unsafe {
            let slot = Block::slot(self.block, count % Block::<T, N>::SLOTS);
            (*slot).with(|slot| (*slot).assume_init_read())
        };
        popped.count.store(count.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}
