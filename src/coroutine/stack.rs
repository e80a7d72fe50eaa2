//! Stacks, cut from slabs of equal slots.
//!
//! ```text
//!  slab   | slot 0            | slot 1            | slot 2 ...
//!         | guard |   usable  | guard |   usable  |
//!                 ^limit     ^top - colour
//! ```
//!
//! A slab is one mapping, reserved without memory behind it. The low end of each slot is a guard:
//! touching it faults. On Linux 6.13 and later guards split no mapping, so a million stacks are a
//! few dozen mappings; on older kernels each costs two of the process's 65,530.
//!
//! Capacity is *reserved* when a coroutine is spawned, where an error can be returned; the slot is
//! chosen when the coroutine first runs, so that a burst of short coroutines shares a hot stack.

use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::pool;
use crate::sys::memory::{self, GuardKind};
use crate::sys::switches::{excused, own_lock};

/// Bytes below each stack that fault. gcc probes no big frames by default, so one page could be
/// jumped over by C code.
const GUARD: usize = 64 << 10;

/// The smallest class's usable bytes, the least that std gives a thread.
const SMALLEST: usize = 16 << 10;

/// Tops are staggered by this many cache lines, lest all of them fall into the same sets of the
/// first-level cache.
const COLOURS: usize = 16;

/// The most address space that one slab takes.
const LARGEST_SLAB: usize = 16 << 30;

/// The slots of a class's first slab; each further slab doubles the class.
const FIRST_SLAB_SLOTS: usize = 32;

/// The most guards that are made ahead of their stacks' use.
const GUARDS_AT_ONCE: usize = 64;

/// The top of an idle hot stack, which stays resident: most coroutines need no more.
const HOT_TOP: usize = 16 << 10;

/// Stacks that are forgone where guards by protection run out. Their mappings are left to the rest
/// of the process, whose allocator would abort without any.
const FORGONE: usize = 64;

/// How many classes there are.
pub(super) const CLASSES: usize = 17;

/// The classes: 16 KiB, doubled up to 1 GiB.
#[rustfmt::skip]
static TABLE: [Class; CLASSES] = [
    Class::new(0), Class::new(1), Class::new(2), Class::new(3), Class::new(4), Class::new(5),
    Class::new(6), Class::new(7), Class::new(8), Class::new(9), Class::new(10), Class::new(11),
    Class::new(12), Class::new(13), Class::new(14), Class::new(15), Class::new(16),
];

/// All stacks of one size.
#[derive(Debug)]
pub(crate) struct Class {
    index: usize,
    /// Coroutines that exist, started or not: each may need a slot.
    reserved: AtomicUsize,
    /// Slots that exist.
    capacity: AtomicUsize,
    /// The most bytes in use that were seen on a stack whose memory was then given back.
    deepest: AtomicUsize,
    slots: Mutex<Slots>,
}

/// The slots of a class that no coroutine and no pool holds.
#[derive(Debug)]
struct Slots {
    /// Used before, and cold: their memory has been given back.
    free: Vec<Stack>,
    /// Never used: slabs of which the slots from `next` on are untouched.
    untouched: Vec<Untouched>,
}

/// The part of a slab that has never been used.
#[derive(Debug)]
struct Untouched {
    base: usize,
    next: usize,
    slots: usize,
    /// How the guards are made.
    guards: GuardKind,
    /// The guards of so many slots stand: by [`GuardKind::Protection`], all.
    guarded: usize,
}

impl Class {
    const fn new(index: usize) -> Class {
        Class {
            index,
            reserved: AtomicUsize::new(0),
            capacity: AtomicUsize::new(0),
            deepest: AtomicUsize::new(0),
            slots: Mutex::new(Slots {
                free: Vec::new(),
                untouched: Vec::new(),
            }),
        }
    }

    /// The smallest class whose stacks have `size` usable bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if `size` is beyond 1 GiB.
    pub(crate) fn for_size(size: usize) -> io::Result<&'static Class> {
        let index = size.div_ceil(SMALLEST).max(1).checked_next_power_of_two();
        index
            .and_then(|multiple| TABLE.get(multiple.trailing_zeros() as usize))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "stack size over 1 GiB"))
    }

    /// All classes, by index.
    pub(super) fn all() -> impl Iterator<Item = &'static Class> {
        TABLE.iter()
    }

    /// The position of this class among all classes.
    #[inline]
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The usable bytes of a stack.
    pub(crate) fn usable(&self) -> usize {
        SMALLEST << self.index
    }

    /// How many idle stacks of this class a worker keeps hot.
    #[inline]
    pub(crate) fn hot_limit(&self) -> usize {
        // Divided by the usable bytes.
        ((pool::HOT_BYTES / SMALLEST) >> self.index).clamp(1, pool::HOT_STACKS)
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// The distance between two slots: an odd number of pages, because strides of a power of two
    /// put all stacks into the same sets of the second-level cache.
    fn stride(&self) -> usize {
        self.guard_len() + self.usable()
    }

    fn guard_len(&self) -> usize {
        GUARD.next_multiple_of(memory::page_size()) + memory::page_size()
    }

    /// Makes sure that one more coroutine will find a stack when it first runs.
    ///
    /// # Errors
    ///
    /// The kernel's, when no more slots can be made: out of address space or of mappings.
    pub(crate) fn reserve(&'static self) -> io::Result<Reservation> {
        let reserved = self.reserved.fetch_add(1, Ordering::Relaxed) + 1;
        let reservation = Reservation(self);
        if reserved + self.idle_in_pools() > self.capacity.load(Ordering::Relaxed) {
            excused(|| self.grow())?;
        }
        Ok(reservation)
    }

    /// The right of a coroutine that has finished, which was kept.
    #[inline]
    pub(super) fn reserved_before(&'static self) -> Reservation {
        Reservation(self)
    }

    /// Slots that workers' pools may hold back from a coroutine of another worker.
    fn idle_in_pools(&self) -> usize {
        pool::count() * self.hot_limit()
    }

    #[cold]
    fn grow(&'static self) -> io::Result<()> {
        let mut slots = own_lock(&self.slots);
        loop {
            let capacity = self.capacity.load(Ordering::Relaxed);
            let needed = self.reserved.load(Ordering::Relaxed) + self.idle_in_pools();
            if needed <= capacity {
                return Ok(());
            }
            self.add_slab(&mut slots, needed - capacity)?;
        }
    }

    fn add_slab(&'static self, slots: &mut Slots, least: usize) -> io::Result<()> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let wanted = capacity.max(FIRST_SLAB_SLOTS);
        let slab = self.new_slab(wanted, least, GuardKind::preferred())?;
        self.capacity
            .store(capacity + slab.slots, Ordering::Relaxed);
        Registered::add(slab.base, slab.slots, self);
        slots.untouched.push(slab);
        Ok(())
    }

    /// Maps a slab of `wanted` slots, or of fewer where so many cannot be had. Its guards are by
    /// protection where those that are asked for do not work.
    fn new_slab(&self, wanted: usize, least: usize, guards: GuardKind) -> io::Result<Untouched> {
        let most = (LARGEST_SLAB / self.stride()).max(1);
        let least = least.min(most);
        let mut count = wanted.min(most).max(least);
        let base = loop {
            match memory::reserve(count * self.stride()) {
                Ok(base) => break base,
                Err(_) if count > least => count = (count / 2).max(least),
                Err(error) => return Err(error),
            }
        };
        let mut slab = Untouched {
            base,
            next: 0,
            slots: count,
            guards,
            guarded: 0,
        };
        for index in 0..count {
            match self.guard(&slab, index) {
                // One tells whether the advice works here; the others are made when they are needed.
                Ok(GuardKind::Advice) => {
                    slab.guarded = 1;
                    break;
                }
                // These can run out (each takes mappings), so it must show here, not at a first run.
                Ok(GuardKind::Protection) => {
                    slab.guards = GuardKind::Protection;
                    slab.guarded = index + 1;
                }
                Err(error) => {
                    slab.slots = index.saturating_sub(FORGONE);
                    let (kept, mapped) = (slab.slots * self.stride(), count * self.stride());
                    // SAFETY: the slots from `slots` on have not been used, and now never will be.
                    unsafe { memory::release(base + kept, mapped - kept) };
                    if slab.slots == 0 {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok(slab)
    }

    fn guard(&self, slab: &Untouched, index: usize) -> io::Result<GuardKind> {
        let start = slab.base + index * self.stride();
        // SAFETY: slot `index` lies in the slab's mapping and has never been used; its low end
        // is outside what any stack uses.
        unsafe { memory::guard(start, self.guard_len(), slab.guards) }
    }

    /// Takes a stack for a coroutine that holds a reservation.
    ///
    /// # Errors
    ///
    /// The kernel's, if a guard cannot be made after all.
    pub(super) fn take(&'static self) -> io::Result<Stack> {
        let mut slots = own_lock(&self.slots);
        if let Some(stack) = slots.free.pop() {
            return Ok(stack);
        }
        if slots.untouched.is_empty() {
            // Pools that were added after the reservation hold the rest.
            self.add_slab(&mut slots, 1)?;
        }
        let slab = slots.untouched.last_mut().expect("a slab was just added");
        let stack = self.cut(slab)?;
        if slab.next == slab.slots {
            slots.untouched.pop();
        }
        Ok(stack)
    }

    /// Cuts the next stack from a slab that has one left.
    fn cut(&'static self, slab: &mut Untouched) -> io::Result<Stack> {
        let index = slab.next;
        if index == slab.guarded {
            self.guard_more(slab)?;
        }
        slab.next += 1;
        let slot = slab.base + index * self.stride();
        let colour = index % COLOURS * memory::CACHE_LINE;
        let address = |at| NonZeroUsize::new(at).expect("no mapping lies at address zero");
        Ok(Stack {
            class: self,
            limit: address(slot),
            top: address(slot + self.stride() - colour),
        })
    }

    /// Makes the next guards of a slab: more of them, the more it has, up to a few dozen.
    fn guard_more(&self, slab: &mut Untouched) -> io::Result<()> {
        let next = slab.guarded;
        let more = next.clamp(1, GUARDS_AT_ONCE).min(slab.slots - next);
        let starts = (next..next + more).map(|index| slab.base + index * self.stride());
        let guards = starts.map(|start| (start, self.guard_len()));
        // SAFETY: these slots lie in the slab's mapping and have never been used.
        if more > 1 && unsafe { memory::guard_all(guards) } {
            slab.guarded += more;
        } else {
            // Memory that has been locked since refuses the advice, and gets protection.
            self.guard(slab, next)?;
            slab.guarded += 1;
        }
        Ok(())
    }

    /// Takes stacks back that have gone cold.
    pub(super) fn put(&self, cold: Vec<Stack>) {
        if cold.is_empty() {
            return;
        }
        Stack::discard_all(&cold);
        let mut slots = own_lock(&self.slots);
        slots.free.extend(cold);
    }

    /// The first slots of slabs, by base and number, that have been used.
    fn used(&self) -> Vec<(usize, usize)> {
        // While it is held, no slab is added.
        let slots = own_lock(&self.slots);
        registered()
            .filter(|slab| ptr::eq(slab.class, self))
            .map(|slab| {
                let mut untouched = slots.untouched.iter();
                let part = untouched.find(|part| part.base == slab.base);
                (slab.base, part.map_or(slab.slots, |part| part.next))
            })
            .collect()
    }

    fn usage(&self) -> Usage {
        let used = self.used();
        let (mut resident, mut deepest) = (0, 0);
        for (base, slots) in &used {
            for limit in (0..*slots).map(|index| base + index * self.stride()) {
                let pages = memory::resident_pages(limit + self.guard_len(), self.usable());
                let mut pages = pages.peekable();
                if let Some(lowest) = pages.peek() {
                    deepest = deepest.max(limit + self.stride() - lowest);
                }
                resident += pages.count() * memory::page_size();
            }
        }
        Usage {
            size: self.usable(),
            stacks: used.iter().map(|(_, slots)| slots).sum(),
            resident,
            // Loaded last: what is not resident any more was noted before.
            deepest: deepest.max(self.deepest.load(Ordering::SeqCst)),
        }
    }
}

/// What is seen of the stacks of a class.
#[derive(Debug)]
pub(crate) struct Usage {
    /// The usable bytes of each.
    pub(crate) size: usize,
    /// How many have ever been used.
    pub(crate) stacks: usize,
    /// Bytes of memory that they occupy.
    pub(crate) resident: usize,
    /// The most bytes that were ever in use of one.
    pub(crate) deepest: usize,
}

/// The usage of all classes that have been used, smallest first.
pub(crate) fn usage() -> impl Iterator<Item = Usage> {
    Class::all()
        .map(Class::usage)
        .filter(|usage| usage.stacks > 0)
}

/// A slab, as the handler of faults finds it: in a list that only grows.
struct Registered {
    base: usize,
    slots: usize,
    class: &'static Class,
    next: *const Registered,
}

static SLABS: AtomicPtr<Registered> = AtomicPtr::new(ptr::null_mut());

impl Registered {
    fn add(base: usize, slots: usize, class: &'static Class) {
        let slab = Box::leak(Box::new(Registered {
            base,
            slots,
            class,
            next: ptr::null(),
        }));
        let push = |head: *mut Registered| {
            slab.next = head;
            Some(&raw mut *slab)
        };
        // The closure always has a value, so this does not fail.
        let _ = SLABS.fetch_update(Ordering::AcqRel, Ordering::Acquire, push);
    }
}

/// The usable bytes of the stack above the guard that `address` is in, if it is in one.
/// Async-signal-safe.
pub(super) fn guarded_size(address: usize) -> Option<usize> {
    let offset = |slab: &Registered| address.wrapping_sub(slab.base);
    let slab = registered().find(|slab| offset(slab) < slab.slots * slab.class.stride())?;
    let guarded = offset(slab) % slab.class.stride() < slab.class.guard_len();
    guarded.then(|| slab.class.usable())
}

/// All slabs, latest first. Async-signal-safe.
fn registered() -> impl Iterator<Item = &'static Registered> {
    // SAFETY: slabs are leaked, and unchanged once they are in the list.
    let at = |slab: *const Registered| unsafe { slab.as_ref() };
    std::iter::successors(at(SLABS.load(Ordering::Acquire)), move |slab| at(slab.next))
}

/// The right to a stack of a class.
#[derive(Debug)]
pub(crate) struct Reservation(&'static Class);

impl Reservation {
    /// As a pointer to the class, which is a static.
    pub(crate) fn into_raw(self) -> *mut Class {
        ptr::from_ref(ManuallyDrop::new(self).0).cast_mut()
    }

    /// # Safety
    ///
    /// `class` came from `into_raw`, which is undone once.
    pub(crate) unsafe fn from_raw(class: *mut Class) -> Reservation {
        // SAFETY: the caller's promise.
        Reservation(unsafe { &*class })
    }

    /// What it is a right to a stack of.
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

/// A slot of a slab, owned by one coroutine or one pool.
#[derive(Debug)]
pub(crate) struct Stack {
    class: &'static Class,
    /// The lowest address, that of the guard.
    limit: NonZeroUsize,
    /// The highest address, less the colour.
    top: NonZeroUsize,
}

impl Stack {
    /// Gives the memory of unused stacks back.
    fn discard_all(stacks: &[Stack]) {
        Stack::discard_below(stacks, 0);
    }

    /// Gives the memory of the deep parts of unused stacks back.
    pub(super) fn trim_all(stacks: &[Stack]) {
        Stack::discard_below(stacks, HOT_TOP.next_multiple_of(memory::page_size()));
    }

    /// Gives back the memory of unused stacks, but for the topmost `kept` bytes.
    fn discard_below(stacks: &[Stack], kept: usize) {
        stacks
            .chunks(memory::PAGES_AT_ONCE)
            .for_each(Stack::note_depths);
        let ranges = stacks.iter().filter_map(|stack| {
            let start = stack.limit.get() + stack.class.guard_len();
            let len = stack.class.usable().saturating_sub(kept);
            (len > 0).then_some((start, len))
        });
        // SAFETY: the slots are in mappings of `reserve`, and nothing runs on an owned stack that
        // is not part of a coroutine.
        unsafe { memory::discard_all(ranges) };
    }

    /// Has the class remember how deep stacks were used, if deeper than any before.
    ///
    /// A burst of coroutines gives back thousands of stacks, so there is one question for many: of
    /// the page below which nothing is known. A stack that has been used farther has touched that.
    fn note_depths(stacks: &[Stack]) {
        let mut next = [0; memory::PAGES_AT_ONCE];
        for (next, stack) in next.iter_mut().zip(stacks) {
            let class = stack.class;
            let known = class.deepest.load(Ordering::Relaxed);
            // Of one that was used to its end this is in the guard, which has no memory.
            *next = stack.end() - known - memory::page_size();
        }
        let deeper = memory::perhaps_resident(&next[..stacks.len()]);
        for (index, stack) in stacks.iter().enumerate() {
            if deeper >> index & 1 == 1 {
                stack.note_depth();
            }
        }
    }

    fn note_depth(&self) {
        let class = self.class;
        let unknown = class.usable() - class.deepest.load(Ordering::Relaxed);
        let lowest = self.end() - class.usable();
        if let Some(page) = memory::resident_pages(lowest, unknown).next() {
            class.deepest.fetch_max(self.end() - page, Ordering::SeqCst);
        }
    }

    /// The end of the slot: the top, without the colour.
    fn end(&self) -> usize {
        self.limit.get() + self.class.stride()
    }
}

// SAFETY: `top` is aligned to a cache line (slots to pages, colours to lines); between it and
// `limit` lie at least 16 KiB of mapped memory less the colour, and below them a guard that
// `Class::take` or `Class::new_slab` has put in force.
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
    use corosensei::stack::Stack as _;
    use std::slice;

    #[test]
    fn a_class_has_at_least_the_size_that_was_asked_for() {
        for size in [
            0,
            1,
            SMALLEST,
            SMALLEST + 1,
            256 << 10,
            (256 << 10) + 1,
            1 << 30,
        ] {
            let class = Class::for_size(size).unwrap();
            assert!(class.usable() >= size);
            assert!(
                class.usable() / 2 < size.max(SMALLEST),
                "no larger than it must be"
            );
        }
        let error = Class::for_size((1 << 30) + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(Class::for_size(usize::MAX).is_err());
    }

    #[test]
    fn stacks_do_not_overlap_and_their_whole_usable_range_can_be_written() {
        let class = Class::for_size(32 << 10).unwrap();
        let _reservations: Vec<_> = (0..100).map(|_| class.reserve().unwrap()).collect();
        let stacks: Vec<_> = (0..100).map(|_| class.take().unwrap()).collect();
        for (index, stack) in stacks.iter().enumerate() {
            let low = stack.limit().get() + class.guard_len();
            // SAFETY: the stack is owned, unused and mapped from above its guard to its top.
            unsafe { std::ptr::write_bytes(low as *mut u8, index as u8, stack.top.get() - low) };
        }
        for (index, stack) in stacks.iter().enumerate() {
            for at in [stack.limit().get() + class.guard_len(), stack.top.get() - 1] {
                // SAFETY: as above; it was written just now.
                assert_eq!(unsafe { *(at as *const u8) }, index as u8);
            }
        }
        class.put(stacks);
    }

    #[test]
    fn strides_are_odd_numbers_of_pages_and_tops_are_staggered() {
        for class in &TABLE {
            assert_eq!(class.stride() / memory::page_size() % 2, 1);
        }
        let class = Class::for_size(64 << 10).unwrap();
        let _reservations: Vec<_> = (0..COLOURS).map(|_| class.reserve().unwrap()).collect();
        let stacks: Vec<_> = (0..COLOURS).map(|_| class.take().unwrap()).collect();
        let mut colours: Vec<_> = stacks.iter().map(|stack| stack.top.get() % 4096).collect();
        colours.sort_unstable();
        colours.dedup();
        assert!(colours.len() > COLOURS / 2);
        class.put(stacks);
    }

    /// The error of a system call that reads this byte. Unlike a read of ours, it raises no signal.
    fn error_of_reading(address: usize) -> Option<i32> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for two descriptors, which are closed below. The kernel
        // checks the address that it reads from.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let written = libc::write(ends[1], address as *const libc::c_void, 1);
            let error = (written != 1).then(|| io::Error::last_os_error().raw_os_error().unwrap());
            libc::close(ends[0]);
            libc::close(ends[1]);
            error
        }
    }

    fn kernel_has_advice() -> bool {
        let page = memory::page_size();
        let probe = memory::reserve(page).unwrap();
        const MADV_GUARD_INSTALL: libc::c_int = 102;
        // SAFETY: the page has just been reserved, and is of no other use.
        let advised = unsafe { libc::madvise(probe as *mut _, page, MADV_GUARD_INSTALL) };
        // SAFETY: as above.
        unsafe { memory::release(probe, page) };
        advised == 0
    }

    fn assert_guards_are_in_force(kind: GuardKind) {
        let page = memory::page_size();
        for class in [&TABLE[0], &TABLE[4]] {
            let mut slab = class.new_slab(20, 20, kind).unwrap();
            assert_eq!((slab.guards, slab.slots), (kind, 20));
            let stacks: Vec<_> = (0..20).map(|_| class.cut(&mut slab).unwrap()).collect();
            for stack in &stacks {
                let limit = stack.limit().get();
                let low = limit + class.guard_len();
                for inside in (limit..low).step_by(page).chain([low - 1]) {
                    assert_eq!(error_of_reading(inside), Some(libc::EFAULT), "{kind:?}");
                }
                for usable in [low, stack.top.get() - 1] {
                    assert_eq!(error_of_reading(usable), None, "{kind:?}");
                    // SAFETY: the stack is owned and unused, and this byte above its guard.
                    unsafe { ptr::write_volatile(usable as *mut u8, 1) };
                }
                Stack::discard_all(slice::from_ref(stack));
                assert_eq!(error_of_reading(limit), Some(libc::EFAULT), "{kind:?}");
                assert_eq!(error_of_reading(low - 1), Some(libc::EFAULT), "{kind:?}");
            }
        }
    }

    #[test]
    fn guards_by_advice_are_in_force_and_nothing_beside_them() {
        if !kernel_has_advice() {
            eprintln!("skipped: this kernel has no MADV_GUARD_INSTALL");
            return;
        }
        assert_guards_are_in_force(GuardKind::Advice);
    }

    #[test]
    fn guards_by_protection_are_in_force_and_nothing_beside_them() {
        assert_guards_are_in_force(GuardKind::Protection);
    }
}
