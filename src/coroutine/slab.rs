//! Slabs: large mappings that are cut into stacks of one size.
//!
//! ```text
//!  slab   | slot 0            | slot 1            | slot 2 ...
//!         | guard |   usable  | guard |   usable  |
//! ```
//!
//! A slab is reserved as address space, without memory behind it. The low end of each slot is a
//! guard, which faults when it is touched. Linux 6.13 and later make guards without splitting the
//! mapping (`MADV_GUARD_INSTALL`), so a million stacks are a few dozen mappings. On older kernels a
//! guard is a protected range (`mprotect`), and each one costs two of the 65,530 mappings that a
//! process has by default (`vm.max_map_count`).
//!
//! A slab is never unmapped: a stack that has started and not finished must stay where it is for
//! as long as the process lives.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::stack::{Stack, StackSize};
use crate::sys::memory::{self, GuardKind};

/// The most address space that one slab takes, in bytes.
const LARGEST_SLAB: usize = 16 << 30;

/// The most guards that are made at once, ahead of the use of their stacks.
const GUARDS_AT_ONCE: usize = 64;

/// The number of stacks that are given up when the process runs out of mappings for guards by
/// protection. Their mappings are left to the rest of the process: its allocator would abort if it
/// could get none.
const FORGONE: usize = 64;

/// A slab with slots that have never been used.
#[derive(Debug)]
pub(super) struct Slab {
    size: StackSize,
    /// The address of slot 0.
    base: usize,
    slots: usize,
    /// The first slot that has never been used. The slots before it have been cut off as stacks.
    next: usize,
    /// The way in which this slab's guards are made.
    guards: GuardKind,
    /// The number of slots, from slot 0 on, whose guards are in force. All slots, if the guards
    /// are made by [`GuardKind::Protection`].
    guarded: usize,
}

impl Slab {
    /// Maps a slab of `wanted` slots, or of fewer, down to `least`, if the address space does not
    /// suffice. Falls back to guards by protection if `guards` does not work here.
    ///
    /// # Errors
    ///
    /// The kernel's, if not even `least` slots can be mapped, or if guards run out so early that no
    /// stack is left after [`FORGONE`] are given up.
    pub(super) fn map(
        size: StackSize,
        wanted: usize,
        least: usize,
        guards: GuardKind,
    ) -> io::Result<Slab> {
        let most = (LARGEST_SLAB / size.stride()).max(1);
        let least = least.min(most);
        let mut count = wanted.min(most).max(least);
        let base = loop {
            match memory::reserve(count * size.stride()) {
                Ok(base) => break base,
                Err(_) if count > least => count = (count / 2).max(least),
                Err(error) => return Err(error),
            }
        };
        let mut slab = Slab {
            size,
            base,
            slots: count,
            next: 0,
            guards,
            guarded: 0,
        };
        for index in 0..count {
            match slab.guard(index) {
                // The first guard tells whether the advice works on this mapping. The other
                // guards are made when their stacks are needed.
                Ok(GuardKind::Advice) => {
                    slab.guarded = 1;
                    break;
                }
                // Each protected guard takes mappings, which can run out. All of them are made
                // now: an error here goes to the caller of `spawn`; later there is no caller.
                Ok(GuardKind::Protection) => {
                    slab.guards = GuardKind::Protection;
                    slab.guarded = index + 1;
                }
                Err(error) => {
                    slab.slots = index.saturating_sub(FORGONE);
                    let (kept, mapped) = (slab.slots * size.stride(), count * size.stride());
                    // SAFETY: the range is the slots from `slab.slots` on. None of them has been
                    // used, and the slab, which does not count them any more, will not use them.
                    unsafe { memory::release(base + kept, mapped - kept) };
                    if slab.slots == 0 {
                        return Err(error);
                    }
                    slab.guarded = slab.slots;
                    break;
                }
            }
        }
        Ok(slab)
    }

    /// The number of slots, used and unused.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Whether every slot has been cut off.
    pub(super) fn is_used_up(&self) -> bool {
        self.next == self.slots
    }

    /// Cuts the next stack off a slab that is not used up.
    ///
    /// # Errors
    ///
    /// The kernel's, if the stack's guard cannot be made.
    pub(super) fn cut(&mut self) -> io::Result<Stack> {
        assert!(!self.is_used_up());
        let index = self.next;
        if index == self.guarded {
            self.guard_more()?;
        }
        self.next += 1;
        // SAFETY: slot `index` lies in this slab's mapping, which is never unmapped. Its guard is
        // in force, because `index` is less than `guarded`. It is cut off once, because `next`
        // only grows.
        Ok(unsafe { Stack::in_slot(self.size, index, self.slot(index)) })
    }

    /// The address of slot `index`.
    fn slot(&self, index: usize) -> usize {
        self.base + index * self.size.stride()
    }

    /// Makes the guard of slot `index`, which has never been used; returns how.
    fn guard(&self, index: usize) -> io::Result<GuardKind> {
        let (start, len) = (self.slot(index), self.size.guard_len());
        // SAFETY: the range is the low end of a slot in this slab's mapping, which came from
        // `memory::reserve`. The slot has never been used, so nothing in it is in use.
        unsafe { memory::guard(start, len, self.guards) }
    }

    /// Makes the next guards: as many as there are already, so that few calls make many guards,
    /// up to [`GUARDS_AT_ONCE`].
    fn guard_more(&mut self) -> io::Result<()> {
        let next = self.guarded;
        let more = next.clamp(1, GUARDS_AT_ONCE).min(self.slots - next);
        let guards = (next..next + more).map(|index| (self.slot(index), self.size.guard_len()));
        // SAFETY: each range is the low end of a slot in this slab's mapping, which came from
        // `memory::reserve`. The slots from `guarded` on have never been used.
        if more > 1 && unsafe { memory::guard_all(guards) } {
            self.guarded += more;
        } else {
            // `guard` falls back to protection. Memory that was locked after the slab had been
            // mapped refuses the advice, for instance.
            self.guard(next)?;
            self.guarded += 1;
        }
        Ok(())
    }

    /// Adds the slab to the list of all slabs. To be called once, before a stack is cut off.
    pub(super) fn register(&self) {
        let slab = Box::leak(Box::new(Registered {
            size: self.size,
            base: self.base,
            slots: self.slots,
            next: ptr::null(),
        }));
        let push = |head: *mut Registered| {
            slab.next = head;
            Some(&raw mut *slab)
        };
        // `fetch_update` fails only if the closure returns `None`, and this one never does.
        let _ = SLABS.fetch_update(Ordering::AcqRel, Ordering::Acquire, push);
    }
}

/// The head of the list of all slabs, latest first. The list only grows, and its entries are
/// leaked: the handler of faults walks it without a lock.
static SLABS: AtomicPtr<Registered> = AtomicPtr::new(ptr::null_mut());

/// An entry of the list of all slabs. It does not change once it is in the list.
struct Registered {
    size: StackSize,
    base: usize,
    slots: usize,
    next: *const Registered,
}

/// All slabs, latest first. Async-signal-safe.
fn registered() -> impl Iterator<Item = &'static Registered> {
    // SAFETY: a non-null pointer is to an entry that `register` has leaked, and that does not
    // change after the `fetch_update` that published it. The acquire load pairs with that.
    let at = |slab: *const Registered| unsafe { slab.as_ref() };
    std::iter::successors(at(SLABS.load(Ordering::Acquire)), move |slab| at(slab.next))
}

/// The slots of each slab of `size` that have been used, as the address of slot 0 and their
/// number. `unused` are the slabs of this size that are not used up.
pub(super) fn used_slots(size: StackSize, unused: &[Slab]) -> Vec<(usize, usize)> {
    registered()
        .filter(|slab| slab.size == size)
        .map(|slab| {
            let part = unused.iter().find(|part| part.base == slab.base);
            (slab.base, part.map_or(slab.slots, |part| part.next))
        })
        .collect()
}

/// The usable bytes of the stack above the guard that `address` lies in; `None` if `address` lies
/// in no guard.
///
/// Async-signal-safe: it reads memory that does not change. The page size, on which strides depend,
/// was asked for before the first slab was made.
pub(super) fn guarded_size(address: usize) -> Option<usize> {
    let offset = |slab: &Registered| address.wrapping_sub(slab.base);
    let slab = registered().find(|slab| offset(slab) < slab.slots * slab.size.stride())?;
    let is_guarded = offset(slab) % slab.size.stride() < slab.size.guard_len();
    is_guarded.then(|| slab.size.usable())
}

/// The usable addresses of the stack that `address` lies in; `None` if it lies in none, or in its guard.
///
/// Async-signal-safe, as [`guarded_size`] is.
pub(super) fn usable_range(address: usize) -> Option<Range<usize>> {
    let offset = |slab: &Registered| address.wrapping_sub(slab.base);
    let slab = registered().find(|slab| offset(slab) < slab.slots * slab.size.stride())?;
    let stride = slab.size.stride();
    let slot = slab.base + offset(slab) / stride * stride;
    let usable = slot + slab.size.guard_len()..slot + stride;
    usable.contains(&address).then_some(usable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corosensei::stack::Stack as _;

    /// The error of a system call that reads the byte at `address`, if it fails. Unlike a read by
    /// this thread, the call raises no signal.
    fn error_of_reading(address: usize) -> Option<i32> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors, which are closed before this
        // returns. The kernel checks the address that it reads from.
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
        // SAFETY: this test has just reserved the page, and does not use it.
        let advised = unsafe { libc::madvise(probe as *mut _, page, MADV_GUARD_INSTALL) };
        // SAFETY: this test has reserved the page, and no stack was ever in it.
        unsafe { memory::release(probe, page) };
        advised == 0
    }

    fn assert_guards_are_in_force(kind: GuardKind) {
        let page = memory::page_size();
        for size in [StackSize::at(0), StackSize::at(4)] {
            let mut slab = Slab::map(size, 20, 20, kind).unwrap();
            assert_eq!((slab.guards, slab.slots), (kind, 20));
            let stacks: Vec<_> = (0..20).map(|_| slab.cut().unwrap()).collect();
            assert!(slab.is_used_up());
            for stack in &stacks {
                let limit = stack.limit().get();
                let low = stack.low();
                for inside in (limit..low).step_by(page).chain([low - 1]) {
                    assert_eq!(error_of_reading(inside), Some(libc::EFAULT), "{kind:?}");
                }
                for usable in [low, stack.base().get() - 1] {
                    assert_eq!(error_of_reading(usable), None, "{kind:?}");
                    // SAFETY: this test owns the stack, no coroutine is on it, and the byte lies
                    // between its guard and its top.
                    unsafe { ptr::write_volatile(usable as *mut u8, 1) };
                }
                // SAFETY: the range is the usable part of a stack that this test owns and that no
                // coroutine is on.
                unsafe { memory::discard_all([(low, size.usable())].into_iter()) };
                assert_eq!(error_of_reading(limit), Some(libc::EFAULT), "{kind:?}");
                assert_eq!(error_of_reading(low - 1), Some(libc::EFAULT), "{kind:?}");
            }
        }
    }

    #[test]
    fn guards_by_advice_fault_and_the_bytes_beside_them_do_not() {
        if !kernel_has_advice() {
            eprintln!("skipped: this kernel has no MADV_GUARD_INSTALL");
            return;
        }
        assert_guards_are_in_force(GuardKind::Advice);
    }

    #[test]
    fn guards_by_protection_fault_and_the_bytes_beside_them_do_not() {
        assert_guards_are_in_force(GuardKind::Protection);
    }

    #[test]
    fn an_address_in_a_guard_tells_the_size_of_its_stack_and_another_does_not() {
        let size = StackSize::at(1);
        let mut slab = Slab::map(size, 2, 2, GuardKind::Protection).unwrap();
        slab.register();
        let stacks = [slab.cut().unwrap(), slab.cut().unwrap()];
        for stack in &stacks {
            assert_eq!(guarded_size(stack.limit().get()), Some(size.usable()));
            assert_eq!(guarded_size(stack.low() - 1), Some(size.usable()));
            assert_eq!(guarded_size(stack.low()), None);
            assert_eq!(guarded_size(stack.end() - 1), None);
            let usable = Some(stack.low()..stack.end());
            assert_eq!(usable_range(stack.low()), usable);
            assert_eq!(usable_range(stack.end() - 1), usable);
            assert_eq!(usable_range(stack.low() - 1), None);
        }
        assert_eq!(guarded_size(0), None);
    }
}
