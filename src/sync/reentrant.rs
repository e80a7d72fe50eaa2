//! A lock that its holder may lock again, without what it guards.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::mutex::Mutex;
use crate::task::{self, Current};

/// Nobody has the lock.
const NOBODY: u64 = 0;

/// Its holder is a coroutine, or an OS thread off-coroutine: coroutines of one worker keep each other
/// out.
#[derive(Debug)]
pub(crate) struct ReentrantLock {
    mutex: Mutex,
    /// The holder, by its [`caller`] number. A caller that finds its own number here has stored that
    /// itself, and has not unlocked since; so the accesses need no order.
    owner: AtomicU64,
    /// How often the holder has locked it. For the holder alone.
    depth: AtomicU32,
}

/// How a [`lock`](ReentrantLock::lock) came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The caller has the lock.
    Held,
    /// The caller does not have it, and cannot wait for it: the caller unwinds, and so keeps its
    /// worker, which the holder needs to go on.
    Refused,
}

impl ReentrantLock {
    pub(crate) const fn new() -> ReentrantLock {
        ReentrantLock {
            mutex: Mutex::new(),
            owner: AtomicU64::new(NOBODY),
            depth: AtomicU32::new(0),
        }
    }

    /// # Panics
    ///
    /// If the caller has it four billion times.
    ///
    /// # Unwinding
    ///
    /// As [`Mutex::lock`].
    pub(crate) fn lock(&self) -> Entry {
        if self.enter_again() {
            return Entry::Held;
        }
        if !self.mutex.try_lock() {
            if keeps_its_worker() && self.is_held_here() {
                return Entry::Refused;
            }
            self.mutex.lock();
        }
        self.enter();
        Entry::Held
    }

    /// Locks it if no other has it; returns whether the caller has it now.
    pub(crate) fn try_lock(&self) -> bool {
        if self.enter_again() {
            return true;
        }
        let locked = self.mutex.try_lock();
        if locked {
            self.enter();
        }
        locked
    }

    /// # Safety
    ///
    /// It was locked on this thread, and this is called once for each time.
    pub(crate) unsafe fn unlock(&self) {
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            self.owner.store(NOBODY, Ordering::Relaxed);
            // SAFETY: the first of the locks has locked it, and this is the last.
            unsafe { self.mutex.unlock() };
        }
    }

    /// Whether a coroutine of the calling worker has it, which another cannot become before the caller
    /// lets that worker go on.
    fn is_held_here(&self) -> bool {
        let holder = self.mutex.holder();
        holder.is_some_and(|holder| holder.slot_here().is_some())
    }

    fn enter(&self) {
        self.owner.store(caller(), Ordering::Relaxed);
        self.depth.store(1, Ordering::Relaxed);
    }

    fn enter_again(&self) -> bool {
        let is_holder = self.owner.load(Ordering::Relaxed) == caller();
        if is_holder {
            let depth = self.depth.load(Ordering::Relaxed).checked_add(1);
            let depth = depth.expect("lock count overflow in reentrant lock");
            self.depth.store(depth, Ordering::Relaxed);
        }
        is_holder
    }
}

/// Whether no other coroutine of the caller's worker runs while the caller waits.
fn keeps_its_worker() -> bool {
    task::is_unwinding() && task::on_coroutine() && Current::get().waits_alone()
}

/// The number of the calling coroutine or OS thread, which no other has or will have.
fn caller() -> u64 {
    task::with_running(|task| match task {
        Some(task) => task.id().get() << 1,
        None => thread() << 1 | 1,
    })
}

/// The number of the calling OS thread. There at any time, also after the thread's destructors.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}
