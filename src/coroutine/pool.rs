//! The stacks a worker keeps hot.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::stack::{Class, Stack};

/// The most idle stacks of a class that a worker keeps.
pub(super) const HOT_STACKS: usize = 64;

/// The most address space that a worker's idle stacks of a class span.
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
    idle: Vec<Vec<Stack>>,
}

impl StackPool {
    pub(crate) fn new() -> StackPool {
        POOLS.fetch_add(1, Ordering::Relaxed);
        StackPool { idle: Vec::new() }
    }

    /// A stack for a coroutine that holds a reservation of `class`.
    ///
    /// # Errors
    ///
    /// See [`Class::take`].
    pub(crate) fn take(&mut self, class: &'static Class) -> io::Result<Stack> {
        match self.idle.get_mut(class.index()).and_then(Vec::pop) {
            Some(stack) => Ok(stack),
            None => class.take(),
        }
    }

    /// Keeps a stack hot, or gives half of the class's hot stacks back where that is too many.
    pub(crate) fn put(&mut self, stack: Stack) {
        let class = stack.class();
        if self.idle.len() <= class.index() {
            self.idle.resize_with(class.index() + 1, Vec::new);
        }
        let idle = &mut self.idle[class.index()];
        if idle.len() == class.hot_limit() {
            class.put(idle.drain(..idle.len().div_ceil(2)));
        }
        idle.push(stack);
    }
}

impl Drop for StackPool {
    fn drop(&mut self) {
        for idle in self.idle.drain(..) {
            if let Some(class) = idle.first().map(Stack::class) {
                class.put(idle);
            }
        }
        POOLS.fetch_sub(1, Ordering::Relaxed);
    }
}
