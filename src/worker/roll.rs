//! Roll calls: each worker describes its own coroutines, for a dump or a profile.
//!
//! ```text
//! caller: put the roll into each worker's list ; set `asked` ; demand attention ; wait for the answers
//! worker: in each turn, if `asked`: describe coroutines for a moment ; the last was described -> answer
//! ```
//!
//! Only its worker knows where a parked coroutine's frames are, and that they stay as they are. So no worker
//! stops for another one, and none longer than [`MOMENT`] in one turn. The descriptions of a dump are not of one
//! moment: a coroutine that has been described runs on. (Fresh coroutines are listed at once, because others may
//! take them out of their queue.)
//!
//! A hook that a worker calls outside of coroutines may be the caller. The worker has no turns before the hook returns,
//! so it answers within the call.
//!
//! *No roll is slept through*, for the reason in `attention`: the caller sets `asked` before it demands attention,
//! and a worker looks at it after it has said that it falls asleep.
//!
//! *Each coroutine is described once.* A worker goes through its slots in order. A started coroutine keeps its slot,
//! so it is met unless it ends before. One that starts meanwhile may be met or not; if it was described as fresh, the
//! caller keeps the later description.
//!
//! # How the stack of a parked coroutine is walked
//!
//! The unwinder can only walk from the frame that calls it. So the worker resumes the coroutine for a look (see
//! [`WaitWord::begin_look`](crate::task::word::WaitWord::begin_look)). The coroutine calls [`look`] on the worker's
//! stack, below the frames of the worker's loop, and suspends again. So even a coroutine near the end of its stack
//! has room. It does not count as running meanwhile: what is allocated in the look blocks the thread, if it waits.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Live, Scheduler, Worker};
use crate::coroutine::{Extent, Suspend};
use crate::diagnose::pulse::Pulse;
use crate::pool::JobResult;
use crate::sys::thread_state::OwnMemory;
use crate::sys::{clock, frames};
use crate::task::{self, Awaits, Deadline, Holder, Reason, Suspension, TaskRef};

/// How long a worker describes coroutines in one turn.
const MOMENT: Duration = Duration::from_micros(500);

/// So many coroutines are described between two looks at the clock.
const AT_ONCE: usize = 4;

/// What a coroutine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// It runs: it is the one that makes the dump.
    Running,
    /// It waits for its turn.
    Ready,
    Parked,
    /// It has not started.
    Fresh,
}

/// A coroutine as it was at one moment.
pub(crate) struct Entry {
    pub(crate) task: TaskRef,
    pub(crate) activity: Activity,
    /// The rest is known of coroutines that have started. Boxed, so that very many fresh ones are listed in little time.
    pub(crate) started: Option<Box<Started>>,
}

/// What is known of a coroutine that has started.
pub(crate) struct Started {
    /// The index of the worker in its runtime.
    pub(crate) worker: usize,
    /// The number by which locks know the coroutine.
    pub(crate) holder: Option<u32>,
    /// What it waits for, or has last waited for.
    pub(crate) reason: Reason,
    /// What it waits for, if it is parked.
    pub(crate) awaits: Option<Awaits>,
    /// The number of its current wait.
    pub(crate) wait: u64,
    /// When its wait ends at the latest.
    pub(crate) deadline: Option<Instant>,
    /// For how long it has not run. Too much by up to a batch of its worker, and to a tick of the kernel's.
    pub(crate) idle: Duration,
    /// The bytes of its stack: all, in use, and in use so far.
    pub(crate) stack: usize,
    pub(crate) depth: usize,
    pub(crate) high_water: usize,
    /// The names of its coroutine locals that have a value.
    pub(crate) locals: Vec<&'static str>,
    /// The frames of its stack, if they were asked for and it is parked.
    pub(crate) trace: Option<Arc<Trace>>,
}

/// The frames of a parked stack, innermost first.
pub(crate) struct Trace {
    pub(crate) frames: Box<[usize]>,
    /// The same frames and more, with their symbols.
    pub(crate) symbols: Backtrace,
}

/// Which parked coroutines' stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traces {
    Nobodys,
    /// That of the coroutine with this id.
    Of(u64),
    All,
}

impl Traces {
    fn include(self, task: &TaskRef) -> bool {
        match self {
            Traces::Nobodys => false,
            Traces::Of(id) => task.id().get() == id,
            Traces::All => true,
        }
    }
}

/// What is to be described of a worker's coroutines.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// All coroutines.
    All { traces: Traces },
    /// Of the started coroutines one in `stride`, with traces. `first` is below `stride`, and random.
    Sample { stride: usize, first: usize },
}

impl Wanted {
    fn has_fresh(self) -> bool {
        matches!(self, Wanted::All { .. })
    }

    fn traces(self) -> Traces {
        match self {
            Wanted::All { traces } => traces,
            Wanted::Sample { .. } => Traces::All,
        }
    }

    /// The first slot to describe, and the distance to the next.
    fn slots(self) -> (usize, usize) {
        match self {
            Wanted::All { .. } => (0, 1),
            Wanted::Sample { stride, first } => (first, stride),
        }
    }
}

/// A roll call of one runtime.
pub(crate) struct Roll {
    wanted: Wanted,
    /// The caller does not wait any more.
    is_over: AtomicBool,
    /// How far each worker has come.
    progress: Box<[AtomicUsize]>,
    /// The answer of each worker.
    answers: Box<[JobResult<Vec<Entry>>]>,
}

impl Roll {
    fn new(wanted: Wanted, workers: usize) -> Roll {
        Roll {
            wanted,
            is_over: AtomicBool::new(false),
            progress: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            answers: (0..workers).map(|_| JobResult::of(Reason::Dump)).collect(),
        }
    }
}

/// The caller's end of a [`Roll`].
pub(crate) struct RollCall {
    scheduler: Arc<Scheduler>,
    roll: Arc<Roll>,
    /// The fresh coroutines that no worker has taken yet.
    injected: Vec<Entry>,
}

impl Drop for RollCall {
    fn drop(&mut self) {
        self.roll.is_over.store(true, Ordering::Relaxed);
    }
}

/// How a worker has answered.
pub(crate) enum Answer {
    Entries(Vec<Entry>),
    /// No thread drives the worker. It has so many started coroutines.
    Away(usize),
    /// The worker has not answered in time. It had so many started coroutines, and its pulse tells which one holds it.
    Busy(usize, Arc<Pulse>),
}

impl Scheduler {
    /// Asks all workers to describe their coroutines.
    pub(crate) fn call_roll(self: &Arc<Scheduler>, wanted: Wanted) -> RollCall {
        let roll = Arc::new(Roll::new(wanted, self.workers.len()));
        self.with_worker(|here| {
            let here = here.filter(|worker| worker.answers_its_caller());
            for worker in &self.workers {
                worker.rolls().ask(Arc::clone(&roll));
                if !here.is_some_and(|here| here.is(worker)) {
                    worker.kick();
                }
            }
        });
        RollCall {
            scheduler: Arc::clone(self),
            roll,
            injected: match wanted.has_fresh() {
                true => self.look_into_injector(),
                false => Vec::new(),
            },
        }
    }

    /// The address of the task that each worker runs, or has just run.
    pub(crate) fn running(&self, memory: &OwnMemory) -> Vec<Option<usize>> {
        let workers = self.workers.iter();
        workers
            .map(|worker| worker.pulse().running(memory))
            .collect()
    }

    /// The number of started coroutines, as the workers have last told it.
    pub(crate) fn load(&self) -> usize {
        self.workers.iter().map(|worker| worker.load()).sum()
    }

    /// The fresh coroutines in the injector, each of which is taken out and put back at the end.
    fn look_into_injector(&self) -> Vec<Entry> {
        let mut found = Vec::new();
        for _ in 0..self.injector.len() {
            let Some(task) = self.take_injected() else {
                break;
            };
            found.push(Entry::fresh(&task));
            self.put_back(task);
        }
        found
    }
}

impl RollCall {
    /// Waits until each worker has answered; first answers for that of this thread, if the caller keeps it from its
    /// turns. All runtimes that the caller wants to know of are to be asked before. Gives up on one that has described nothing by `deadline`, or nothing for
    /// `patience` after that. One that has very many coroutines takes longer, and is waited for.
    ///
    /// # Errors
    ///
    /// That of an interrupt, if interrupts are delivered as errors.
    pub(crate) fn answers(
        mut self,
        deadline: Option<Deadline>,
        patience: Duration,
    ) -> std::io::Result<(Vec<Entry>, Vec<Answer>)> {
        Worker::with_current(|worker| {
            if let Some(worker) = worker.filter(|worker| worker.answers_its_caller()) {
                worker.answer_all_rolls();
            }
        });
        let mut answers = Vec::new();
        for (index, worker) in self.scheduler.workers.iter().enumerate() {
            let is_away = worker.attention().is_away();
            let mut until = if is_away {
                Some(Deadline::at(Instant::now()))
            } else {
                deadline
            };
            let mut before = 0;
            let entries = loop {
                let entries = self.roll.answers[index].wait_for_operation(until)?;
                let progress = self.roll.progress[index].load(Ordering::Relaxed);
                if entries.is_some() || is_away || progress == before {
                    break entries;
                }
                before = progress;
                until = Deadline::after(patience);
            };
            answers.push(match entries {
                Some(entries) => Answer::Entries(entries),
                None if is_away || !worker.pulse().is_driven() => Answer::Away(worker.load()),
                None => Answer::Busy(worker.load(), Arc::clone(worker.pulse())),
            });
        }
        Ok((mem::take(&mut self.injected), answers))
    }
}

/// The rolls that a worker has been asked for.
pub(super) struct Rolls {
    asked: AtomicBool,
    new: std::sync::Mutex<Vec<Arc<Roll>>>,
}

impl Rolls {
    pub(super) fn new() -> Rolls {
        Rolls {
            asked: AtomicBool::new(false),
            new: std::sync::Mutex::default(),
        }
    }

    /// Asks the worker. Its attention must be demanded after that.
    fn ask(&self, roll: Arc<Roll>) {
        task::lock_aside(&self.new).push(roll);
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether the worker has something to describe.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Arc<Roll>> {
        self.asked.store(false, Ordering::SeqCst);
        mem::take(&mut *task::lock_aside(&self.new))
    }
}

/// A roll that a worker has begun to answer.
pub(super) struct Answering {
    roll: Arc<Roll>,
    worker: usize,
    /// The first slot that was not described yet.
    slot: usize,
    entries: Vec<Entry>,
    traces: HashMap<Box<[usize]>, Arc<Trace>>,
}

impl Entry {
    /// Whether this is the task at that address.
    pub(crate) fn is_at(&self, address: usize) -> bool {
        ptr::from_ref(&*self.task).addr() == address
    }

    fn fresh(task: &TaskRef) -> Entry {
        Entry {
            task: task.clone(),
            activity: Activity::Fresh,
            started: None,
        }
    }
}

impl Live {
    /// What the coroutine waits for, or has last waited for. To be called on its worker's thread, while it is suspended
    /// in its body.
    pub(super) fn awaits(&self) -> Awaits {
        assert!(
            self.coroutine.is_in_body(),
            "a fresh coroutine waits for nothing"
        );
        // SAFETY: the coroutine is in its body and suspended, so the address is that of its suspension. It runs on
        // this thread, which does not resume it before the description is complete.
        unsafe { Suspension::awaiting(self.coroutine.suspended_at()) }.describe()
    }
}

impl Worker {
    /// Describes coroutines for a moment. Rolls take turns, so that all of them make progress.
    #[cold]
    pub(super) fn answer_rolls(&self) {
        let mut answering = self.answering.borrow_mut();
        let rolls = self.remote.rolls();
        answering.extend(rolls.take().into_iter().map(|roll| self.begin_answer(roll)));
        let end = Instant::now() + MOMENT;
        while let Some(mut next) = answering.pop_front() {
            if next.roll.is_over.load(Ordering::Relaxed) || self.go_on_with(&mut next) {
                next.roll.answers[next.worker].fill(Ok(next.entries));
            } else {
                next.roll.progress[next.worker].store(next.slot, Ordering::Relaxed);
                answering.push_back(next);
            }
            if Instant::now() >= end {
                break;
            }
        }
        if !answering.is_empty() {
            rolls.asked.store(true, Ordering::SeqCst);
        }
    }

    /// Answers all rolls, for a caller on this thread that has no turns while it waits for the answers.
    ///
    /// Two workers, also of different runtimes, do not wait for each other so. Each asks the other before it answers, so
    /// the one that answers last has been asked by then.
    #[cold]
    fn answer_all_rolls(&self) {
        while self.remote.rolls().is_asked() {
            self.answer_rolls();
        }
    }

    /// Whether the calling code, on this worker's thread, keeps it from its turns and leaves it free to describe its
    /// coroutines.
    ///
    /// A hook is such code. The global allocator is not, while this worker allocates; nor is code that a coroutine calls
    /// in an `Aside`, since `live` is borrowed while a coroutine runs.
    fn answers_its_caller(&self) -> bool {
        !task::on_coroutine()
            && self.answering.try_borrow_mut().is_ok()
            && self.live.try_borrow_mut().is_ok()
            && self.timers.try_borrow_mut().is_ok()
            && self.local.try_borrow_mut().is_ok()
    }

    fn begin_answer(&self, roll: Arc<Roll>) -> Answering {
        let mut workers = self.scheduler.workers.iter();
        let worker = workers.position(|worker| self.is(worker));
        let entries = match roll.wanted.has_fresh() {
            true => self.describe_fresh(),
            false => Vec::new(),
        };
        let (slot, _) = roll.wanted.slots();
        Answering {
            roll,
            worker: worker.expect("a worker of its runtime"),
            slot,
            entries,
            traces: HashMap::new(),
        }
    }

    /// The fresh coroutines of this worker.
    fn describe_fresh(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = self.local.borrow().iter().map(Entry::fresh).collect();
        // Other workers can take coroutines out of the deque meanwhile, and so may look for some in vain.
        for _ in 0..self.fresh.len() {
            let Some(task) = self.fresh.pop() else { break };
            entries.push(Entry::fresh(&task));
            self.fresh.push(task);
        }
        if !self.fresh.is_empty() {
            self.scheduler.notify();
        }
        entries
    }

    /// Describes a few coroutines. Returns whether all were described.
    fn go_on_with(&self, answering: &mut Answering) -> bool {
        let now = clock::coarse();
        let (_, stride) = answering.roll.wanted.slots();
        let mut live = self.live.borrow_mut();
        for _ in 0..AT_ONCE {
            if answering.slot >= live.capacity() {
                return true;
            }
            let slot = answering.slot;
            answering.slot += stride;
            if let Some(live) = live.get_mut(slot) {
                let entry = self.describe(live, slot as u32, now, answering);
                answering.entries.push(entry);
            }
        }
        false
    }

    fn describe(&self, live: &mut Live, slot: u32, now: u64, answering: &mut Answering) -> Entry {
        let task = live.task.clone();
        if !live.coroutine.is_in_body() {
            return Entry::fresh(&task);
        }
        let awaits = live.awaits();
        let activity = match awaits.reason {
            Reason::Yield => Activity::Ready,
            Reason::Dump => Activity::Running,
            _ if !task.word.is_waiting() => Activity::Ready,
            _ => Activity::Parked,
        };
        let stack = task.stack_class().usable();
        let extent = live.coroutine.extent(stack);
        let with_trace =
            awaits.reason != Reason::Yield && answering.roll.wanted.traces().include(&task);
        let trace = with_trace.then(|| trace(live, extent, &mut answering.traces));
        Entry {
            activity,
            started: Some(Box::new(Started {
                worker: answering.worker,
                holder: Holder::in_slot_here(slot).map(Holder::number),
                reason: awaits.reason,
                awaits: (activity == Activity::Parked).then_some(awaits),
                wait: task.word.seq(),
                deadline: self.timers.borrow().deadline(slot),
                idle: Duration::from_nanos(now.saturating_sub(live.since)),
                stack,
                depth: extent.depth(),
                high_water: extent.high_water(),
                // SAFETY: the task is in its body and suspended. It runs on this thread only.
                locals: unsafe { task.locals().names() },
                trace: trace.flatten(),
            })),
            task,
        }
    }
}

/// What a coroutine that is looked at uses, on its worker's stack.
struct Look {
    extent: Extent,
    frames: Vec<usize>,
    known: HashMap<Box<[usize]>, Arc<Trace>>,
    found: Option<Arc<Trace>>,
}

thread_local! {
    /// The look at a coroutine of this thread, while there is one. Null otherwise.
    static LOOK: Cell<*mut Look> = const { Cell::new(ptr::null_mut()) };
}

/// The stack of a parked coroutine. `known` has those of others, and gets this one.
///
/// Besides `run_batch`, this is the only function that switches into a coroutine: into one that goes to [`look`] and
/// suspends again, before it does anything else. Never inlined, for the same reason.
#[inline(never)]
fn trace(
    live: &mut Live,
    extent: Extent,
    known: &mut HashMap<Box<[usize]>, Arc<Trace>>,
) -> Option<Arc<Trace>> {
    let mut looked = Look {
        extent,
        frames: Vec::new(),
        known: mem::take(known),
        found: None,
    };
    LOOK.set(&raw mut looked);
    task::set_look(Some(look));
    live.task.word.begin_look();
    let why = live.coroutine.resume();
    live.task.word.end_look();
    task::set_look(None);
    LOOK.set(ptr::null_mut());
    debug_assert_eq!(
        why,
        Suspend::Parked,
        "a coroutine that is looked at suspends"
    );
    *known = looked.known;
    looked.found
}

/// Walks the stack of the coroutine that has called this, on its worker's stack.
fn look() {
    // SAFETY: a pointer that is not null is to a local variable of `trace`, which waits for this to return and does not
    // touch the variable meanwhile.
    let Some(look) = (unsafe { LOOK.get().as_mut() }) else {
        return;
    };
    let (frames, mut innermost) = (&mut look.frames, None);
    frames::walk(|frame| {
        if !look.extent.has_frame(frame.stack) {
            // The frames of the look come first, and those of the worker's loop after the coroutine's.
            return frames.is_empty() && innermost.is_none();
        }
        // The coroutine has called the look from further in than where it was suspended.
        if look.extent.is_suspending(frame.stack) {
            innermost = Some(frame.returns_to);
        } else {
            frames.extend(innermost.take());
            frames.push(frame.returns_to);
        }
        true
    });
    let known = look.known.get(&*look.frames);
    look.found = Some(match known {
        Some(known) => Arc::clone(known),
        None => {
            let trace = Arc::new(Trace {
                frames: look.frames.as_slice().into(),
                symbols: Backtrace::force_capture(),
            });
            look.known.insert(trace.frames.clone(), Arc::clone(&trace));
            trace
        }
    });
}

#[cfg(test)]
mod tests;
