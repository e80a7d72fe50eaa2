//! The raw reentrant lock: a mutex that its holder may lock again, without the data.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::futex::Holder;
use super::mutex::Mutex;
use crate::task::{self, Current};

/// The owner of a lock that nobody holds.
const NOBODY: u64 = 0;

/// A raw reentrant lock. The holder is a coroutine, or an OS thread outside of coroutines: coroutines
/// of the same worker exclude each other.
#[derive(Debug)]
pub(crate) struct ReentrantLock {
    mutex: Mutex,
    /// The [`caller`] number of the holder. Each number is stored and removed on one thread, the one
    /// that its coroutine is pinned to. So a caller that finds its own number here holds the lock, and
    /// relaxed accesses are enough.
    owner: AtomicU64,
    /// How many times the holder has locked. Used only on the holder's thread.
    depth: AtomicU32,
}

/// The result of a [`lock`](ReentrantLock::lock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReentrantLocked {
    /// The caller has the lock.
    Held,
    /// The caller does not have the lock, and waiting would be a deadlock: the caller unwinds, so its
    /// worker runs nothing else meanwhile, and the holder is another coroutine of that worker.
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
    /// If the caller has locked this `u32::MAX` times.
    pub(crate) fn lock(&self) -> ReentrantLocked {
        if self.lock_again() {
            return ReentrantLocked::Held;
        }
        if !self.mutex.try_lock() {
            if keeps_its_worker() && self.is_held_on_this_worker() {
                return ReentrantLocked::Refused;
            }
            self.mutex.lock();
        }
        self.begin_to_own();
        ReentrantLocked::Held
    }

    /// Locks, unless another coroutine or thread holds the lock. Returns whether the caller holds it
    /// now.
    ///
    /// # Panics
    ///
    /// If the caller has locked this `u32::MAX` times.
    pub(crate) fn try_lock(&self) -> bool {
        if self.lock_again() {
            return true;
        }
        let locked = self.mutex.try_lock();
        if locked {
            self.begin_to_own();
        }
        locked
    }

    /// # Safety
    ///
    /// The lock was locked on this thread, and this is called once for each time.
    pub(crate) unsafe fn unlock(&self) {
        let depth = self.depth.load(Ordering::Relaxed) - 1;
        self.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            self.owner.store(NOBODY, Ordering::Relaxed);
            // SAFETY: the holder has locked the mutex once, with its first lock. This undoes its last
            // one, so the mutex is still locked and is unlocked only here.
            unsafe { self.mutex.unlock() };
        }
    }

    /// Whether the holder is a coroutine of the calling worker. The answer stays true for as long as the
    /// caller keeps the worker to itself.
    fn is_held_on_this_worker(&self) -> bool {
        self.mutex.holder().is_some_and(Holder::is_here)
    }

    /// Notes that the caller, which has just locked the mutex, is the holder.
    fn begin_to_own(&self) {
        self.owner.store(caller(), Ordering::Relaxed);
        self.depth.store(1, Ordering::Relaxed);
    }

    /// Locks once more if the caller is the holder; returns whether it is.
    fn lock_again(&self) -> bool {
        let is_holder = self.owner.load(Ordering::Relaxed) == caller();
        if is_holder {
            let depth = self.depth.load(Ordering::Relaxed).checked_add(1);
            let depth = depth.expect("lock count overflow in reentrant lock");
            self.depth.store(depth, Ordering::Relaxed);
        }
        is_holder
    }
}

/// Whether the caller's worker would run no other coroutine while the caller waits.
fn keeps_its_worker() -> bool {
    task::is_unwinding() && task::on_coroutine() && Current::get().waits_alone()
}

/// The number of the calling coroutine or OS thread. No other ever has the same. Never [`NOBODY`],
/// since ids and numbers of threads count from 1.
fn caller() -> u64 {
    task::with_running(|task| match task {
        Some(task) => task.id().get() << 1,
        None => thread_number() << 1 | 1,
    })
}

/// The number of the calling OS thread. Also works while the thread's destructors run: the thread-local
/// has none of its own.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}
