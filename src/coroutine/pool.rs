//! The stacks a worker keeps hot.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stack::{CLASSES, Class, Reservation, Stack};

/// The most idle stacks of a class that a worker keeps.
pub(super) const HOT_STACKS: usize = 64;

/// The most address space that a worker's idle stacks of a class span, but for the largest, of which
/// it keeps one.
pub(super) const HOT_BYTES: usize = 16 << 20;

static POOLS: AtomicUsize = AtomicUsize::new(0);

/// The number of pools that may hold stacks back.
pub(super) fn count() -> usize {
    POOLS.load(Ordering::Relaxed)
}

/// Stacks that coroutines of one worker have finished with: last in, first out, so that a burst
/// of short coroutines runs on one hot stack, without a system call.
#[derive(Debug)]
pub(crate) struct StackPool {
    /// By class index.
    idle: [Idle; CLASSES],
}

/// The idle stacks of a class.
#[derive(Debug, Default)]
struct Idle {
    stacks: Vec<Stack>,
    /// How many rights of coroutines that had them are kept for the next ones: so that most spawns
    /// need not ask the class, which all workers share.
    rights: usize,
    /// So many at the bottom have not been used since they were trimmed.
    trimmed: usize,
}

impl Idle {
    fn pop(&mut self) -> Option<Stack> {
        let stack = self.stacks.pop();
        self.trimmed = self.trimmed.min(self.stacks.len());
        stack
    }

    /// Gives half of the stacks back.
    #[cold]
    fn cool(&mut self, class: &'static Class) {
        let cold = self.stacks.len().div_ceil(2);
        class.put(self.stacks.drain(..cold));
        self.trimmed = self.trimmed.saturating_sub(cold);
        self.keep_rights(class, self.stacks.len());
    }

    /// Gives rights back, but for `most`.
    fn keep_rights(&mut self, class: &'static Class, most: usize) {
        for _ in most..self.rights {
            drop(class.reserved_before());
        }
        self.rights = self.rights.min(most);
    }
}

impl StackPool {
    pub(crate) fn new() -> StackPool {
        POOLS.fetch_add(1, Ordering::Relaxed);
        StackPool {
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

    /// A stack for a coroutine that holds a reservation of `class`.
    ///
    /// # Errors
    ///
    /// See [`Class::take`].
    #[inline]
    pub(crate) fn take(&mut self, class: &'static Class) -> io::Result<Stack> {
        match self.idle[class.index()].pop() {
            Some(stack) => Ok(stack),
            None => class.take(),
        }
    }

    /// Keeps a stack hot with the right to one, or gives half of the class's hot stacks back where
    /// that is too many.
    #[inline]
    pub(crate) fn put(&mut self, stack: Stack, right: Option<Reservation>) {
        let class = stack.class();
        debug_assert!(right.as_ref().is_none_or(|right| right.is_of(class)));
        let idle = &mut self.idle[class.index()];
        if idle.stacks.len() == class.hot_limit() {
            idle.cool(class);
        }
        idle.stacks.push(stack);
        if idle.rights < idle.stacks.len() && right.map(mem::forget).is_some() {
            idle.rights += 1;
        }
    }

    /// Whether a stack was put back since the last [`trim`](StackPool::trim), and is still here.
    pub(crate) fn needs_trim(&self) -> bool {
        self.idle
            .iter()
            .any(|idle| idle.trimmed < idle.stacks.len())
    }

    /// Gives back the memory of the deep parts of the idle stacks, so that a burst of deep
    /// coroutines does not leave its memory behind.
    pub(crate) fn trim(&mut self) {
        for idle in &mut self.idle {
            Stack::trim_all(&idle.stacks[idle.trimmed..]);
            idle.trimmed = idle.stacks.len();
        }
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        for (idle, class) in self.idle.iter_mut().zip(Class::all()) {
            class.put(idle.stacks.drain(..));
            idle.keep_rights(class, 0);
        }
        POOLS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::page_size;
    use corosensei::stack::Stack as _;

    const USABLE: usize = 256 << 10;
    const DIRTIED: usize = 200 << 10;

    /// Writes to the topmost 200 KiB.
    fn dirty(stack: &Stack) {
        let top = stack.base().get();
        // SAFETY: the stack is owned and unused, and larger than that.
        unsafe { std::ptr::write_bytes((top - DIRTIED) as *mut u8, 1, DIRTIED) };
    }

    /// How many bytes are resident in the deep part of a stack, and in its topmost 16 KiB.
    fn resident(stack: &Stack) -> (usize, usize) {
        let page = page_size();
        let end = stack.base().get().next_multiple_of(page);
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
        let _reservations: Vec<_> = (0..3).map(|_| class.reserve().unwrap()).collect();
        let mut pool = StackPool::new();
        let stacks: Vec<_> = (0..3).map(|_| pool.take(class).unwrap()).collect();
        assert!(!pool.needs_trim());
        for stack in stacks {
            dirty(&stack);
            pool.put(stack, None);
        }
        let idle = |pool: &StackPool| -> Vec<_> {
            let stacks = &pool.idle[class.index()].stacks;
            stacks.iter().map(resident).collect()
        };
        for (deep, top) in idle(&pool) {
            assert!(deep >= DIRTIED - (16 << 10), "{deep}");
            assert_eq!(top, 16 << 10);
        }
        assert!(pool.needs_trim());
        pool.trim();
        assert_eq!(idle(&pool), [(0, 16 << 10); 3]);
        assert!(!pool.needs_trim());
        let again = pool.take(class).unwrap();
        dirty(&again);
        assert!(!pool.needs_trim(), "the others are as they were");
        pool.put(again, None);
        assert!(pool.needs_trim());
        pool.trim();
        assert_eq!(idle(&pool), [(0, 16 << 10); 3]);
    }

    #[test]
    fn stacks_that_are_put_back_after_others_went_cold_are_trimmed() {
        let class = Class::for_size(USABLE).unwrap();
        let many = class.hot_limit() + 5;
        let _reservations: Vec<_> = (0..many).map(|_| class.reserve().unwrap()).collect();
        let mut pool = StackPool::new();
        let mut stacks: Vec<_> = (0..many).map(|_| pool.take(class).unwrap()).collect();
        let last = stacks.split_off(class.hot_limit());
        stacks.into_iter().for_each(|stack| pool.put(stack, None));
        pool.trim();
        for stack in last {
            dirty(&stack);
            pool.put(stack, None);
        }
        pool.trim();
        assert!(pool.idle[class.index()].stacks.len() < class.hot_limit());
        for stack in &pool.idle[class.index()].stacks {
            assert_eq!(resident(stack).0, 0);
        }
    }

    #[test]
    fn trimming_leaves_the_smallest_stacks_alone() {
        let class = Class::for_size(0).unwrap();
        let _reservation = class.reserve().unwrap();
        let mut pool = StackPool::new();
        let stack = pool.take(class).unwrap();
        let top = (stack.base().get() - 8) as *mut u64;
        // SAFETY: the stack is owned and unused.
        unsafe { top.write(7) };
        pool.put(stack, None);
        pool.trim();
        // SAFETY: as above; it was written just now.
        assert_eq!(unsafe { top.read() }, 7);
        assert!(!pool.needs_trim());
    }

    #[test]
    fn a_right_that_was_kept_serves_the_next_coroutine() {
        let class = Class::for_size(3 << 20).unwrap();
        let mut pool = StackPool::new();
        let right = pool.reserve(class).unwrap();
        let stack = pool.take(class).unwrap();
        assert_eq!(class.reserved(), 1);
        pool.put(stack, Some(right));
        assert_eq!(class.reserved(), 1, "kept");
        let right = pool.reserve(class).unwrap();
        assert_eq!(class.reserved(), 1, "used again");
        let another = pool.reserve(class).unwrap();
        assert_eq!(class.reserved(), 2);
        let stacks = [(); 2].map(|()| pool.take(class).unwrap());
        for (stack, right) in stacks.into_iter().zip([right, another]) {
            pool.put(stack, Some(right));
        }
        drop(pool);
        assert_eq!(class.reserved(), 0);
    }
}
