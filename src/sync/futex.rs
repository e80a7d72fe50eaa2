//! Waiting at an address, like Linux's futex. The locks are made of this.
//!
//! Coroutines and OS threads wait in one queue, and are woken in the order in which they came.
//!
//! ```
//! use greenroom::sync::futex;
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! static READY: AtomicU32 = AtomicU32::new(0);
//!
//! let waiter = greenroom::spawn(|| {
//!     while READY.load(Ordering::Acquire) == 0 {
//!         futex::wait(&READY, 0, None);
//!     }
//! });
//! READY.store(1, Ordering::Release);
//! futex::wake(&READY, 1);
//! waiter.join().unwrap();
//! ```

use std::cell::{Cell, RefCell};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::attempt::Patience;
use super::lot::{
    BUCKET_BITS, Bucket, BucketState, LockedBucket, LotKey, LotNode, LotQueue, LotWaiter,
};
use crate::fatal;
use crate::park::several::Arm;
use crate::sys::fork::{self, HeldOverFork};
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Current, Suspension, Task};

pub(super) use crate::task::{Awaited, Awaiting, Awaits, Deadline, Holder, Reason, Waiting};

/// How long to wait for a lock that is reserved for a waiter that does not run, because another
/// coroutine of its worker computes.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// How long an OS thread sleeps between two looks at a lock, while it cannot be woken.
const NAP: Duration = Duration::from_micros(50);

/// How a [`wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A [`wake`] ended the wait. May be spurious when a runtime ends: if a coroutine was woken that will
    /// never run again, others are woken in its place.
    Woken,
    /// The word did not have the expected value.
    Changed,
    /// The deadline passed.
    TimedOut,
}

/// Waits until [`wake`] is called for `word`, or until `deadline`. Returns at once if the value of
/// `word` is not `expected`.
///
/// The look at the word and the start of the wait are one step for wakers: a thread that changes the
/// word first, and then wakes, wakes every waiter that saw the old value.
///
/// # Unwinding
///
/// Not an interruption point.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Waited {
    let unchanged = || word.load(Ordering::SeqCst) == expected;
    wait_while(word, deadline, unchanged, || {})
}

/// Waits until [`wake_at`] is called for the address of `word`, whose value does not matter, or until `deadline`.
///
/// Does not wait if `still` returns false, which is called under the lock of the queue. Calls `queued` once the
/// caller can be woken. Neither must unwind.
pub(crate) fn wait_while(
    word: &AtomicU32,
    deadline: Option<Instant>,
    still: impl FnOnce() -> bool,
    queued: impl FnOnce(),
) -> Waited {
    let deadline = deadline.map(Deadline::at);
    let request = WaitRequest {
        deadline: deadline.as_ref(),
        ..WaitRequest::default()
    };
    match park(
        word,
        Awaiting::object(Reason::Futex, word),
        request,
        still,
        queued,
    ) {
        Parked::Woken(_) => Waited::Woken,
        Parked::Changed => Waited::Changed,
        Parked::TimedOut => Waited::TimedOut,
    }
}

/// Wakes at most `n` waiters of `word`, the longest waiting first. Returns how many it woke.
pub fn wake(word: &AtomicU32, n: usize) -> usize {
    with_waiters(word, |queue| wake_first(queue, n))
}

/// Like [`wake`], for the address of a word that may not exist any more.
///
/// A thread that forks has the locks of all buckets. If a function that it calls then wakes, that is made up for after
/// the fork: all waiters are woken, and this returns none.
pub(crate) fn wake_at(address: usize, n: usize) -> usize {
    if FORKING.get() != Forking::No {
        FORKING.set(Forking::HasWoken);
        return 0;
    }
    let key = LotKey::of(std::ptr::without_provenance::<AtomicU32>(address));
    bucket(key).wake(key, |queue| wake_first(queue, n))
}

fn wake_first(queue: &mut LotQueue<'_, Waiting>, n: usize) -> usize {
    (0..n).take_while(|_| queue.wake_first().is_some()).count()
}

/// How to wait.
#[derive(Clone, Copy, Default)]
pub(super) struct WaitRequest<'a> {
    /// A number for the waker to read.
    pub(super) note: u32,
    /// Whether to queue before the waiters that are there already.
    pub(super) in_front: bool,
    /// The coroutine or thread that must run for the wait to end, if it is known.
    pub(super) holder: Option<Holder>,
    /// By reference, so that a wait which does not need it does not copy it.
    pub(super) deadline: Option<&'a Deadline>,
}

/// How a [`park`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parked {
    /// The caller was woken. The number is what the waker told it.
    Woken(u32),
    /// There was nothing to wait for.
    Changed,
    TimedOut,
}

/// Waits at `address`, for `awaiting`. Does not wait if `still`, called under the lock of the queue, returns false.
/// Calls `queued` once the caller can be woken, before it is suspended. Does not unwind.
///
/// The allocator of a thread's first wait cannot be woken. For that caller this calls `queued` without
/// `still`, sleeps for a moment, and returns `Changed`.
///
/// `still` and `queued` must not unwind either. Inlined, because it suspends: see [`Task::suspend`].
#[inline(always)]
pub(super) fn park(
    address: &AtomicU32,
    awaiting: Awaiting<'_>,
    request: WaitRequest<'_>,
    still: impl FnOnce() -> bool,
    queued: impl FnOnce(),
) -> Parked {
    let key = LotKey::of(address);
    let bucket = bucket(key);
    let node = LotNode::new(key, request.note, Holder::owner_of_caller());
    // A caller that keeps its worker to itself goes first: the waiters before it may be of the same
    // worker, which runs none of them before this wait is over.
    let in_front = request.in_front || waits_alone(request.holder);
    refuse_own_coroutine(request);
    // Before the lock of the bucket is taken: for an OS thread's first wait this allocates.
    let Some(task) = Current::try_get() else {
        // This is the allocator, called to allocate the task of this thread. It cannot be woken, so it
        // looks again after a nap. What it would unlock when it is queued must be unlocked for that.
        queued();
        thread::sleep(NAP);
        return Parked::Changed;
    };
    let mut begun = None;
    let begin = || {
        let seq = task.word.begin(Kind::Plain);
        let seq = seq.unwrap_or_else(|_| unreachable!("nothing interrupts a plain wait"));
        begun = Some(seq);
        Waiting::new(&task, seq)
    };
    // SAFETY: the node is new, and does not move. It has left the bucket when this function returns:
    // either the outcome is `Woken`, or `leave` is called below. Nothing unwinds before. The wait
    // points to the task, which `task` keeps alive as long.
    unsafe { bucket.enter(&node, in_front, || still().then(begin)) };
    let Some(seq) = begun else {
        return Parked::Changed;
    };
    queued();
    // For `pass_on_wake`, in case this task is left behind while it is suspended.
    task.futex.store(key.bucket() as u16 + 1, Ordering::Relaxed);
    let suspension = Suspension::new(awaiting);
    let outcome = task.suspend(seq, &suspension, request.deadline);
    task.futex.store(0, Ordering::Relaxed);
    if outcome == Outcome::Woken {
        return Parked::Woken(node.token());
    }
    debug_assert_eq!(outcome, Outcome::TimedOut, "nothing interrupts such a wait");
    bucket.leave(&node);
    Parked::TimedOut
}

/// A wake-up at an address, as one of several things that a task waits for. See `park/several.rs`.
pub(crate) struct FutexArm<'a> {
    word: &'a AtomicU32,
    expected: u32,
    /// Made anew for each wait. `None` before the first one.
    node: RefCell<Option<LotNode<Waiting>>>,
    /// The wake-up has come, or the word has changed.
    waited: Cell<Option<Waited>>,
}

impl<'a> FutexArm<'a> {
    pub(crate) fn new(word: &'a AtomicU32, expected: u32) -> FutexArm<'a> {
        FutexArm {
            word,
            expected,
            node: RefCell::new(None),
            waited: Cell::new(None),
        }
    }

    /// How the wait has ended, if the arm was completed.
    pub(crate) fn take(&self) -> Option<Waited> {
        self.waited.take()
    }

    fn bucket(&self) -> &'static Bucket<Waiting> {
        bucket(LotKey::of(self.word))
    }
}

impl Arm for FutexArm<'_> {
    fn try_complete(&self) -> bool {
        let has_changed = self.word.load(Ordering::SeqCst) != self.expected;
        if has_changed {
            self.waited.set(Some(Waited::Changed));
        }
        has_changed
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        let node = LotNode::new(LotKey::of(self.word), 0, Holder::owner_of_caller());
        *self.node.borrow_mut() = Some(node);
        let node = self.node.borrow();
        let node = node.as_ref().expect("made above");
        let unchanged = || self.word.load(Ordering::SeqCst) == self.expected;
        // SAFETY: the node is new. The caller promises that this arm does not move, and that the task lives,
        // before `leave` has been called. Until then the cell is not changed.
        unsafe {
            self.bucket()
                .enter(node, false, || unchanged().then_some(waiting))
        }
    }

    fn leave(&self) -> bool {
        let node = self.node.borrow();
        let node = node.as_ref().expect("`enqueue` has made it");
        if node.is_woken() {
            self.waited.set(Some(Waited::Woken));
            return true;
        }
        self.bucket().leave(node);
        false
    }

    fn describe(&self) -> Awaits {
        Awaits::of(Reason::Futex, self.word)
    }
}

/// Calls `f` with the waiters of `address`, under the lock of their queue. Schedules those that `f` woke
/// after the lock is released.
pub(super) fn with_waiters<R>(
    address: &AtomicU32,
    f: impl FnOnce(&mut LotQueue<'_, Waiting>) -> R,
) -> R {
    let key = LotKey::of(address);
    bucket(key).wake(key, f)
}

/// Passes on a wake-up that `task` got here, if it was suspended for the last time. A lock may rely on
/// what a waiter does after it was woken, so all waiters of the bucket are woken to look again.
pub(crate) fn pass_on_wake(task: &Task) {
    let bucket = task.futex.load(Ordering::Relaxed);
    if bucket != 0 && task.word.outcome() == Outcome::Woken {
        BUCKETS[usize::from(bucket) - 1].0.wake_all();
    }
}

/// How long to wait for a lock that nobody has and that is reserved for `holder`. `was_woken` is whether
/// the caller has been woken for the lock before.
#[inline]
pub(super) fn patience(holder: Option<Holder>, was_woken: bool) -> Patience {
    if !holder.is_some_and(Holder::is_here) {
        return Patience::Short;
    }
    let holder_cannot_run =
        !task::on_coroutine() || thread::panicking() && Current::get().waits_alone();
    if holder_cannot_run {
        return Patience::Over;
    }
    // The holder was woken, so it is in the queue of this worker, and runs before the caller does
    // again. There are two exceptions: if the caller was woken too, the order of the two in that queue
    // is not known; and if the runtime ends, the holder may have been left behind.
    if was_woken || task::is_runtime_stopping() {
        Patience::Short
    } else {
        Patience::Unlimited
    }
}

/// Aborts if the caller is a worker, outside of its coroutines, and is about to wait without a deadline for `holder`,
/// which is one of them. That coroutine does not run before the wait is over.
#[inline]
fn refuse_own_coroutine(request: WaitRequest<'_>) {
    if request.deadline.is_none()
        && !task::on_coroutine()
        && request.holder.is_some_and(Holder::is_here)
    {
        // The holder has the lock: outside of coroutines, `patience` waits for no reservation of this worker.
        //
        // Without memory, because the lock may be that of the global allocator.
        fatal::abort_amid_allocation(
            "a worker waits for a lock that one of its own coroutines holds, which cannot run meanwhile: a global \
             allocator must not wait for a lock while it holds another, and a hook must not wait for a coroutine",
        );
    }
}

/// The deadline of a wait with [`Patience::Short`].
pub(super) fn short_deadline() -> Option<Deadline> {
    Deadline::after(SHORT_WAIT)
}

/// Whether the caller unwinds, so that its worker runs no other coroutine while the caller waits.
///
/// Aborts if that would be a deadlock, because `holder` is another coroutine of the worker.
#[inline]
fn waits_alone(holder: Option<Holder>) -> bool {
    thread::panicking() && task::on_coroutine() && waits_alone_amid_panic(holder)
}

#[cold]
fn waits_alone_amid_panic(holder: Option<Holder>) -> bool {
    let task = Current::get();
    let alone = task.waits_alone();
    if alone && let Some(slot) = holder.and_then(Holder::slot_here) {
        task.refuse_deadlock(slot);
    }
    alone
}

impl LotWaiter for Waiting {
    unsafe fn end(self) -> bool {
        // SAFETY: the caller says that the waiter has not left the frame of `park`, in which its task
        // stays alive.
        unsafe { Waiting::end(self) }.is_some()
    }

    unsafe fn runs_at_once(self) -> bool {
        // SAFETY: the caller has ended the wait and not scheduled the task, which stays alive until
        // then.
        unsafe { Waiting::runs_at_once(self) }
    }

    unsafe fn schedule(self) {
        // SAFETY: the caller has ended the wait, and schedules the task only here.
        unsafe { self.ended() }.schedule();
    }
}

/// Whether `address` is in a lock of this module's own.
pub(crate) fn is_own_lock(address: usize) -> bool {
    (&raw const BUCKETS).addr() <= address
        && address < (&raw const BUCKETS).addr() + size_of_val(&BUCKETS)
}

const BUCKET_COUNT: usize = 1 << BUCKET_BITS;

/// A bucket alone in its cache line, so that threads that use different buckets do not disturb each
/// other.
#[repr(align(64))]
struct AlignedBucket(Bucket<Waiting>);

static BUCKETS: [AlignedBucket; BUCKET_COUNT] =
    [const { AlignedBucket(Bucket::new(Mutex::new(BucketState::new()))) }; BUCKET_COUNT];

fn bucket(key: LotKey) -> &'static Bucket<Waiting> {
    static SET_UP: AtomicBool = AtomicBool::new(false);
    // The load is cheap; the swap lets one thread set up.
    if !SET_UP.load(Ordering::Relaxed) && !SET_UP.swap(true, Ordering::Relaxed) {
        lock_buckets_over_forks();
    }
    &BUCKETS[key.bucket()].0
}

/// Sets up that a thread that forks holds the locks of all buckets meanwhile.
///
/// Otherwise another thread could hold one at that moment. That thread does not exist in the child, so
/// the bucket would stay locked there, and with it each lock of the child that uses the bucket. std's
/// locks work in a forked child; so do the shims'.
#[cold]
fn lock_buckets_over_forks() {
    // If there is no memory for this, a child that was forked at a bad moment has a locked bucket.
    //
    // SAFETY: `in_child` is async-signal-safe. It writes memory that the locks guard, which this thread
    // holds, and unlocks them, which takes atomic operations and futex calls.
    let _ = unsafe { fork::at_fork(before_fork, in_parent, in_child) };
}

/// The locks of all buckets, while a thread forks.
static BUCKET_LOCKS: HeldOverFork<[LockedBucket<'static, Waiting>; BUCKET_COUNT]> =
    HeldOverFork::new();

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forking {
    No,
    Yes,
    /// It forks, and has woken waiters meanwhile.
    HasWoken,
}

thread_local! {
    /// Whether the calling thread has all locks of buckets.
    static FORKING: Cell<Forking> = const { Cell::new(Forking::No) };
}

unsafe extern "C" fn before_fork() {
    // Always in the order of the table. No other code holds two locks of buckets at once, so this
    // cannot deadlock.
    let locked = std::array::from_fn(|n| BUCKETS[n].0.lock());
    // SAFETY: these are always the guards of the same locks, those of `BUCKETS`.
    unsafe { BUCKET_LOCKS.keep(locked) };
    FORKING.set(Forking::Yes);
}

unsafe extern "C" fn in_parent() {
    // SAFETY: this is the thread that called `before_fork`.
    drop(unsafe { BUCKET_LOCKS.take() });
    if FORKING.replace(Forking::No) == Forking::HasWoken {
        BUCKETS.iter().for_each(|bucket| bucket.0.wake_all());
    }
}

unsafe extern "C" fn in_child() {
    // SAFETY: this is the copy, in the child, of the thread that called `before_fork`.
    if let Some(locked) = unsafe { BUCKET_LOCKS.take() } {
        // The waiters wait in the parent.
        locked.iter().for_each(LockedBucket::forget_all);
    }
    FORKING.set(Forking::No);
}
