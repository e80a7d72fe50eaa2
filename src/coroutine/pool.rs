//! The coroutines that a worker keeps hot, on their stacks.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Coroutine;
use super::stack::{CLASSES, Class, Reservation, Stack};

/// The most idle coroutines of a class that a worker keeps.
pub(super) const HOT_STACKS: usize = 64;

/// The most address space that a worker's idle stacks of a class span, but for the largest, of which
/// it keeps one.
pub(super) const HOT_BYTES: usize = 16 << 20;

static POOLS: AtomicUsize = AtomicUsize::new(0);

/// The number of pools that may hold stacks back.
pub(super) fn count() -> usize {
    POOLS.load(Ordering::Relaxed)
}

/// Coroutines of one worker that have no task: last in, first out, so that a burst of short tasks
/// runs on one hot stack, without a system call.
///
/// All of them run the same body. The coroutine of a task is of the class that the task's right is
/// of.
pub(crate) struct Pool {
    body: fn(),
    /// By class index.
    idle: [Idle; CLASSES],
}

/// The idle coroutines of a class: each has finished its body, or not begun with it.
#[derive(Default)]
struct Idle {
    coroutines: Vec<Coroutine>,
    /// How many rights of coroutines that had them are kept for the next ones: so that most spawns
    /// need not ask the class, which all workers share.
    rights: usize,
    /// So many at the bottom have not been used since they were trimmed.
    trimmed: usize,
}

impl Idle {
    fn pop(&mut self) -> Option<Coroutine> {
        let coroutine = self.coroutines.pop();
        self.trimmed = self.trimmed.min(self.coroutines.len());
        coroutine
    }

    /// Takes the stacks of the first, which were used last the longest ago.
    fn take_stacks(&mut self, count: usize) -> Vec<Stack> {
        let coroutines = self.coroutines.drain(..count);
        coroutines.map(Coroutine::into_stack).collect()
    }

    /// Gives half of the stacks back.
    #[cold]
    fn cool(&mut self, class: &'static Class) {
        let cold = self.take_stacks(self.coroutines.len().div_ceil(2));
        self.trimmed = self.trimmed.saturating_sub(cold.len());
        class.put(cold);
        self.keep_rights(class, self.coroutines.len());
    }

    /// Gives back the memory of the deep parts of stacks that were used since.
    fn trim(&mut self, body: fn()) {
        let mut used = self.coroutines.split_off(self.trimmed);
        mem::swap(&mut used, &mut self.coroutines);
        let stacks = self.take_stacks(self.coroutines.len());
        Stack::trim_all(&stacks);
        used.extend(stacks.into_iter().map(|stack| Coroutine::new(stack, body)));
        self.coroutines = used;
        self.trimmed = self.coroutines.len();
    }

    /// Gives rights back, but for `most`.
    fn keep_rights(&mut self, class: &'static Class, most: usize) {
        for _ in most..self.rights {
            drop(class.reserved_before());
        }
        self.rights = self.rights.min(most);
    }
}

impl Pool {
    /// For coroutines that run `body`, which no panic must leave, with each task.
    pub(crate) fn new(body: fn()) -> Pool {
        POOLS.fetch_add(1, Ordering::Relaxed);
        Pool {
            body,
            idle: std::array::from_fn(|_| Idle::default()),
        }
    }

    /// As [`Class::reserve`], by a right that was kept if there is one.
    ///
    /// # Errors
    ///
    /// See there.
    #[inline]
    pub(crate) fn reserve(&mut self, class: &'static Class) -> io::Result<Reservation> {
        let idle = &mut self.idle[class.index()];
        if idle.rights == 0 {
            return class.reserve();
        }
        idle.rights -= 1;
        Ok(class.reserved_before())
    }

    /// A coroutine for a task that holds a reservation of `class`.
    ///
    /// # Errors
    ///
    /// See [`Class::take`].
    #[inline]
    pub(crate) fn take(&mut self, class: &'static Class) -> io::Result<Coroutine> {
        match self.idle[class.index()].pop() {
            Some(coroutine) => Ok(coroutine),
            None => Ok(Coroutine::new(class.take()?, self.body)),
        }
    }

    /// Keeps a coroutine hot that has finished, with the right of its task; or gives half of the
    /// class's hot stacks back where that is too many.
    #[inline]
    pub(crate) fn put(&mut self, finished: Coroutine, right: Reservation) {
        debug_assert!(!finished.is_in_body());
        let class = right.class();
        let idle = &mut self.idle[class.index()];
        if idle.coroutines.len() == class.hot_limit() {
            idle.cool(class);
        }
        idle.coroutines.push(finished);
        if idle.rights < idle.coroutines.len() {
            mem::forget(right);
            idle.rights += 1;
        }
    }

    /// Whether a coroutine was put back since the last [`trim`](Pool::trim), and is still here.
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

impl Drop for Pool {
    fn drop(&mut self) {
        for (idle, class) in self.idle.iter_mut().zip(Class::all()) {
            let stacks = idle.take_stacks(idle.coroutines.len());
            class.put(stacks);
            idle.keep_rights(class, 0);
        }
        POOLS.fetch_sub(1, Ordering::Relaxed);
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

    /// Takes `N` coroutines with their rights.
    fn take<const N: usize>(
        pool: &mut Pool,
        class: &'static Class,
    ) -> [(Coroutine, Reservation); N] {
        [(); N].map(|()| {
            let right = pool.reserve(class).unwrap();
            (pool.take(class).unwrap(), right)
        })
    }

    /// Writes to the topmost 200 KiB of an idle coroutine's stack, as a deep body would have; returns
    /// where that ends, too.
    fn dirty(coroutine: Coroutine) -> (Coroutine, usize) {
        let stack = coroutine.into_stack();
        let top = stack.base().get();
        // SAFETY: the stack is owned and unused, and larger than that.
        unsafe { std::ptr::write_bytes((top - DIRTIED) as *mut u8, 1, DIRTIED) };
        (
            Coroutine::new(stack, nothing),
            top.next_multiple_of(page_size()),
        )
    }

    /// Dirties the stacks and puts them back; returns their ends.
    fn put_dirty<const N: usize>(
        pool: &mut Pool,
        taken: [(Coroutine, Reservation); N],
    ) -> [usize; N] {
        taken.map(|(coroutine, right)| {
            let (coroutine, end) = dirty(coroutine);
            pool.put(coroutine, right);
            end
        })
    }

    /// How many bytes are resident in the deep part of the stack that ends there, and in its topmost
    /// 16 KiB.
    fn resident(end: usize) -> (usize, usize) {
        let page = page_size();
        let mut pages = vec![0_u8; USABLE / page];
        let start = (end - USABLE) as *mut libc::c_void;
        // SAFETY: the range is mapped, and the vector has a byte for each of its pages.
        let done = unsafe { libc::mincore(start, USABLE, pages.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        let bytes = |pages: &[u8]| pages.iter().filter(|page| **page & 1 == 1).count() * page;
        let (deep, top) = pages.split_at((USABLE - (16 << 10)) / page);
        (bytes(deep), bytes(top))
    }

    #[test]
    fn trimming_gives_the_deep_parts_of_idle_stacks_back_and_keeps_their_tops() {
        let class = Class::for_size(USABLE).unwrap();
        let mut pool = Pool::new(nothing);
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
        assert!(!pool.needs_trim(), "the others are as they were");
        put_dirty(&mut pool, again);
        assert!(pool.needs_trim());
        pool.trim();
        assert_eq!(ends.map(resident), [(0, 16 << 10); 3]);
    }

    #[test]
    fn stacks_that_are_put_back_after_others_went_cold_are_trimmed() {
        let class = Class::for_size(USABLE).unwrap();
        assert_eq!(class.hot_limit(), 64);
        let mut pool = Pool::new(nothing);
        let first = take::<64>(&mut pool, class);
        let last = take::<5>(&mut pool, class);
        for (coroutine, right) in first {
            pool.put(coroutine, right);
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
        let mut pool = Pool::new(nothing);
        let [(coroutine, right)] = take(&mut pool, class);
        let stack = coroutine.into_stack();
        // Below what the next coroutine has there when it begins.
        let below = (stack.base().get() - (4 << 10)) as *mut u64;
        // SAFETY: the stack is owned and unused.
        unsafe { below.write(7) };
        pool.put(Coroutine::new(stack, nothing), right);
        pool.trim();
        // SAFETY: as above; it was written just now.
        assert_eq!(unsafe { below.read() }, 7);
        assert!(!pool.needs_trim());
    }

    #[test]
    fn a_coroutine_that_has_finished_runs_its_body_again() {
        let class = Class::for_size(USABLE).unwrap();
        let mut pool = Pool::new(|| crate::coroutine::suspend(Suspend::Yielded));
        for _ in 0..3 {
            let [(mut coroutine, right)] = take(&mut pool, class);
            assert!(!coroutine.is_in_body());
            assert_eq!(coroutine.resume(), Suspend::Yielded);
            assert!(coroutine.is_in_body());
            assert_eq!(coroutine.resume(), Suspend::Finished);
            pool.put(coroutine, right);
        }
        assert_eq!(pool.idle[class.index()].coroutines.len(), 1);
    }

    #[test]
    fn a_right_that_was_kept_serves_the_next_task() {
        let class = Class::for_size(3 << 20).unwrap();
        let mut pool = Pool::new(nothing);
        let [(coroutine, right)] = take(&mut pool, class);
        assert_eq!(class.reserved(), 1);
        pool.put(coroutine, right);
        assert_eq!(class.reserved(), 1, "kept");
        let taken = take::<1>(&mut pool, class);
        assert_eq!(class.reserved(), 1, "used again");
        let another = take::<1>(&mut pool, class);
        assert_eq!(class.reserved(), 2);
        for (coroutine, right) in taken.into_iter().chain(another) {
            pool.put(coroutine, right);
        }
        drop(pool);
        assert_eq!(class.reserved(), 0);
    }
}
