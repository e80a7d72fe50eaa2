//! Waiting at an address: `sync/lot.rs`, used in the way of `sync/futex.rs`. The locks use this module
//! instead of that file.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::attempt::Patience;
use super::counted::Counted;
use super::lot::{Bucket, BucketState, LotKey, LotNode, LotQueue, LotWaiter};
use super::parking::Task;
pub(super) use super::task::{Awaited, Awaiting, Awaits, Reason};
use super::word::{Kind, Outcome, Seq};
use super::{Model, large, small};
use crate::check::atomic::{AtomicU32, AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, Signal, thread, thread_of_model};

pub(super) const MODELS: &[Model] = &[
    small("futex: a wake against a wait", 3, wake_against_wait),
    small("futex: two waiters, two wakes", 2, two_waiters),
    small(
        "futex: a deadline against a wake-up for another waiter",
        2,
        deadline_against_wake,
    ),
    small("futex: two addresses in one bucket", 2, two_addresses),
    small(
        "futex: a waker that looks whether there are waiters",
        3,
        counted_waiters,
    ),
    large("futex: many waiters at a few addresses", many_waiters),
];

thread_of_model! {
    /// The identity of the calling thread: an OS thread, unless `be_coroutine` was called.
    static IDENTITY: Cell<u32> = Cell::new(ANYBODY);

    /// The thread's wake-up with this number, counted down to 1, takes effect only when the signal is
    /// raised.
    static LATE: RefCell<Option<(usize, Arc<Signal>)>> = RefCell::new(None);
}

const ANYBODY: u32 = 1;
const SLOTS: u32 = 16;

/// Makes the calling thread act as coroutine `slot` of `worker`. Workers are numbered from 1.
pub(super) fn be_coroutine(worker: u32, slot: u32) {
    IDENTITY.with(|identity| identity.set(worker * SLOTS + slot));
}

/// Calls `f`. When the calling thread is woken for the `nth` time in it, it goes on only when `until`
/// is raised.
pub(super) fn late(nth: usize, until: Arc<Signal>, f: impl FnOnce()) {
    LATE.with(|late| late.replace(Some((nth, until))));
    f();
    // Not dropped together with the thread: that would be outside the model.
    LATE.with(RefCell::take);
}

fn come_late() {
    let until = LATE.with(|late| {
        let (left, until) = late.take()?;
        if left == 1 {
            return Some(until);
        }
        late.replace(Some((left - 1, until)));
        None
    });
    if let Some(until) = until {
        until.wait();
    }
}

thread_local! {
    /// The only bucket of the running model. All threads of a model are one OS thread.
    static BUCKET: RefCell<Option<Rc<Bucket<Waiting>>>> = const { RefCell::new(None) };
}

/// Runs `model` with a bucket.
pub(super) fn with_lot(model: impl FnOnce()) {
    BUCKET.set(Some(Rc::new(Bucket::new(Mutex::new(BucketState::new())))));
    model();
    BUCKET.set(None);
}

fn bucket() -> Rc<Bucket<Waiting>> {
    BUCKET.with_borrow(|bucket| bucket.clone().expect("a model with a lot"))
}

// The following items have the names and meanings of those in `sync/futex.rs`.

#[derive(Clone, Copy, Default)]
pub(super) struct WaitRequest<'a> {
    pub(super) note: u32,
    pub(super) in_front: bool,
    pub(super) holder: Option<Holder>,
    pub(super) deadline: Option<&'a Deadline>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// Passes at some time.
    Later,
    /// Passes when the wait begins. The wait may still be woken before.
    AtOnce,
}

impl Deadline {
    pub(crate) fn at(_: Instant) -> Deadline {
        Deadline::Later
    }

    pub(crate) fn after(_: Duration) -> Option<Deadline> {
        Some(Deadline::Later)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parked {
    Woken(u32),
    Changed,
    TimedOut,
}

/// A coroutine, by the numbers of its worker and its slot there. OS threads have worker 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder(u32);

impl Holder {
    pub(super) const BITS: u32 = 29;

    pub(super) fn current() -> Holder {
        Holder(IDENTITY.with(Cell::get))
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn of_number(number: u32) -> Holder {
        assert_ne!(number, 0, "somebody holds it");
        Holder(number)
    }

    fn owner(self) -> u32 {
        self.0 / SLOTS
    }

    pub(super) fn is_here(self) -> bool {
        self.owner() != 0 && self.owner() == Holder::current().owner()
    }
}

pub(super) fn patience(holder: Option<Holder>, was_woken: bool) -> Patience {
    if holder.is_some_and(Holder::is_here) && !was_woken {
        Patience::Unlimited
    } else {
        Patience::Short
    }
}

pub(super) fn short_deadline() -> Option<Deadline> {
    Some(Deadline::AtOnce)
}

#[derive(Clone, Copy)]
pub(super) struct Waiting {
    task: *const Task,
    seq: Seq,
    owner: u32,
}

// SAFETY: any thread may use a task. The contracts of `LotWaiter` guarantee that the task is alive.
unsafe impl Send for Waiting {}

impl LotWaiter for Waiting {
    unsafe fn end(self) -> bool {
        // SAFETY: by the contract of `end`, the waiter is still in `park`, which keeps its task alive.
        unsafe { (*self.task).word.wake(self.seq, Outcome::Woken) }
    }

    unsafe fn runs_at_once(self) -> bool {
        self.owner == 0
    }

    unsafe fn schedule(self) {
        // SAFETY: by the contract of `schedule`, the wait was ended, and the waiter stays in `park`,
        // which keeps its task alive, until it is scheduled here.
        unsafe { (*self.task).follow_up(true) };
    }
}

pub(super) fn park(
    address: &AtomicU32,
    _: Awaiting<'_>,
    request: WaitRequest<'_>,
    still: impl FnOnce() -> bool,
    queued: impl FnOnce(),
) -> Parked {
    // The model does not use the holder.
    let _ = request.holder.map(Holder::number);
    let owner = Holder::current().owner();
    let bucket = bucket();
    let task = Task::new();
    let node = LotNode::new(LotKey::of(address), request.note, owner);
    let mut begun = None;
    // SAFETY: the node is new. It and the task, which the wait points to, live until this function
    // returns. That is after the wait has ended: the node was taken out by a waker then, or is by
    // `leave`.
    unsafe {
        bucket.enter(&node, request.in_front, || {
            still().then(|| {
                let seq = *begun.insert(task.word.begin(Kind::Plain).unwrap());
                let task = &*task;
                Waiting { task, seq, owner }
            })
        })
    };
    let Some(seq) = begun else {
        return Parked::Changed;
    };
    queued();
    let timer = match request.deadline {
        None => None,
        Some(Deadline::AtOnce) => {
            task.wake(seq, Outcome::TimedOut);
            None
        }
        Some(Deadline::Later) => {
            let task = task.clone();
            Some(thread::spawn(move || task.wake(seq, Outcome::TimedOut)))
        }
    };
    let outcome = task.suspend();
    if outcome != Outcome::Woken {
        bucket.leave(&node);
    }
    if let Some(timer) = timer {
        assert_eq!(timer.join().unwrap(), outcome == Outcome::TimedOut);
    }
    come_late();
    match outcome {
        Outcome::Woken => Parked::Woken(node.token()),
        Outcome::TimedOut => Parked::TimedOut,
        Outcome::Interrupted => unreachable!("nothing interrupts such a wait"),
    }
}

pub(super) fn with_waiters<R>(
    address: &AtomicU32,
    f: impl FnOnce(&mut LotQueue<'_, Waiting>) -> R,
) -> R {
    bucket().wake(LotKey::of(address), f)
}

fn wait(word: &AtomicU32, expected: u32, deadline: Option<Deadline>) -> Parked {
    let request = WaitRequest {
        deadline: deadline.as_ref(),
        ..WaitRequest::default()
    };
    park(
        word,
        Awaiting::object(Reason::Futex, word),
        request,
        || word.load(Ordering::SeqCst) == expected,
        || {},
    )
}

fn wake(word: &AtomicU32, n: usize) -> usize {
    with_waiters(word, |queue| {
        (0..n).take_while(|_| queue.wake_first().is_some()).count()
    })
}

fn words<const N: usize>() -> Arc<[AtomicU32; N]> {
    Arc::new([(); N].map(|()| AtomicU32::new(0)))
}

/// A waiter that sees the word unchanged is woken.
fn wake_against_wait() {
    with_lot(|| {
        let words = words::<1>();
        let waker = thread::spawn({
            let words = words.clone();
            move || {
                words[0].store(1, Ordering::SeqCst);
                wake(&words[0], 1)
            }
        });
        let parked = wait(&words[0], 0, None);
        assert!(matches!(parked, Parked::Woken(_) | Parked::Changed));
        let woken = waker.join().unwrap();
        assert_eq!(woken == 1, parked != Parked::Changed);
    });
}

/// Two wake-ups of one each wake as many as wait.
fn two_waiters() {
    with_lot(|| {
        let words = words::<1>();
        let waiter = thread::spawn({
            let words = words.clone();
            move || wait(&words[0], 0, None)
        });
        let waker = thread::spawn({
            let words = words.clone();
            move || {
                words[0].store(1, Ordering::SeqCst);
                wake(&words[0], 1) + wake(&words[0], 1)
            }
        });
        let parked = [wait(&words[0], 0, None), waiter.join().unwrap()];
        let waited = parked.iter().filter(|&&parked| parked != Parked::Changed);
        assert_eq!(waited.count(), waker.join().unwrap());
    });
}

/// A wake-up is not spent on a waiter that has timed out.
fn deadline_against_wake() {
    with_lot(|| {
        let words = words::<1>();
        let patient = thread::spawn({
            let words = words.clone();
            move || wait(&words[0], 0, None)
        });
        let impatient = wait(&words[0], 0, Some(Deadline::Later));
        words[0].store(1, Ordering::SeqCst);
        let woken = wake(&words[0], 1);
        match (impatient, patient.join().unwrap()) {
            (Parked::TimedOut, Parked::Changed) => assert_eq!(woken, 0),
            (Parked::TimedOut, Parked::Woken(_)) => assert_eq!(woken, 1),
            others => panic!("{others:?}"),
        }
    });
}

/// A wake-up at one address does not wake the waiter at the other, in the same bucket.
fn two_addresses() {
    with_lot(|| {
        let words = words::<2>();
        let waiters = [0, 1].map(|n| {
            let words = words.clone();
            thread::spawn(move || wait(&words[n], 0, None))
        });
        let mut woken = [0; 2];
        for n in [1, 0] {
            words[n].store(1, Ordering::SeqCst);
            woken[n] = wake(&words[n], 2);
        }
        for (waiter, woken) in waiters.into_iter().zip(woken) {
            assert_eq!(waiter.join().unwrap() != Parked::Changed, woken == 1);
        }
    });
}

/// A waker that wakes only if a waiter is counted leaves none behind.
fn counted_waiters() {
    with_lot(|| {
        let words = words::<1>();
        let counted = Arc::new(Counted::of(AtomicUsize::new(0)));
        let waker = thread::spawn({
            let (words, counted) = (words.clone(), counted.clone());
            move || {
                words[0].store(1, Ordering::Relaxed);
                match counted.any() {
                    true => wake(&words[0], 1),
                    false => 0,
                }
            }
        });
        let parked = counted.during(|| wait(&words[0], 0, None));
        let woken = waker.join().unwrap();
        assert_eq!(woken == 1, parked != Parked::Changed);
        assert!(!counted.any());
    });
}

/// Some waiters time out. The others are woken, each by one wake-up.
fn many_waiters() {
    with_lot(|| {
        let words = words::<3>();
        let woken = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..6)
            .map(|me| {
                let (words, woken) = (words.clone(), woken.clone());
                thread::spawn(move || {
                    for round in 0..3 {
                        let deadline = ((me + round) % 2 == 0).then_some(Deadline::Later);
                        let parked = wait(&words[(me + round) % 3], 0, deadline);
                        if let Parked::Woken(_) = parked {
                            woken.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        let wakers: Vec<_> = (0..2)
            .map(|me| {
                let words = words.clone();
                thread::spawn(move || {
                    let woken: usize = (0..4).map(|round| wake(&words[(me + round) % 3], 1)).sum();
                    woken
                })
            })
            .collect();
        let mut wakes: usize = wakers.into_iter().map(|waker| waker.join().unwrap()).sum();
        for word in &*words {
            word.store(1, Ordering::SeqCst);
            wakes += wake(word, usize::MAX);
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!(woken.load(Ordering::SeqCst), wakes);
    });
}
