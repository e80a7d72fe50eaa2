//! The idle coroutines that a worker keeps, each on its stack, for the tasks to come.
//!
//! A coroutine that has finished its task is not torn down. It stays suspended at the end of its
//! body, and its stack stays hot: in the processor's caches, and backed by memory. The next task
//! runs on it without a system call.
#![cfg_attr(not(test), forbid(unsafe_code))]

use std::io;

use super::Coroutine;
use super::class::{Class, CountedPool, Reservation, SpareReservations};
#[cfg(test)]
use super::lacks;
use super::stack::{Stack, StackSize};

/// The idle coroutines of one worker: last in, first out, so that a burst of short tasks runs on
/// one hot stack.
///
/// All of them run the same body. A task runs on a coroutine of the class that the task's
/// reservation is of.
pub(crate) struct CoroutinePool {
    body: fn(),
    /// By the index of their class.
    idle: [IdleCoroutines; StackSize::COUNT],
    /// Dropped last, after the stacks and reservations have been given back.
    _counted: CountedPool,
}

/// The idle coroutines of one class. Each has finished its body, or has never begun it.
struct IdleCoroutines {
    class: &'static Class,
    /// The coroutine that was used last is at the end.
    coroutines: Vec<Coroutine>,
    /// Reservations of finished tasks. One is kept only while there are fewer than coroutines.
    spare: SpareReservations,
    /// The length of the prefix of `coroutines` that has not been used since the last trim.
    trimmed: usize,
}

impl IdleCoroutines {
    fn new(class: &'static Class) -> IdleCoroutines {
        IdleCoroutines {
            class,
            coroutines: Vec::new(),
            spare: SpareReservations::new(class),
            trimmed: 0,
        }
    }

    fn pop(&mut self) -> Option<Coroutine> {
        let coroutine = self.coroutines.pop();
        self.trimmed = self.trimmed.min(self.coroutines.len());
        coroutine
    }

    /// Takes the stacks of the `count` least recently used coroutines.
    fn take_stacks(&mut self, count: usize) -> Vec<Stack> {
        let coroutines = self.coroutines.drain(..count);
        coroutines.map(Coroutine::into_stack).collect()
    }

    /// Gives half of the stacks back to the class.
    #[cold]
    fn cool(&mut self) {
        let cold = self.take_stacks(self.coroutines.len().div_ceil(2));
        self.trimmed = self.trimmed.saturating_sub(cold.len());
        self.class.put(cold);
        self.spare.truncate(self.coroutines.len());
    }

    /// Gives back the memory of the deep parts of stacks that were used since the last trim.
    fn trim(&mut self, body: fn()) {
        let used = self.coroutines.split_off(self.trimmed);
        let stacks: Vec<_> = used.into_iter().map(Coroutine::into_stack).collect();
        self.class.trim(&stacks);
        let trimmed = stacks.into_iter().map(|stack| Coroutine::new(stack, body));
        self.coroutines.extend(trimmed);
        self.trimmed = self.coroutines.len();
    }
}

impl CoroutinePool {
    /// An empty pool. Its coroutines run `body` with each task. A panic must not leave `body`.
    pub(crate) fn new(body: fn()) -> CoroutinePool {
        CoroutinePool {
            body,
            idle: std::array::from_fn(|index| IdleCoroutines::new(Class::at(index))),
            _counted: CountedPool::new(),
        }
    }

    /// Like [`Class::reserve`], but uses a spare reservation if the pool has one.
    ///
    /// # Errors
    ///
    /// The kernel's, if no more stacks can be made: out of address space or of mappings.
    #[inline]
    pub(crate) fn reserve(&mut self, class: &'static Class) -> io::Result<Reservation> {
        match self.idle[class.index()].spare.take() {
            Some(reservation) => Ok(reservation),
            None => class.reserve(),
        }
    }

    /// Takes a coroutine for a task that holds a reservation of `class`.
    ///
    /// # Errors
    ///
    /// The kernel's, if the pool has no coroutine of the class and [`Class::take`] fails.
    #[inline(always)]
    pub(crate) fn take(&mut self, class: &'static Class) -> io::Result<Coroutine> {
        #[cfg(test)]
        lacks::check(&lacks::STACKS)?;
        match self.idle[class.index()].pop() {
            Some(coroutine) => Ok(coroutine),
            None => Ok(Coroutine::new(class.take()?, self.body)),
        }
    }

    /// Keeps a coroutine that has finished, and the reservation of its task. If the pool has as
    /// many hot stacks of the class as it may keep, it first gives half of them back.
    #[inline]
    pub(crate) fn put(&mut self, finished: Coroutine, reservation: Reservation) {
        debug_assert!(!finished.is_in_body());
        let class = reservation.class();
        let idle = &mut self.idle[class.index()];
        if idle.coroutines.len() == class.hot_limit() {
            idle.cool();
        }
        idle.coroutines.push(finished);
        if idle.spare.count() < idle.coroutines.len() {
            idle.spare.put(reservation);
        }
    }

    /// Whether a coroutine was put back since the last [`trim`](CoroutinePool::trim), and is still
    /// here.
    pub(crate) fn needs_trim(&self) -> bool {
        self.idle
            .iter()
            .any(|idle| idle.trimmed < idle.coroutines.len())
    }

    /// Gives back the memory of the deep parts of the idle stacks, so that a burst of deep
    /// coroutines does not leave its memory behind.
    pub(crate) fn trim(&mut self) {
        for idle in &mut self.idle {
            idle.trim(self.body);
        }
    }
}

impl Drop for CoroutinePool {
    fn drop(&mut self) {
        for idle in &mut self.idle {
            let stacks = idle.take_stacks(idle.coroutines.len());
            idle.class.put(stacks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coroutine::Suspend;
    use crate::sys::memory::page_size;
    use corosensei::stack::Stack as _;

    const USABLE: usize = 256 << 10;
    const DIRTIED: usize = 200 << 10;

    fn nothing() {}

    /// Takes `N` coroutines with their reservations.
    fn take<const N: usize>(
        pool: &mut CoroutinePool,
        class: &'static Class,
    ) -> [(Coroutine, Reservation); N] {
        [(); N].map(|()| {
            let reservation = pool.reserve(class).unwrap();
            (pool.take(class).unwrap(), reservation)
        })
    }

    /// Writes to the topmost 200 KiB of an idle coroutine's stack, as a deep body would have done.
    /// Returns a coroutine on the same stack, and the end of the stack's slot.
    fn dirty(coroutine: Coroutine) -> (Coroutine, usize) {
        let stack = coroutine.into_stack();
        let top = stack.base().get();
        let end = stack.end();
        // SAFETY: this test owns the stack, no coroutine is on it, and below its top it has more
        // than DIRTIED usable bytes.
        unsafe { std::ptr::write_bytes((top - DIRTIED) as *mut u8, 1, DIRTIED) };
        (Coroutine::new(stack, nothing), end)
    }

    /// Dirties the stacks of the coroutines and puts the coroutines back; returns the stacks' ends.
    fn put_dirty<const N: usize>(
        pool: &mut CoroutinePool,
        taken: [(Coroutine, Reservation); N],
    ) -> [usize; N] {
        taken.map(|(coroutine, reservation)| {
            let (coroutine, end) = dirty(coroutine);
            pool.put(coroutine, reservation);
            end
        })
    }

    /// The bytes that are resident in the deep part of the stack that ends at `end`, and in its
    /// topmost 16 KiB.
    fn resident(end: usize) -> (usize, usize) {
        let page = page_size();
        let mut pages = vec![0_u8; USABLE / page];
        let start = (end - USABLE) as *mut libc::c_void;
        // SAFETY: the range is the usable part of a slot, which stays mapped, and the vector has a
        // byte for each of its pages.
        let done = unsafe { libc::mincore(start, USABLE, pages.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let bytes = |pages: &[u8]| pages.iter().filter(|page| **page & 1 == 1).count() * page;
        let (deep, top) = pages.split_at((USABLE - (16 << 10)) / page);
        (bytes(deep), bytes(top))
    }

    #[test]
    fn trimming_gives_the_deep_parts_of_idle_stacks_back_and_keeps_their_tops() {
        let class = Class::for_size(USABLE).unwrap();
        let mut pool = CoroutinePool::new(nothing);
        let taken = take::<3>(&mut pool, class);
        assert!(!pool.needs_trim());
        let ends = put_dirty(&mut pool, taken);
        for (deep, top) in ends.map(resident) {
            assert!(deep >= DIRTIED - (16 << 10), "{deep}");
            assert_eq!(top, 16 << 10);
        }
        assert!(pool.needs_trim());
        pool.trim();
        assert_eq!(ends.map(resident), [(0, 16 << 10); 3]);
        assert!(!pool.needs_trim());
        let again = take::<1>(&mut pool, class);
        assert!(!pool.needs_trim(), "the other stacks have not been used");
        put_dirty(&mut pool, again);
        assert!(pool.needs_trim());
        pool.trim();
        assert_eq!(ends.map(resident), [(0, 16 << 10); 3]);
    }

    #[test]
    fn stacks_put_back_after_half_of_the_pool_went_cold_are_trimmed() {
        let class = Class::for_size(USABLE).unwrap();
        assert_eq!(class.hot_limit(), 64);
        let mut pool = CoroutinePool::new(nothing);
        let first = take::<64>(&mut pool, class);
        let last = take::<5>(&mut pool, class);
        for (coroutine, reservation) in first {
            pool.put(coroutine, reservation);
        }
        pool.trim();
        let ends = put_dirty(&mut pool, last);
        pool.trim();
        assert!(pool.idle[class.index()].coroutines.len() < class.hot_limit());
        for end in ends {
            assert_eq!(resident(end).0, 0);
        }
    }

    #[test]
    fn trimming_leaves_the_smallest_stacks_alone() {
        let class = Class::for_size(0).unwrap();
        let mut pool = CoroutinePool::new(nothing);
        let [(coroutine, reservation)] = take(&mut pool, class);
        let stack = coroutine.into_stack();
        // 4 KiB below the top, where `Coroutine::new` does not write.
        let below = (stack.base().get() - (4 << 10)) as *mut u64;
        // SAFETY: this test owns the stack, no coroutine is on it, and the address is usable.
        unsafe { below.write(7) };
        pool.put(Coroutine::new(stack, nothing), reservation);
        pool.trim();
        // SAFETY: the slot stays mapped, this test has just written to the address, and the
        // coroutine on the stack does not run.
        assert_eq!(unsafe { below.read() }, 7);
        assert!(!pool.needs_trim());
    }

    #[test]
    fn a_coroutine_that_has_finished_runs_its_body_again() {
        let class = Class::for_size(USABLE).unwrap();
        let mut pool = CoroutinePool::new(|| crate::coroutine::suspend(Suspend::Yielded, &()));
        for _ in 0..3 {
            let [(mut coroutine, reservation)] = take(&mut pool, class);
            assert!(!coroutine.is_in_body());
            assert_eq!(coroutine.resume(), Suspend::Yielded);
            assert!(coroutine.is_in_body());
            assert_eq!(coroutine.resume(), Suspend::Finished);
            pool.put(coroutine, reservation);
        }
        assert_eq!(pool.idle[class.index()].coroutines.len(), 1);
    }

    #[test]
    fn a_spare_reservation_serves_the_next_task() {
        let class = Class::for_size(3 << 20).unwrap();
        let mut pool = CoroutinePool::new(nothing);
        let [(coroutine, reservation)] = take(&mut pool, class);
        assert_eq!(class.reserved(), 1);
        pool.put(coroutine, reservation);
        assert_eq!(class.reserved(), 1, "kept");
        let taken = take::<1>(&mut pool, class);
        assert_eq!(class.reserved(), 1, "used again");
        let another = take::<1>(&mut pool, class);
        assert_eq!(class.reserved(), 2);
        for (coroutine, reservation) in taken.into_iter().chain(another) {
            pool.put(coroutine, reservation);
        }
        drop(pool);
        assert_eq!(class.reserved(), 0);
    }
}
