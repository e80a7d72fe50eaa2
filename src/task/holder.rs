//! The holder of a lock, as a number that fits into the few spare bits of the lock's word.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A holder of a lock. A coroutine is known by the number of its worker and its slot there. All other
/// holders share one number.
///
/// The number fits into [`BITS`](Holder::BITS) bits, and is not zero. After a coroutine has ended, another
/// one of the same worker may get its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u32);

/// The low bits of a holder: the slot. The bits above are the number of the worker.
const SLOT_BITS: u32 = 20;

/// The numbers that a worker can have are those below this, except for zero, which stands for no worker.
const WORKERS: usize = 512;

thread_local! {
    /// The number of the worker that this thread drives, above the bits of a slot. Zero for none.
    static WORKER: Cell<u32> = const { Cell::new(0) };
}

impl Holder {
    /// How many bits the number of a holder needs.
    pub(crate) const BITS: u32 = SLOT_BITS + WORKERS.ilog2();

    /// An OS thread, or a coroutine with too large a slot or on a worker without a number. No coroutine has
    /// this number: its bits for the worker are zero.
    const ANYBODY: Holder = Holder(1);

    /// The caller.
    #[inline]
    pub(crate) fn current() -> Holder {
        super::with_running(|task| match (task, WORKER.get()) {
            (None, _) | (_, 0) => Holder::ANYBODY,
            (Some(task), worker) => match task.slot() {
                slot if slot >> SLOT_BITS == 0 => Holder(worker | slot),
                _ => Holder::ANYBODY,
            },
        })
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The holder with this number.
    ///
    /// # Panics
    ///
    /// If no holder has such a number.
    pub(crate) fn of_number(number: u32) -> Holder {
        assert!(number != 0 && number >> Holder::BITS == 0);
        Holder(number)
    }

    /// A number for the worker of the calling coroutine, different from those of other workers. Zero if
    /// the caller is no coroutine, or its worker has no number.
    #[inline]
    pub(crate) fn owner_of_caller() -> u32 {
        if super::on_coroutine() {
            WORKER.get()
        } else {
            0
        }
    }

    /// Whether the holder is a coroutine of the calling thread.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.slot_here().is_some()
    }

    /// The coroutine in `slot` of the worker that the calling thread drives. `None` if no number tells it from
    /// others.
    pub(crate) fn in_slot_here(slot: u32) -> Option<Holder> {
        let worker = WORKER.get();
        (worker != 0 && slot >> SLOT_BITS == 0).then_some(Holder(worker | slot))
    }

    /// The slot of the holder, if it is a coroutine of the calling thread.
    pub(crate) fn slot_here(self) -> Option<u32> {
        let worker = WORKER.get();
        // The bits above the slot are equal here, so XOR leaves the slot.
        let here = worker != 0 && self.0 >> SLOT_BITS == worker >> SLOT_BITS;
        here.then_some(self.0 ^ worker)
    }
}

/// The number of a worker, different from those of all other workers that exist. Zero if there were too
/// many workers to get one.
#[derive(Debug)]
pub(crate) struct WorkerNumber(u32);

/// A bit for each number: whether it is taken. Zero is never given out.
static TAKEN: [AtomicU64; WORKERS / 64] = {
    let mut taken = [const { AtomicU64::new(0) }; WORKERS / 64];
    taken[0] = AtomicU64::new(1);
    taken
};

impl WorkerNumber {
    /// Takes the smallest free number. Zero if there is none.
    pub(crate) fn take() -> WorkerNumber {
        for (index, taken) in TAKEN.iter().enumerate() {
            let first_free = |word: u64| (word != u64::MAX).then(|| word | (word + 1));
            let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, first_free);
            if let Ok(before) = before {
                return WorkerNumber(64 * index as u32 + before.trailing_ones());
            }
        }
        WorkerNumber(0)
    }

    /// Notes that the calling thread drives the worker with this number, from now on.
    pub(crate) fn enter(&self) {
        WORKER.set(self.0 << SLOT_BITS);
    }

    /// Notes that the calling thread drives no worker any more.
    pub(crate) fn leave() {
        WORKER.set(0);
    }

    /// Frees the number for other workers. To be called when the worker has no coroutines any more.
    pub(crate) fn give_back(&self) {
        if self.0 != 0 {
            let (index, bit) = (self.0 as usize / 64, self.0 % 64);
            TAKEN[index].fetch_and(!(1 << bit), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_workers_are_told_apart_and_used_again() {
        let numbers: Vec<_> = (0..100).map(|_| WorkerNumber::take()).collect();
        let mut known: Vec<_> = numbers.iter().map(|number| number.0).collect();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known.len(), 100);
        assert!(known[0] > 0);
        numbers.iter().for_each(WorkerNumber::give_back);
        let again = WorkerNumber::take();
        assert!((again.0 as usize) < WORKERS);
        again.give_back();
    }

    #[test]
    fn an_os_thread_is_anybody_and_of_no_worker() {
        assert_eq!(Holder::current(), Holder::ANYBODY);
        assert_eq!(Holder::current().slot_here(), None);
        let worker = WorkerNumber::take();
        worker.enter();
        assert_eq!(Holder::ANYBODY.slot_here(), None);
        let somebody = Holder(worker.0 << SLOT_BITS | 5);
        assert_eq!(somebody.slot_here(), Some(5));
        assert_eq!(Holder::of_number(somebody.number()), somebody);
        WorkerNumber::leave();
        assert_eq!(somebody.slot_here(), None);
        worker.give_back();
    }
}
