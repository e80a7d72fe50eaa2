//! The interface of parking_lot_core 0.9 and 0.10, on greenroom's futex: waiting parks the coroutine.
//!
//! `cargo greenroom` compiles this file instead of the crate's own source, which waits by a system call. So
//! parking_lot, and other crates that are built on parking_lot_core, serve coroutines and OS threads in any
//! mix.
//!
//! A bucket is a queue of waiters under a lock of the shims. A waiter waits until its own word changes, once
//! in each call of `park`. Queues are linked through the waiters, so that nothing is allocated or freed while a
//! bucket is locked: the caller may be a global allocator that uses these locks.

#![forbid(unsafe_op_in_unsafe_fn)]

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use greenroom::sync::futex;

/// The result of a call of [`park`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ParkResult {
    /// The caller was unparked, with this token.
    Unparked(UnparkToken),
    /// `validate` has returned false.
    Invalid,
    /// The timeout has passed.
    TimedOut,
}

impl ParkResult {
    /// Whether the caller was unparked.
    #[inline]
    pub const fn is_unparked(self) -> bool {
        matches!(self, ParkResult::Unparked(_))
    }
}

/// What a call that unparks has done.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub struct UnparkResult {
    /// How many threads were unparked.
    pub unparked_threads: usize,
    /// How many threads were moved to the other queue.
    pub requeued_threads: usize,
    /// Whether threads are left that are parked with the same key.
    pub have_more_threads: bool,
    /// True now and then. A lock should then be handed over to the unparked thread, so that none starves.
    pub be_fair: bool,
    _sealed: (),
}

/// What [`unpark_requeue`] is to do.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RequeueOp {
    /// Nothing.
    Abort,
    /// Unpark one thread, and move the rest.
    UnparkOneRequeueRest,
    /// Move all threads.
    RequeueAll,
    /// Unpark one thread, and leave the rest.
    UnparkOne,
    /// Move one thread, and leave the rest.
    RequeueOne,
}

/// What [`unpark_filter`] is to do with a thread.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum FilterOp {
    /// Unpark it, and go on.
    Unpark,
    /// Leave it, and go on.
    Skip,
    /// Leave it and all that follow.
    Stop,
}

/// A value that the unparker passes to the unparked thread.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct UnparkToken(pub usize);

/// A value that a parked thread shows to unparkers.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ParkToken(pub usize);

/// The token to use where none is needed.
pub const DEFAULT_UNPARK_TOKEN: UnparkToken = UnparkToken(0);

/// The token to use where none is needed.
pub const DEFAULT_PARK_TOKEN: ParkToken = ParkToken(0);

const PARKED: u32 = 0; // in a queue
const UNPARKED: u32 = 1; // taken out of its queue by an unparker

/// A thread or coroutine that parks. Each has one of these for all its calls, because it is in one call of
/// `park` at a time.
struct Waiter {
    word: AtomicU32,
    /// Changed under the lock of the waiter's bucket. If the waiter moves to another bucket, under both locks.
    key: AtomicUsize,
    park_token: AtomicUsize,
    unpark_token: AtomicUsize,
    /// The next in the queue. Locked under the lock of the bucket, so never contended.
    next: Mutex<Option<Arc<Waiter>>>,
}

thread_local! {
    static WAITER: Arc<Waiter> = Arc::new(Waiter::new());
}

impl Waiter {
    fn new() -> Waiter {
        Waiter {
            word: AtomicU32::new(PARKED),
            key: AtomicUsize::new(0),
            park_token: AtomicUsize::new(0),
            unpark_token: AtomicUsize::new(0),
            next: Mutex::new(None),
        }
    }

    /// The caller's waiter. If the caller's thread-locals are gone, a new one, which serves as well.
    fn current() -> Arc<Waiter> {
        WAITER
            .try_with(Arc::clone)
            .unwrap_or_else(|_| Arc::new(Waiter::new()))
    }

    fn key(&self) -> usize {
        self.key.load(Ordering::Relaxed)
    }

    fn next(&self) -> MutexGuard<'_, Option<Arc<Waiter>>> {
        lock(&self.next)
    }

    fn is_unparked(&self) -> bool {
        self.word.load(Ordering::Acquire) == UNPARKED
    }

    fn unpark_token(&self) -> UnparkToken {
        UnparkToken(self.unpark_token.load(Ordering::Relaxed))
    }
}

/// A queue of waiters, linked through them.
struct Queue {
    first: Option<Arc<Waiter>>,
    last: Option<Arc<Waiter>>,
}

impl Queue {
    const fn new() -> Queue {
        Queue {
            first: None,
            last: None,
        }
    }

    fn push(&mut self, waiter: Arc<Waiter>) {
        match self.last.replace(Arc::clone(&waiter)) {
            Some(last) => *last.next() = Some(waiter),
            None => self.first = Some(waiter),
        }
    }

    fn pop(&mut self) -> Option<Arc<Waiter>> {
        let first = self.first.take()?;
        self.first = first.next().take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(first)
    }

    /// Calls `choose` with each waiter, from the first to the last. Moves the chosen ones out of this queue,
    /// in their order, into the one that is returned.
    fn take(&mut self, mut choose: impl FnMut(&Arc<Waiter>) -> Choice) -> Queue {
        let mut taken = Queue::new();
        let mut kept = Queue::new();
        while let Some(waiter) = self.pop() {
            match choose(&waiter) {
                Choice::Take => taken.push(waiter),
                Choice::Keep => kept.push(waiter),
                Choice::Stop => {
                    kept.push(waiter);
                    kept.append(self);
                }
            }
        }
        *self = kept;
        taken
    }

    /// Moves all of `other` to the end of this one.
    fn append(&mut self, other: &mut Queue) {
        let Some(first) = other.first.take() else {
            return;
        };
        match &self.last {
            Some(last) => *last.next() = Some(first),
            None => self.first = Some(first),
        }
        self.last = other.last.take();
    }

    fn has(&self, key: usize) -> bool {
        let mut at = self.first.clone();
        while let Some(waiter) = at {
            if waiter.key() == key {
                return true;
            }
            at = waiter.next().clone();
        }
        false
    }

    /// Wakes all waiters of this queue, which has been taken out of its bucket.
    fn unpark(mut self) {
        while let Some(waiter) = self.pop() {
            waiter.word.store(UNPARKED, Ordering::Release);
            futex::wake(&waiter.word, 1);
        }
    }
}

/// What [`Queue::take`] does with a waiter.
enum Choice {
    Take,
    Keep,
    /// Keeps the waiter and all after it.
    Stop,
}

/// The waiters of all keys with the same index.
struct Bucket {
    queue: Queue,
    /// When the next unlock is to be fair.
    fair_at: Option<Instant>,
    /// The state of a xorshift generator.
    random: u32,
}

impl Bucket {
    const fn new() -> Bucket {
        Bucket {
            queue: Queue::new(),
            fair_at: None,
            random: 0x9e37_79b9,
        }
    }

    /// Whether this unlock is to be fair. About one unlock in half a millisecond is. The moments are random,
    /// so that they do not coincide with a rhythm of the program.
    fn is_time_to_be_fair(&mut self) -> bool {
        let now = Instant::now();
        let is_time = self.fair_at.is_some_and(|at| at <= now);
        if is_time || self.fair_at.is_none() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            self.fair_at = Some(now + Duration::from_nanos(u64::from(self.random % 1_000_000)));
        }
        is_time
    }
}

const BUCKETS: usize = 256;

static TABLE: [Mutex<Bucket>; BUCKETS] = [const { Mutex::new(Bucket::new()) }; BUCKETS];

fn index_of(key: usize) -> usize {
    // Fibonacci hashing. The factor is 2^64 divided by the golden ratio. The upper bits of the product
    // depend on all bits of the key.
    ((key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_bucket(key: usize) -> MutexGuard<'static, Bucket> {
    lock(&TABLE[index_of(key)])
}

/// Locks the bucket that `waiter` is in. Tries again if the waiter was moved to another bucket meanwhile.
fn lock_bucket_of(waiter: &Waiter) -> MutexGuard<'static, Bucket> {
    loop {
        let key = waiter.key();
        let bucket = lock_bucket(key);
        if waiter.key() == key {
            return bucket;
        }
    }
}

/// Parks the caller in the queue of `key`, if `validate` returns true.
///
/// # Safety
///
/// `key` is an address that the caller controls. `validate` and `timed_out` are called under the lock of
/// the queue, and must neither panic nor call into this crate; nor must `before_sleep` panic.
pub unsafe fn park(
    key: usize,
    validate: impl FnOnce() -> bool,
    before_sleep: impl FnOnce(),
    timed_out: impl FnOnce(usize, bool),
    park_token: ParkToken,
    timeout: Option<Instant>,
) -> ParkResult {
    let waiter = Waiter::current();
    {
        let mut bucket = lock_bucket(key);
        if !validate() {
            return ParkResult::Invalid;
        }
        waiter.word.store(PARKED, Ordering::Relaxed);
        waiter.key.store(key, Ordering::Relaxed);
        waiter.park_token.store(park_token.0, Ordering::Relaxed);
        bucket.queue.push(Arc::clone(&waiter));
    }
    before_sleep();
    while !waiter.is_unparked() {
        if futex::wait(&waiter.word, PARKED, timeout) != futex::Waited::TimedOut {
            continue;
        }
        let mut bucket = lock_bucket_of(&waiter);
        let own = bucket.queue.take(|other| match Arc::ptr_eq(other, &waiter) {
            true => Choice::Take,
            false => Choice::Keep,
        });
        if own.first.is_none() {
            // An unparker has taken the waiter out of its queue, and is about to change the word.
            drop(bucket);
            while !waiter.is_unparked() {
                futex::wait(&waiter.word, PARKED, None);
            }
            break;
        }
        let key = waiter.key();
        timed_out(key, !bucket.queue.has(key));
        return ParkResult::TimedOut;
    }
    ParkResult::Unparked(waiter.unpark_token())
}

/// Gives `token` to all waiters of a queue.
fn give_token(queue: &Queue, token: UnparkToken) {
    let mut at = queue.first.clone();
    while let Some(waiter) = at {
        waiter.unpark_token.store(token.0, Ordering::Relaxed);
        at = waiter.next().clone();
    }
}

/// Unparks the thread that has waited for `key` the longest. Calls `callback` with the result, under the lock
/// of the queue.
///
/// # Safety
///
/// `key` is an address that the caller controls. `callback` must neither panic nor call into this crate.
pub unsafe fn unpark_one(
    key: usize,
    callback: impl FnOnce(UnparkResult) -> UnparkToken,
) -> UnparkResult {
    let mut found = false;
    let filter = |_| {
        let op = if found { FilterOp::Stop } else { FilterOp::Unpark };
        found = true;
        op
    };
    // SAFETY: the caller's promises for `callback` are those of `unpark_filter`; `filter` keeps them.
    unsafe { unpark_filter(key, filter, callback) }
}

/// Unparks all threads that wait for `key`; returns how many.
///
/// # Safety
///
/// `key` is an address that the caller controls.
pub unsafe fn unpark_all(key: usize, unpark_token: UnparkToken) -> usize {
    // SAFETY: the closures neither panic nor call into this crate.
    let result = unsafe { unpark_filter(key, |_| FilterOp::Unpark, |_| unpark_token) };
    result.unparked_threads
}

/// Moves threads from the queue of `key_from` to that of `key_to`, and unparks one, as `validate` says.
///
/// # Safety
///
/// The keys are addresses that the caller controls. `validate` and `callback` are called under the locks
/// of the queues, and must neither panic nor call into this crate.
pub unsafe fn unpark_requeue(
    key_from: usize,
    key_to: usize,
    validate: impl FnOnce() -> RequeueOp,
    callback: impl FnOnce(RequeueOp, UnparkResult) -> UnparkToken,
) -> UnparkResult {
    let (from, to) = (index_of(key_from), index_of(key_to));
    // Two buckets are always locked in the order of the table, so that two callers cannot deadlock.
    let mut lower = lock(&TABLE[from.min(to)]);
    let mut upper = (from != to).then(|| lock(&TABLE[from.max(to)]));
    let mut result = UnparkResult::default();
    let op = validate();
    if op == RequeueOp::Abort {
        return result;
    }
    let unparks = matches!(op, RequeueOp::UnparkOne | RequeueOp::UnparkOneRequeueRest);
    let requeues = match op {
        RequeueOp::RequeueAll | RequeueOp::UnparkOneRequeueRest => usize::MAX,
        RequeueOp::RequeueOne => 1,
        RequeueOp::UnparkOne | RequeueOp::Abort => 0,
    };
    let bucket = match &mut upper {
        Some(upper) if from > to => &mut *upper,
        _ => &mut lower,
    };
    let most = requeues.saturating_add(usize::from(unparks));
    let mut count = 0;
    let mut moved = bucket.queue.take(|waiter| {
        if waiter.key() != key_from {
            Choice::Keep
        } else if count < most {
            count += 1;
            Choice::Take
        } else {
            Choice::Stop
        }
    });
    result.have_more_threads = bucket.queue.has(key_from);
    let mut unparked = Queue::new();
    if let Some(first) = unparks.then(|| moved.pop()).flatten() {
        unparked.push(first);
        result.unparked_threads = 1;
        result.be_fair = bucket.is_time_to_be_fair();
    }
    let mut at = moved.first.clone();
    while let Some(waiter) = at {
        waiter.key.store(key_to, Ordering::Relaxed);
        result.requeued_threads += 1;
        at = waiter.next().clone();
    }
    let bucket = match &mut upper {
        Some(upper) if to > from => &mut *upper,
        _ => &mut lower,
    };
    bucket.queue.append(&mut moved);
    give_token(&unparked, callback(op, result));
    drop(upper);
    drop(lower);
    unparked.unpark();
    result
}

/// Unparks the threads that wait for `key`, as far as `filter` chooses them. Calls `callback` with the
/// result, and passes its token to all of them.
///
/// # Safety
///
/// `key` is an address that the caller controls. `filter` and `callback` are called under the lock of the
/// queue, and must neither panic nor call into this crate.
pub unsafe fn unpark_filter(
    key: usize,
    mut filter: impl FnMut(ParkToken) -> FilterOp,
    callback: impl FnOnce(UnparkResult) -> UnparkToken,
) -> UnparkResult {
    let mut bucket = lock_bucket(key);
    let mut result = UnparkResult::default();
    let unparked = bucket.queue.take(|waiter| {
        if waiter.key() != key {
            return Choice::Keep;
        }
        match filter(ParkToken(waiter.park_token.load(Ordering::Relaxed))) {
            FilterOp::Unpark => {
                result.unparked_threads += 1;
                Choice::Take
            }
            FilterOp::Skip => {
                result.have_more_threads = true;
                Choice::Keep
            }
            FilterOp::Stop => {
                result.have_more_threads = true;
                Choice::Stop
            }
        }
    });
    if result.unparked_threads > 0 {
        result.be_fair = bucket.is_time_to_be_fair();
    }
    give_token(&unparked, callback(result));
    drop(bucket);
    unparked.unpark();
    result
}

/// Backs off, more with each call.
#[derive(Default)]
pub struct SpinWait {
    calls: u32,
}

impl SpinWait {
    /// Makes a `SpinWait` that has not backed off yet.
    #[inline]
    pub const fn new() -> SpinWait {
        SpinWait { calls: 0 }
    }

    /// Starts anew.
    #[inline]
    pub const fn reset(&mut self) {
        self.calls = 0;
    }

    /// Pauses, and later yields; returns false when it is better to park.
    #[inline]
    pub fn spin(&mut self) -> bool {
        if self.calls >= 10 {
            return false;
        }
        self.calls += 1;
        if self.calls <= 3 {
            pause(1 << self.calls);
        } else {
            std::thread::yield_now();
        }
        true
    }

    /// Pauses.
    #[inline]
    pub fn spin_no_yield(&mut self) {
        self.calls = (self.calls + 1).min(10);
        pause(1 << self.calls);
    }
}

fn pause(times: u32) {
    for _ in 0..times {
        std::hint::spin_loop();
    }
}

/// The detection of deadlocks, which this implementation does not have: it never reports one.
pub mod deadlock {
    /// Notes that the caller holds a lock. Does nothing.
    ///
    /// # Safety
    ///
    /// None is needed.
    #[inline]
    pub unsafe fn acquire_resource(_key: usize) {}

    /// Notes that the caller does not hold a lock any more. Does nothing.
    ///
    /// # Safety
    ///
    /// None is needed.
    #[inline]
    pub unsafe fn release_resource(_key: usize) {}

    #[cfg(feature = "deadlock_detection")]
    mod detection {
        /// A thread in a deadlock. There are none.
        #[derive(Debug)]
        pub enum DeadlockedThread {}

        impl DeadlockedThread {
            /// Its id.
            pub fn thread_id(&self) -> std::thread::ThreadId {
                match *self {}
            }

            /// Where it waits.
            pub fn backtrace(&self) -> &backtrace::Backtrace {
                match *self {}
            }
        }

        /// The deadlocks that have come up: none is looked for.
        pub fn check_deadlock() -> Vec<Vec<DeadlockedThread>> {
            Vec::new()
        }
    }

    #[cfg(feature = "deadlock_detection")]
    pub use detection::{DeadlockedThread, check_deadlock};
}
