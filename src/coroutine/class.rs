//! Classes: all stacks of one size, and the accounting of how many there must be.
//!
//! Capacity is *reserved* when a coroutine is spawned, because an error can be returned there. The
//! *stack* is chosen later, when the coroutine first runs, so that a burst of short coroutines
//! shares a few hot stacks.
//!
//! # Why a reservation is enough
//!
//! A class keeps
//!
//! ```text
//! capacity >= reserved + pools * hot_limit
//! ```
//!
//! which holds whenever [`Class::reserve`] returns. A stack is either in use by a coroutine, which
//! holds one of the `reserved`; or idle in a pool, and each pool keeps at most `hot_limit` of them;
//! or free. So a coroutine with a reservation finds a free stack even if every pool of another worker
//! holds back as many as it may. A pool that is created after the reservation is not counted in it:
//! for that case, [`Class::take`] adds a slab itself.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slab::{self, Slab};
use super::stack::{SMALLEST, Stack, StackSize};
use crate::sys::memory::{self, GuardKind};
use crate::sys::switches::{excused, own_lock};

/// The slots of a class's first slab. Each further slab doubles the capacity of the class.
const FIRST_SLAB_SLOTS: usize = 32;

/// The topmost bytes of an idle hot stack, which stay resident when the stack is trimmed. Most
/// coroutines need no more.
const HOT_TOP: usize = 16 << 10;

/// The most idle stacks of a class that a pool keeps.
const HOT_STACKS: usize = 64;

/// The most address space, in bytes, that a pool's idle stacks of a class span. Stacks that are
/// larger than this are the exception: a pool keeps one of them.
const HOT_BYTES: usize = 64 << 20;

/// The classes, by the index of their size.
#[rustfmt::skip]
static CLASSES: [Class; StackSize::COUNT] = [
    Class::new(0), Class::new(1), Class::new(2), Class::new(3), Class::new(4), Class::new(5),
    Class::new(6), Class::new(7), Class::new(8), Class::new(9), Class::new(10), Class::new(11),
    Class::new(12), Class::new(13), Class::new(14), Class::new(15), Class::new(16),
];

/// The number of pools that may hold stacks back: the [`CountedPool`]s that exist.
static POOLS: AtomicUsize = AtomicUsize::new(0);

/// All stacks of one size, of all workers and all runtimes of the process.
#[derive(Debug)]
pub(crate) struct Class {
    size: StackSize,
    /// The [`Reservation`]s that exist: one for each coroutine, whether it has started or not, and
    /// the spare ones of pools.
    reserved: AtomicUsize,
    /// The stacks that exist or can be cut. Changed under the lock of `stacks`; it only grows.
    capacity: AtomicUsize,
    /// The greatest depth in bytes to which any stack was used, as far as it was noted. It is noted
    /// before the memory of a stack is given back. It only grows.
    deepest: AtomicUsize,
    stacks: Mutex<FreeStacks>,
}

/// The stacks of a class that no coroutine and no pool holds.
#[derive(Debug)]
struct FreeStacks {
    /// Stacks that were used before. Their memory has been given back.
    cold: Vec<Stack>,
    /// Slabs with slots that were never used.
    slabs: Vec<Slab>,
}

impl Class {
    const fn new(index: usize) -> Class {
        Class {
            size: StackSize::at(index),
            reserved: AtomicUsize::new(0),
            capacity: AtomicUsize::new(0),
            deepest: AtomicUsize::new(0),
            stacks: Mutex::new(FreeStacks {
                cold: Vec::new(),
                slabs: Vec::new(),
            }),
        }
    }

    /// The smallest class whose stacks have at least `size` usable bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if `size` is over 1 GiB.
    pub(crate) fn for_size(size: usize) -> io::Result<&'static Class> {
        match StackSize::of_at_least(size) {
            Some(size) => Ok(&CLASSES[size.index()]),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "stack size over 1 GiB",
            )),
        }
    }

    /// The class with stacks of size number `index`.
    pub(super) fn at(index: usize) -> &'static Class {
        &CLASSES[index]
    }

    /// The usable bytes of a stack of this class.
    pub(crate) fn usable(&self) -> usize {
        self.size.usable()
    }

    /// The index of this class: that of its size.
    #[inline]
    pub(super) fn index(&self) -> usize {
        self.size.index()
    }

    /// The most idle stacks of this class that a pool keeps hot, at least one.
    #[inline]
    pub(super) fn hot_limit(&self) -> usize {
        // This is HOT_BYTES / usable, by a shift.
        ((HOT_BYTES / SMALLEST) >> self.index()).clamp(1, HOT_STACKS)
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Makes sure that one more coroutine will find a stack when it first runs.
    ///
    /// # Errors
    ///
    /// The kernel's, if no more stacks can be made: out of address space or of mappings.
    pub(crate) fn reserve(&'static self) -> io::Result<Reservation> {
        // Of several concurrent calls, the one whose addition comes last sees all of them, and
        // grows the class if it must. A capacity that is read too early is too small, and at worst
        // leads to a needless call of `grow`, which looks again under the lock.
        let reserved = self.reserved.fetch_add(1, Ordering::Relaxed) + 1;
        let reservation = Reservation(self);
        if reserved + self.most_idle_in_pools() > self.capacity.load(Ordering::Relaxed) {
            excused(|| self.grow())?;
        }
        Ok(reservation)
    }

    /// The most stacks that workers' pools hold back from a coroutine of another worker.
    fn most_idle_in_pools(&self) -> usize {
        POOLS.load(Ordering::Relaxed) * self.hot_limit()
    }

    /// Adds slabs until the capacity suffices for what is reserved.
    #[cold]
    fn grow(&self) -> io::Result<()> {
        let mut stacks = own_lock(&self.stacks);
        loop {
            let capacity = self.capacity.load(Ordering::Relaxed);
            let needed = self.reserved.load(Ordering::Relaxed) + self.most_idle_in_pools();
            if needed <= capacity {
                return Ok(());
            }
            self.add_slab(&mut stacks, needed - capacity)?;
        }
    }

    /// Adds a slab that doubles the capacity; a smaller one of at least `least` slots if there is
    /// no address space for that.
    fn add_slab(&self, stacks: &mut FreeStacks, least: usize) -> io::Result<()> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let wanted = capacity.max(FIRST_SLAB_SLOTS);
        let slab = Slab::map(self.size, wanted, least, GuardKind::preferred())?;
        self.capacity
            .store(capacity + slab.slots(), Ordering::Relaxed);
        slab.register();
        stacks.slabs.push(slab);
        Ok(())
    }

    /// Takes a stack for a coroutine that holds a reservation.
    ///
    /// # Errors
    ///
    /// The kernel's, if a guard cannot be made, or if pools hold all stacks and no slab can be
    /// added.
    pub(super) fn take(&self) -> io::Result<Stack> {
        let mut stacks = own_lock(&self.stacks);
        if let Some(stack) = stacks.cold.pop() {
            return Ok(stack);
        }
        if stacks.slabs.is_empty() {
            // Pools that were created after the reservation hold the other stacks.
            self.add_slab(&mut stacks, 1)?;
        }
        let slab = stacks.slabs.last_mut().expect("a slab was just added");
        let stack = slab.cut()?;
        if slab.is_used_up() {
            stacks.slabs.pop();
        }
        Ok(stack)
    }

    /// Takes back stacks that have gone cold, and gives their memory back to the system.
    pub(super) fn put(&self, cold: Vec<Stack>) {
        if cold.is_empty() {
            return;
        }
        self.discard_below(&cold, 0);
        let mut stacks = own_lock(&self.stacks);
        stacks.cold.extend(cold);
    }

    /// Gives back the memory of idle stacks of this class, except for the topmost 16 KiB of each.
    pub(super) fn trim(&self, idle: &[Stack]) {
        self.discard_below(idle, HOT_TOP.next_multiple_of(memory::page_size()));
    }

    /// Gives back the memory of idle stacks of this class, except for the topmost `kept` bytes of
    /// each. Notes first how deep they were used.
    fn discard_below(&self, idle: &[Stack], kept: usize) {
        debug_assert!(idle.iter().all(|stack| stack.size() == self.size));
        idle.chunks(memory::PAGES_AT_ONCE)
            .for_each(|stacks| self.note_depths(stacks));
        let len = self.size.usable().saturating_sub(kept);
        if len == 0 {
            return;
        }
        let ranges = idle.iter().map(|stack| (stack.low(), len));
        // SAFETY: each range is the low part of a slot's usable bytes, in a mapping of
        // `memory::reserve`. The caller owns the stacks apart from any coroutine, so nothing on
        // them is in use.
        unsafe { memory::discard_all(ranges) };
    }

    /// Notes how deep some idle stacks were used, if deeper than any before them.
    ///
    /// A burst of coroutines gives back thousands of stacks, so one system call asks about up to
    /// [`memory::PAGES_AT_ONCE`] of them. It asks about one page of each: the first page beyond
    /// the greatest depth that is known. A stack that was used deeper has touched that page.
    fn note_depths(&self, idle: &[Stack]) {
        let known = self.deepest.load(Ordering::Relaxed);
        let mut pages = [0; memory::PAGES_AT_ONCE];
        for (page, stack) in pages.iter_mut().zip(idle) {
            // If stacks were used to their ends, this page is in the guard, which has no memory.
            *page = stack.end() - known - memory::page_size();
        }
        let deeper = memory::perhaps_resident(&pages[..idle.len()]);
        for (index, stack) in idle.iter().enumerate() {
            if deeper >> index & 1 == 1 {
                self.note_depth(stack);
            }
        }
    }

    /// Looks for the lowest resident page of an idle stack, beyond the greatest depth that is
    /// known, and notes it.
    fn note_depth(&self, stack: &Stack) {
        let unknown = self.size.usable() - self.deepest.load(Ordering::Relaxed);
        if let Some(page) = memory::resident_pages(stack.low(), unknown).next() {
            // Before the memory is given back: `usage` looks at the memory first, at this last.
            self.deepest.fetch_max(stack.end() - page, Ordering::SeqCst);
        }
    }

    /// The usage of this class's stacks, found by asking the kernel about every page of them.
    fn usage(&self) -> Usage {
        let used = {
            // Stacks are cut and slabs are added under this lock only.
            let stacks = own_lock(&self.stacks);
            slab::used_slots(self.size, &stacks.slabs)
        };
        let (stride, guard_len, usable) = (
            self.size.stride(),
            self.size.guard_len(),
            self.size.usable(),
        );
        let (mut resident, mut deepest) = (0, 0);
        for (base, slots) in &used {
            for slot in (0..*slots).map(|index| base + index * stride) {
                let mut pages = memory::resident_pages(slot + guard_len, usable).peekable();
                if let Some(lowest) = pages.peek() {
                    deepest = deepest.max(slot + stride - lowest);
                }
                resident += pages.count() * memory::page_size();
            }
        }
        Usage {
            size: usable,
            stacks: used.iter().map(|(_, slots)| slots).sum(),
            resident,
            // Loaded after the memory was looked at. A depth that is not to be seen in the memory
            // any more was noted before the memory was given back.
            deepest: deepest.max(self.deepest.load(Ordering::SeqCst)),
        }
    }
}

/// What is reserved of a class.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// The usable bytes of each stack.
    pub(crate) size: usize,
    /// The number of reservations.
    pub(crate) reserved: usize,
    /// The bytes of address space of all slots, with guards.
    pub(crate) mapped: usize,
}

/// What is reserved of each class.
pub(crate) fn reserved() -> impl Iterator<Item = Reserved> {
    CLASSES.iter().map(|class| Reserved {
        size: class.size.usable(),
        reserved: class.reserved.load(Ordering::Relaxed),
        mapped: class.capacity.load(Ordering::Relaxed) * class.size.stride(),
    })
}

/// What can be seen of the stacks of one class.
#[derive(Debug)]
pub(crate) struct Usage {
    /// The usable bytes of each stack.
    pub(crate) size: usize,
    /// The number of stacks that have ever been used.
    pub(crate) stacks: usize,
    /// The bytes of memory that the stacks occupy together.
    pub(crate) resident: usize,
    /// The most bytes that were ever in use on one stack.
    pub(crate) deepest: usize,
}

/// The usage of all classes that have been used, smallest first.
pub(crate) fn usage() -> impl Iterator<Item = Usage> {
    CLASSES
        .iter()
        .map(Class::usage)
        .filter(|usage| usage.stacks > 0)
}

/// A reservation of one stack of a class. Dropping it gives the capacity back.
#[derive(Debug)]
pub(crate) struct Reservation(&'static Class);

impl Reservation {
    /// Turns the reservation into a pointer to its class, which is a static.
    pub(crate) fn into_raw(self) -> *mut Class {
        ptr::from_ref(ManuallyDrop::new(self).0).cast_mut()
    }

    /// Turns a pointer from `into_raw` back into the reservation.
    ///
    /// # Safety
    ///
    /// `class` came from [`into_raw`](Reservation::into_raw), and is turned back once.
    pub(crate) unsafe fn from_raw(class: *mut Class) -> Reservation {
        // SAFETY: the pointer came from `into_raw`, so it is to one of the static classes.
        Reservation(unsafe { &*class })
    }

    /// The class of the reserved stack.
    #[inline]
    pub(super) fn class(&self) -> &'static Class {
        self.0
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.reserved.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reservations of finished coroutines, kept for coroutines to come.
///
/// With a spare one, a spawn need not touch the counter of the class, which all workers share.
#[derive(Debug)]
pub(super) struct SpareReservations {
    class: &'static Class,
    /// The number of reservations that are kept.
    count: usize,
}

impl SpareReservations {
    /// None yet.
    pub(super) fn new(class: &'static Class) -> SpareReservations {
        SpareReservations { class, count: 0 }
    }

    /// The number of reservations that are kept.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Takes a reservation out.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Reservation> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        Some(Reservation(self.class))
    }

    /// Keeps a reservation, which must be of the same class.
    #[inline]
    pub(super) fn put(&mut self, reservation: Reservation) {
        debug_assert!(ptr::eq(reservation.class(), self.class));
        // From now on `count` stands for it.
        mem::forget(reservation);
        self.count += 1;
    }

    /// Gives reservations back until at most `most` are left.
    pub(super) fn truncate(&mut self, most: usize) {
        while self.count > most {
            drop(self.take());
        }
    }
}

impl Drop for SpareReservations {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

/// Counts a pool, until it is dropped, among the pools that may hold stacks back: each class then
/// keeps capacity for its idle stacks.
#[derive(Debug)]
pub(super) struct CountedPool(());

impl CountedPool {
    /// Counts one more pool.
    pub(super) fn new() -> CountedPool {
        POOLS.fetch_add(1, Ordering::Relaxed);
        CountedPool(())
    }
}

impl Drop for CountedPool {
    fn drop(&mut self) {
        POOLS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corosensei::stack::Stack as _;

    #[test]
    fn a_stack_over_a_gibibyte_is_invalid_input() {
        let class = Class::for_size(1 << 30).unwrap();
        assert_eq!(class.index(), StackSize::COUNT - 1);
        for too_large in [(1 << 30) + 1, usize::MAX] {
            let error = Class::for_size(too_large).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn stacks_do_not_overlap_and_their_whole_usable_range_can_be_written() {
        let class = Class::for_size(32 << 10).unwrap();
        let _reservations: Vec<_> = (0..100).map(|_| class.reserve().unwrap()).collect();
        let stacks: Vec<_> = (0..100).map(|_| class.take().unwrap()).collect();
        for (index, stack) in stacks.iter().enumerate() {
            let (low, top) = (stack.low(), stack.base().get());
            // SAFETY: this test owns the stack, no coroutine is on it, and it is mapped from `low`
            // to its top.
            unsafe { ptr::write_bytes(low as *mut u8, index as u8, top - low) };
        }
        for (index, stack) in stacks.iter().enumerate() {
            for at in [stack.low(), stack.base().get() - 1] {
                // SAFETY: this test owns the stack, and has just written to this byte.
                assert_eq!(unsafe { *(at as *const u8) }, index as u8);
            }
        }
        class.put(stacks);
    }

    #[test]
    fn capacity_covers_what_pools_may_hold_back() {
        let class = Class::for_size(128 << 20).unwrap();
        let pools = [CountedPool::new(), CountedPool::new()];
        let reservation = class.reserve().unwrap();
        let capacity = class.capacity.load(Ordering::Relaxed);
        assert!(capacity >= class.reserved() + pools.len() * class.hot_limit());
        drop(reservation);
    }
}
