//! The depth and the memory of stacks.
#![forbid(unsafe_code)]

use crate::coroutine;
use crate::task;

/// Looks at all stacks of this process, to find how deep coroutines have used them.
///
/// Nothing is counted while coroutines run. Instead, this asks the kernel which pages of each stack have
/// memory behind them. That takes a microsecond or more for each stack, about 200 ms for a hundred
/// thousand stacks, and occupies the calling thread for that long. The runtime asks the same
/// question before it gives the memory of a stack back, and keeps the answer.
///
/// ```
/// greenroom::spawn(|| drop(std::hint::black_box([1_u8; 50_000]))).join().unwrap();
/// let used = greenroom::stats().stack_hwm;
/// assert!(used >= 50_000);
/// assert!(used <= 256 << 10);
/// ```
#[must_use]
pub fn stats() -> Stats {
    // Allocates under the locks of the classes, so the calling coroutine must not be suspended by the
    // allocator. `aside` has a wait in it block the thread instead.
    let stacks: Vec<_> = task::aside(|| {
        let usage = coroutine::usage();
        let stats = usage.map(|usage| StackStats {
            size: usage.size,
            count: usage.stacks,
            resident: usage.resident,
            hwm: usage.deepest,
        });
        stats.collect()
    });
    Stats {
        stack_hwm: stacks.iter().map(|of| of.hwm).max().unwrap_or(0),
        stacks,
        swallowed_interrupts: task::swallowed_interrupts(),
    }
}

/// What is known about the stacks of all runtimes in this process. See [`stats`].
///
/// # How exact a high-water mark is
///
/// A high-water mark is a whole number of pages. It is never less than what was used of the stack. It may
/// be more: by up to a page, and by up to 1 KiB by which the top of the stack is shifted.
///
/// The mark covers all coroutines that have ever run: waiting ones and ended ones, too. A forked process
/// starts with the mark of its parent.
///
/// A page counts once it was read or written. Rust touches every page of its frames. C code may skip
/// pages. A page below a skipped one is found while the stack has its memory. It may be missed after the
/// runtime has given that memory back. Pages that are swapped out at the time of the call are not seen. In
/// memory that was locked by `mlockall` without `MCL_ONFAULT`, every stack seems to be used to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The high-water mark: the most bytes of stack that any coroutine has used.
    ///
    /// This includes the main coroutine of [`run`](crate::run), which has a larger stack than other
    /// coroutines. [`stacks`](Stats::stacks) has the mark of each size.
    pub stack_hwm: usize,
    /// The stacks of each size that has been used, smallest first.
    pub stacks: Vec<StackStats>,
    /// How often coroutines of this process have caught the unwind of a cancellation or a timeout, and then
    /// have come to another interruption point. Such a coroutine does not end as it was asked to.
    pub swallowed_interrupts: u64,
}

/// What is known about all stacks of one size. See [`Stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// The usable bytes of each stack: a power of two.
    pub size: usize,
    /// The number of stacks that have ever been used. This is about the greatest number of coroutines
    /// that had started and not finished at the same time: stacks are reused, and never unmapped.
    pub count: usize,
    /// The bytes of memory that the stacks occupy together, including idle stacks that are kept for the
    /// next coroutines.
    pub resident: usize,
    /// The high-water mark: the most bytes that any coroutine has used of one stack.
    pub hwm: usize,
}
