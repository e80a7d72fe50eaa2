//! Waiting at an address, as Linux's futex does it: what locks are made of.
//!
//! Coroutines and OS threads wait in one queue, first come, first woken.
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

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::attempt::Patience;
use super::lot::{BUCKET_BITS, Bucket, BucketState, Locked, LotKey, Queue, Waiter, WaiterNode};
use crate::sys::fork::{self, HeldOverFork};
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Current, Task};

pub(super) use crate::task::{Deadline, Holder, Waiting};

/// How long a lock is waited for that nobody has, because it is reserved for a waiter which was woken
/// and does not come: its worker computes.
const PATIENCE: Duration = Duration::from_millis(1);

/// Between two looks of a caller that cannot be woken.
const NAP: Duration = Duration::from_micros(50);

/// How a [`wait`] came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A [`wake`] has ended it; or a coroutine was woken that will not run any more, because its runtime has
    /// ended, and others look in its place.
    Woken,
    /// The word did not have the expected value.
    Changed,
    /// The deadline has passed.
    TimedOut,
}

/// Waits until somebody calls [`wake`] for `word`, or until `deadline`; unless `word` is not, or no
/// longer, `expected`.
///
/// No wake-up comes in between that look and the wait. Who changes the word first and then wakes
/// reaches whoever had found it unchanged.
///
/// # Unwinding
///
/// Not an interruption point.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Waited {
    let request = Request {
        deadline: deadline.map(Deadline::at),
        ..Request::default()
    };
    let unchanged = || word.load(Ordering::SeqCst) == expected;
    match park(word, request, unchanged, || {}) {
        Parked::Woken(_) => Waited::Woken,
        Parked::Changed => Waited::Changed,
        Parked::TimedOut => Waited::TimedOut,
    }
}

/// Wakes those that have waited for `word` the longest, `n` at most; returns how many.
pub fn wake(word: &AtomicU32, n: usize) -> usize {
    with_waiters(word, |queue| {
        (0..n).take_while(|_| queue.wake_first().is_some()).count()
    })
}

/// What is to be known of a wait.
#[derive(Clone, Copy, Default)]
pub(super) struct Request {
    /// For the waker.
    pub(super) note: u32,
    /// Before those who wait already.
    pub(super) in_front: bool,
    /// Who must go on for the wait to end, if that is known.
    pub(super) holder: Option<Holder>,
    pub(super) deadline: Option<Deadline>,
}

/// How a wait came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parked {
    /// With what the waker has said.
    Woken(u32),
    /// There was nothing to wait for.
    Changed,
    TimedOut,
}

/// Waits at `address`, unless `still`, called under the lock of its queue, says that there is nothing
/// to wait for. Calls `queued` when the caller can be woken, before it is suspended. It does not unwind.
///
/// Inlined, as what suspends is: see [`Task::suspend`].
#[inline(always)]
pub(super) fn park(
    address: &AtomicU32,
    request: Request,
    still: impl FnOnce() -> bool,
    queued: impl FnOnce(),
) -> Parked {
    let key = LotKey::of(address);
    let bucket = bucket(key);
    let node = WaiterNode::new(key, request.note, Holder::owner_of_caller());
    // Those before it may be of this worker, which runs nobody before this wait is over.
    let in_front = request.in_front || waits_alone(request.holder);
    // Not under the lock of the bucket: of an OS thread that waits for the first time, the task is
    // allocated.
    let Some(task) = Current::try_get() else {
        // The caller is the allocator, called for just that. It looks again in a while.
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
    // SAFETY: the node is new, stays where it is, and is out of the queue when this returns: by the
    // waker, or by `leave`. So does the wait, whose task is there as long as this frame.
    unsafe { bucket.enter(&node, in_front, || still().then(begin)) };
    let Some(seq) = begun else {
        return Parked::Changed;
    };
    queued();
    // Of a task that is left behind; see `pass_on_wake`.
    task.futex.store(key.bucket() as u16 + 1, Ordering::Relaxed);
    task.suspend(seq, request.deadline);
    task.futex.store(0, Ordering::Relaxed);
    let outcome = task.word.outcome();
    if outcome == Outcome::Woken {
        return Parked::Woken(node.token());
    }
    debug_assert_eq!(outcome, Outcome::TimedOut, "nothing interrupts such a wait");
    bucket.leave(&node);
    Parked::TimedOut
}

/// Calls `f` with those who wait at `address`, under the lock of their queue.
pub(super) fn with_waiters<R>(
    address: &AtomicU32,
    f: impl FnOnce(&mut Queue<'_, Waiting>) -> R,
) -> R {
    let key = LotKey::of(address);
    bucket(key).wake(key, f)
}

/// Has others go on in the place of `task`, which has been suspended for the last time: if it was woken
/// here, others may rely on what it would have done. All who wait in its bucket are to look again.
pub(crate) fn pass_on_wake(task: &Task) {
    let place = task.futex.load(Ordering::Relaxed);
    if place != 0 && task.word.outcome() == Outcome::Woken {
        BUCKETS[usize::from(place) - 1].0.wake_all();
    }
}

/// How long to wait for a lock that nobody has, because it is reserved for `holder`; `called` is
/// whether the caller has been called for that lock.
pub(super) fn patience(holder: Option<Holder>, called: bool) -> Patience {
    if !holder.is_some_and(Holder::is_here) {
        return Patience::Short;
    }
    let holder_cannot_run =
        !task::on_coroutine() || thread::panicking() && Current::get().waits_alone();
    if holder_cannot_run {
        return Patience::Over;
    }
    // It is in the queue of this worker, so it runs before the caller does: unless the caller has run
    // since, or it was left behind.
    if called || task::is_runtime_stopping() {
        Patience::Short
    } else {
        Patience::Unlimited
    }
}

/// The end of a wait for which there is little patience.
pub(super) fn shortly() -> Option<Deadline> {
    Deadline::after(PATIENCE)
}

/// Whether the caller keeps its worker to itself while it waits, because it unwinds. If so and what
/// it waits for is held by another coroutine of that worker, this aborts.
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

impl Waiter for Waiting {
    unsafe fn end(self) -> bool {
        // SAFETY: the waiter is still in `park`, says the caller.
        unsafe { Waiting::end(self) }.is_some()
    }

    unsafe fn runs_at_once(self) -> bool {
        // SAFETY: the caller's promise; what is not scheduled stays.
        unsafe { Waiting::runs_at_once(self) }
    }

    unsafe fn schedule(self) {
        // SAFETY: the caller's promise.
        unsafe { self.ended() }.schedule();
    }
}

const COUNT: usize = 1 << BUCKET_BITS;

/// Alone in its cache line.
#[repr(align(64))]
struct Aligned(Bucket<Waiting>);

static BUCKETS: [Aligned; COUNT] =
    [const { Aligned(Bucket::new(Mutex::new(BucketState::new()))) }; COUNT];

fn bucket(key: LotKey) -> &'static Bucket<Waiting> {
    static SET_UP: AtomicBool = AtomicBool::new(false);
    if !SET_UP.load(Ordering::Relaxed) && !SET_UP.swap(true, Ordering::Relaxed) {
        set_up();
    }
    &BUCKETS[key.bucket()].0
}

/// Has all buckets locked over a fork, lest a thread hold one that is not there in the child.
#[cold]
fn set_up() {
    // SAFETY: `in_child` touches memory of which the locks are held, and gives those back, which
    // takes atomics and a futex call. Where there is no memory for it, a fork in the wrong moment may
    // leave the child with a bucket that is locked.
    let _ = unsafe { fork::at_fork(before_fork, in_parent, in_child) };
}

static HELD: HeldOverFork<[Locked<'static, Waiting>; COUNT]> = HeldOverFork::new();

unsafe extern "C" fn before_fork() {
    // In the order of the table. Nobody who holds one takes another.
    let locked = std::array::from_fn(|n| BUCKETS[n].0.lock());
    // SAFETY: they are the same locks each time.
    unsafe { HELD.keep(locked) };
}

unsafe extern "C" fn in_parent() {
    // SAFETY: this thread has forked.
    drop(unsafe { HELD.take() });
}

unsafe extern "C" fn in_child() {
    // SAFETY: this thread has forked.
    if let Some(locked) = unsafe { HELD.take() } {
        locked.iter().for_each(Locked::forget_all);
    }
}
