//! A task: what can wait.
//!
//! Coroutines are tasks, and so is every OS thread that waits through this crate. A [`Task`] is
//! the small shared part that outlives its stack: handles, wakers and queues refer to it. It knows
//! how to be scheduled by its [`Owner`] and nothing of schedulers.

mod aside;
pub(crate) mod budget;
mod completion;
mod deadline;
mod holder;
mod inbox;
pub(crate) mod locals;
mod os_thread;
mod refs;
mod task_ref;
mod unwind;
mod waiting;
pub(crate) mod word;

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::panic::{Location, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU64, Ordering};

use crate::coroutine::{self, Class, Reservation, Suspend};
use crate::fatal;
use crate::sys::fork::Process;
use crate::sys::memory;

pub(crate) use aside::{AsideGuard, aside, lock_aside};
use completion::Completion;
pub(crate) use deadline::Deadline;
pub(crate) use holder::{Holder, WorkerNumber};
pub(crate) use inbox::{Inbox, Link, Mail};
use locals::Locals;
use refs::Refs;
pub(crate) use task_ref::TaskRef;
pub(crate) use unwind::{
    InHook, Suspended, is_unwinding, is_unwinding_for_certain, keeps_thread, may_unwind,
};
pub(crate) use waiting::{Waiting, Woken};
use word::{Outcome, Seq, WaitWord};

/// What a task runs, and what it leaves: a closure until it runs, then its result.
pub(crate) trait Body: Send + Sync {
    /// Runs the closure to its end, leaves its result, and ends `task`, which this is the body of.
    ///
    /// # Safety
    ///
    /// Called at most once, instead of `abandon`, by the owner of the task.
    unsafe fn run(&self, task: &Task);

    /// Gives `task` up before it has started: drops the closure, and tells the joiner `why`.
    ///
    /// # Safety
    ///
    /// Called at most once, instead of `run`, by whoever took the task from its queue.
    unsafe fn abandon(&self, task: &Task, why: Box<dyn Any + Send>);
}

/// What schedules and suspends a task: the worker it is pinned to, or its own OS thread.
pub(crate) trait Owner: Send + Sync {
    /// Makes the waiting task in `slot` run again, if this is the thread it runs on.
    fn schedule_here(&self, slot: u32) -> bool;

    /// Makes the waiting task of that link run again. From any thread.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait of the task, and schedules it once.
    unsafe fn schedule(&self, link: &Link);

    /// Whether what is scheduled runs at once, because there is nothing else to run.
    fn runs_at_once(&self) -> bool;

    /// Has wait `seq` of the calling task, in `slot`, end as timed out at `deadline`.
    fn arm(&self, slot: u32, deadline: Deadline, seq: Seq);

    /// Forgets that deadline.
    fn disarm(&self, slot: u32);

    /// Suspends the calling task, whose word says that it is parked in wait `seq`, until that
    /// wait has ended; at `deadline` at the latest it ends as timed out. For a task that cannot just
    /// be switched away from: an OS thread, or a coroutine amid panics.
    fn suspend(&self, task: &Task, seq: Seq, deadline: Option<Deadline>);

    /// Whether the calling task keeps this owner to itself while it waits: see `keeps_thread`.
    fn waits_alone(&self) -> bool;

    /// Whether the runtime of the owner's tasks shuts down.
    fn is_stopping(&self) -> bool;

    /// Aborts, because the calling task waits like that for one of the same owner, in `slot`.
    fn refuse_deadlock(&self, task: &Task, slot: u32) -> !;
}

/// A coroutine or OS thread, as others see it.
///
/// What each wait and each wake uses comes first, and together.
#[repr(C)]
pub(crate) struct Task<B: ?Sized = dyn Body> {
    /// How the task's current wait stands.
    pub(crate) word: WaitWord,
    /// Set when a coroutine is pinned to the worker that first runs it.
    /// Null before. See `pin` for how long what it points to is there.
    owner: AtomicPtr<Arc<dyn Owner>>,
    /// The name the owner knows it by, and its place in what that has been sent.
    link: Link,
    /// The number of its runtime.
    runtime: u32,
    /// Its runtime has unwound it.
    cancelled: Flag,
    /// Zero until somebody asks.
    id: AtomicU64,
    name: Option<Box<str>>,
    spawned_at: &'static Location<'static>,
    role: Role,
    /// Where it waits by `sync::futex`, which knows what this means; zero for nowhere.
    pub(crate) futex: AtomicU16,
    /// The low half of the number of the process: which fits in here, and does for this.
    made_by: u16,
    /// The right to a stack, until it has finished: the class of that, or null.
    stack_class: AtomicPtr<Class>,
    locals: Locals,
    completion: Completion<Waiting>,
    refs: Refs,
    body: B,
}

/// What a task is to its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The coroutine that `run` runs; the runtime ends with it.
    Main,
    /// A coroutine that may start on any worker.
    Spawned,
    /// A coroutine that must start on the worker that spawned it.
    Local,
    /// Not the runtime's.
    OsThread,
}

impl<B: Body> Task<B> {
    /// A task that has not started, for a [`TaskRef::pair`].
    pub(crate) fn new(
        name: Option<Box<str>>,
        spawned_at: &'static Location<'static>,
        role: Role,
        runtime: u32,
        reservation: Option<Reservation>,
        body: B,
    ) -> Task<B> {
        Task {
            word: WaitWord::new(),
            owner: AtomicPtr::new(ptr::null_mut()),
            link: Link::new(),
            runtime,
            cancelled: Flag::new(),
            id: AtomicU64::new(0),
            name,
            spawned_at,
            role,
            futex: AtomicU16::new(0),
            made_by: Process::current().number() as u16,
            stack_class: AtomicPtr::new(reservation.map_or(ptr::null_mut(), Reservation::into_raw)),
            locals: Locals::new(),
            completion: Completion::new(),
            refs: Refs::new(2),
            body,
        }
    }
}

impl Task {
    /// Pins the task to its owner, which knows it as `slot`.
    ///
    /// # Safety
    ///
    /// Called once, before the task runs. `owner` stays where it is until the task has run for the
    /// last time and has no wait that could be ended.
    pub(crate) unsafe fn pin(&self, owner: &Arc<dyn Owner>, slot: u32) {
        self.link.set_slot(slot);
        debug_assert!(self.owner.load(Ordering::Relaxed).is_null());
        let owner = ptr::from_ref(owner).cast_mut();
        self.owner.store(owner, Ordering::Release);
    }

    /// The owner of this task, which runs, or of which the caller has just ended a wait: so it will
    /// run again.
    fn owner(&self) -> &Arc<dyn Owner> {
        let owner = self.owner.load(Ordering::Acquire);
        // SAFETY: what waits has run, and what runs is pinned; and it is there, says `pin`.
        unsafe { owner.as_ref() }.expect("a task that waits is pinned")
    }

    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        self.link.slot()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The place that spawned it.
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether the task will never run (again) in this process, which is a fork of the one that
    /// made it.
    #[inline]
    pub(crate) fn is_left_in_parent(&self) -> bool {
        self.made_by != Process::current().number() as u16
    }

    /// Called by the calling task, which is this one, when its closure has ended: does not return
    /// in a process that was forked from the coroutine, if it would go on with others' work there.
    #[inline]
    pub(crate) fn end_in_its_process(&self) {
        if !on_coroutine() {
            self.refuse_return();
        }
    }

    #[cold]
    fn refuse_return(&self) -> ! {
        fatal::abort(format_args!(
            "{} has returned in a forked process, where its runtime is gone: end that by _exit or \
             exec",
            Description(self),
        ));
    }

    /// Whether the calling task, which is this one, would wait for another one of its runtime though it
    /// keeps its worker to itself.
    pub(crate) fn waits_alone_for(&self, other: &Task) -> bool {
        self.runtime == other.runtime && self.waits_alone()
    }

    /// The number of this task, unique in the process.
    pub(crate) fn id(&self) -> NonZeroU64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if let Some(id) = NonZeroU64::new(self.id.load(Ordering::Relaxed)) {
            return id;
        }
        let new = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = match self
            .id
            .compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => new,
            Err(first) => first,
        };
        NonZeroU64::new(id).expect("ids count from 1")
    }

    /// Its coroutine locals.
    #[inline]
    pub(crate) fn locals(&self) -> &Locals {
        &self.locals
    }

    /// Its end, for its joiner.
    #[inline]
    pub(crate) fn completion(&self) -> &Completion<Waiting> {
        &self.completion
    }

    #[inline]
    pub(crate) fn body(&self) -> &dyn Body {
        &self.body
    }

    /// The class of stack that is reserved for this task.
    ///
    /// # Panics
    ///
    /// If it has finished.
    pub(crate) fn stack_class(&self) -> &'static Class {
        let class = self.stack_class.load(Ordering::Relaxed);
        // SAFETY: what is not null came from `into_raw`, a reference to a static.
        unsafe { class.as_ref() }.expect("a task that has not finished has a reservation")
    }

    /// Takes the right to a stack back. Called by whoever ends the task.
    pub(crate) fn take_reservation(&self) -> Option<Reservation> {
        let class = self.stack_class.load(Ordering::Relaxed);
        self.stack_class.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: what is not null came from `into_raw`, and is taken back once: by the one that
        // ends the task.
        (!class.is_null()).then(|| unsafe { Reservation::from_raw(class) })
    }

    /// Has the processor fetch it.
    #[inline]
    pub(crate) fn prefetch(&self) {
        memory::prefetch_all(self);
    }

    /// Ends wait `seq`, if it has not ended; returns whether it did.
    #[inline]
    pub(crate) fn wake(&self, seq: Seq, outcome: Outcome) -> bool {
        let ended = self.word.wake(seq, outcome);
        if ended {
            self.schedule();
        }
        ended
    }

    /// Hands over the token of `thread::park`.
    pub(crate) fn unpark(&self) {
        if self.word.unpark() {
            self.schedule();
        }
    }

    /// Makes the task run again. For whoever has ended its wait, once; others may drop the task
    /// before this returns.
    #[inline]
    pub(crate) fn schedule(&self) {
        let slot = self.slot();
        if !self.owner().schedule_here(slot) {
            self.schedule_elsewhere();
        }
    }

    #[cold]
    fn schedule_elsewhere(&self) {
        // Another thread may run the task to its end, and drop it, before this one is through.
        let owner = Arc::clone(self.owner());
        // SAFETY: the caller has ended the wait, and does this once.
        unsafe { owner.schedule(&self.link) };
    }

    /// Whether the task, whose wait the caller has ended, runs as soon as it is scheduled.
    #[inline]
    pub(crate) fn runs_at_once(&self) -> bool {
        self.owner().runs_at_once()
    }

    /// Whether the calling task, which is this one, keeps its owner to itself while it waits.
    pub(crate) fn waits_alone(&self) -> bool {
        self.owner().waits_alone()
    }

    /// Aborts, because the calling task, which is this one, waits alone for what another one of its
    /// worker holds, in `slot`.
    pub(crate) fn refuse_deadlock(&self, slot: u32) -> ! {
        self.owner().refuse_deadlock(self, slot)
    }

    /// Suspends the calling task, which is this one and in wait `seq`, until that has ended; at
    /// `deadline` at the latest.
    ///
    /// Inlined into what waits, with the switch: the processor predicts where a function returns to
    /// by its call, and mispredicts each that has called before a switch and returns after it.
    #[inline(always)]
    pub(crate) fn suspend(&self, seq: Seq, deadline: Option<Deadline>) {
        #[cfg(debug_assertions)]
        crate::sys::initialisers::look();
        if !on_coroutine() || std::thread::panicking() {
            return self.owner().suspend(self, seq, deadline);
        }
        if let Some(deadline) = deadline {
            self.owner().arm(self.slot(), deadline, seq);
        }
        coroutine::suspend(Suspend::Parked);
        if deadline.is_some() {
            self.owner().disarm(self.slot());
        }
    }
}

/// A flag that its own coroutine alone sets and reads.
struct Flag(AtomicBool);

impl Flag {
    fn new() -> Flag {
        Flag(AtomicBool::new(false))
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A coroutine's name and origin. Written async-signal-safely.
pub(crate) struct Description<'a>(pub(crate) &'a Task);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.name().unwrap_or("<unnamed>");
        write!(f, "coroutine '{name}' (spawned at {})", self.0.spawned_at())
    }
}

impl<B: ?Sized> fmt::Debug for Task<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("name", &self.name)
            .field("spawned_at", &format_args!("{}", self.spawned_at))
            .field("word", &self.word)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// The coroutine that runs on this thread.
    static RUNNING: Cell<Option<NonNull<Task>>> = const { Cell::new(None) };
}

/// In the child of a fork: the caller is no coroutine, even if it was.
pub(crate) fn forget_running() {
    RUNNING.set(None);
}

/// Whether the caller is a coroutine.
#[inline]
pub(crate) fn on_coroutine() -> bool {
    RUNNING.get().is_some()
}

/// The calling task, the running coroutine or the OS thread, for a handle to keep.
pub(crate) fn current() -> TaskRef {
    running().unwrap_or_else(os_thread::current)
}

/// Makes sure that the calling thread has a task to wait with, or is a coroutine: so that the next wait
/// allocates nothing.
#[inline]
pub(crate) fn prepare_to_wait() {
    if !on_coroutine() {
        os_thread::prepare();
    }
}

/// Whether the next wait of the caller allocates nothing.
#[inline]
pub(crate) fn is_prepared_to_wait() -> bool {
    on_coroutine() || os_thread::is_prepared()
}

/// The calling task, for as long as the caller's frame lives. It does not leave that.
pub(crate) struct Current {
    task: NonNull<Task>,
    /// What keeps an OS thread's task alive, until `let_go`.
    thread: Option<ManuallyDrop<TaskRef>>,
}

impl Drop for Current {
    #[inline]
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let_go(thread);
        }
    }
}

/// Apart from the rest, so that a coroutine's wait need not have a call for it.
#[cold]
fn let_go(thread: ManuallyDrop<TaskRef>) {
    drop(ManuallyDrop::into_inner(thread));
}

impl Current {
    #[inline]
    pub(crate) fn get() -> Current {
        match RUNNING.get() {
            Some(task) => Current { task, thread: None },
            None => Current::of_thread(os_thread::current()),
        }
    }

    /// As `get`. None on an OS thread that is in the middle of making its task: then the caller is the
    /// allocator, which was called for that.
    #[inline]
    pub(crate) fn try_get() -> Option<Current> {
        (RUNNING.get().is_some() || !os_thread::is_being_made()).then(Current::get)
    }

    #[cold]
    fn of_thread(task: TaskRef) -> Current {
        Current {
            task: task.as_ptr(),
            thread: Some(ManuallyDrop::new(task)),
        }
    }
}

impl Deref for Current {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: an OS thread's task is kept alive by the reference beside it, and a coroutine's
        // by its worker, until the coroutine has ended: and this lies in one of its frames.
        unsafe { self.task.as_ref() }
    }
}

/// The running coroutine's task, if the caller is one.
#[inline]
pub(crate) fn running() -> Option<TaskRef> {
    // SAFETY: the pointer came from the `TaskRef` that `enter`'s caller holds for as long as the
    // coroutine runs, which it does now.
    RUNNING.get().map(|task| unsafe { TaskRef::another(task) })
}

/// Unwinds the calling coroutine with `payload`, because its runtime ends it.
pub(crate) fn cancel(payload: Box<dyn Any + Send>) -> ! {
    unwind::note_cancelled(true);
    resume_unwind(payload)
}

/// Notes that the running coroutine has come to the end of its unwind.
#[cold]
pub(crate) fn note_unwound() {
    unwind::note_cancelled(false);
}

/// Looks at the running coroutine's task, if the caller is one.
#[inline]
pub(crate) fn with_running<R>(look: impl FnOnce(Option<&Task>) -> R) -> R {
    // SAFETY: as in `running`: the task lives while its coroutine runs.
    look(RUNNING.get().map(|task| unsafe { &*task.as_ptr() }))
}

/// Whether the caller is a coroutine whose runtime shuts down.
pub(crate) fn is_runtime_stopping() -> bool {
    with_running(|task| task.is_some_and(|task| task.owner().is_stopping()))
}

/// Runs `turn` as a turn of the coroutine `task`.
#[inline(always)]
pub(crate) fn enter<R>(task: &TaskRef, turn: impl FnOnce() -> R) -> R {
    debug_assert!(RUNNING.get().is_none(), "one coroutine runs at a time");
    RUNNING.set(Some(task.as_ptr()));
    let result = turn();
    RUNNING.set(None);
    result
}
