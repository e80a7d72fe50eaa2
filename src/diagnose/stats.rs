//! What can be told about the coroutines of this process.

use crate::coroutine;
use crate::task;

/// Looks at all stacks of this process, for how deep they were used.
///
/// Nothing is counted while coroutines run. This asks the kernel which pages of stacks have memory
/// behind them, which keeps the calling thread for a microsecond or more for each stack there is:
/// with a hundred thousand, for some 200 ms. Of those whose memory has been given back, that was
/// asked before.
///
/// ```
/// greenroom::spawn(|| drop(std::hint::black_box([1_u8; 50_000]))).join().unwrap();
/// let used = greenroom::stats().stack_hwm;
/// assert!(used >= 50_000);
/// assert!(used <= 256 << 10);
/// ```
#[must_use]
pub fn stats() -> Stats {
    // The slots are listed under the locks of their classes.
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
    }
}

/// What is known about the coroutines of this process, those of all its runtimes. See [`stats`].
///
/// # What a high-water mark is exact to
///
/// It is a whole number of pages, and never less than what was used of a stack: more by up to a
/// page, and by up to 1 KiB for which the top of a stack is shifted. It is that of all coroutines
/// that there have been, those that wait and those that have ended too; a process that was forked
/// starts with its parent's.
///
/// A page counts once it was written to or read. Rust touches every page of its frames; C may leave
/// some out, and what lies below those is then only sure to be found while it is on a stack whose
/// memory has not been given back. Not seen are pages that are swapped out when they are looked at.
/// In memory that is locked by `mlockall`, without `MCL_ONFAULT`, every stack seems used to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The most bytes of stack that any coroutine has used: the high-water mark.
    ///
    /// The main coroutine of [`run`](crate::run) counts, whose stack is larger than others: see
    /// [`stacks`](Stats::stacks) for each size.
    pub stack_hwm: usize,
    /// The stacks by their size, smallest first; of sizes that have been used.
    pub stacks: Vec<StackStats>,
}

/// What is known about all stacks of one size. See [`Stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackStats {
    /// How many bytes a coroutine can use of each: a power of two.
    pub size: usize,
    /// How many have ever been used: about as many as there were coroutines that had started and not
    /// finished, at the most. They are used again and never unmapped.
    pub count: usize,
    /// How many bytes of memory they occupy together, those that are kept for the next coroutines
    /// included.
    pub resident: usize,
    /// The most bytes that any coroutine has used of one: the high-water mark.
    pub hwm: usize,
}
