//! Tasks: everything that can wait.
//!
//! Every coroutine is a task, and so is every OS thread that waits through this crate. A [`Task`] is the
//! small shared part of a coroutine, to which handles, wakers and queues refer. It may outlive the
//! coroutine's stack. A task is scheduled by its [`Owner`], and knows nothing of schedulers.
//!
//! The parts of a task have files of their own: `word` (how the current wait stands), `completion` (its
//! end, for the joiner), `awaiter` (the joiner), `awaited` (what the task waits for), `suspension` (how a
//! suspended coroutine is looked at), `running` (the task that runs on a thread), `identity` (how other threads see
//! which that is), `refs` and `task_ref` (references to it), `locals` (coroutine locals), `inbox`
//! (woken tasks on their way to their owner), `os_thread` (OS threads as tasks).

mod aside;
mod awaited;
mod awaiter;
pub(crate) mod budget;
mod completion;
mod deadline;
mod holder;
mod identity;
mod inbox;
mod interrupt_scope;
pub(crate) mod locals;
mod os_thread;
mod refs;
mod running;
#[cfg(debug_assertions)]
mod sections;
mod suspension;
mod task_ref;
mod unwind;
mod waiting;
pub(crate) mod word;

use std::any::Any;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU64, Ordering};

use crate::coroutine::{self, Class, Reservation, Suspend};
use crate::fatal;
use crate::sys::fork::Process;
use crate::sys::memory;

pub(crate) use aside::{Aside, AsideGuard, aside, get_or_init_aside, lock_aside};
pub(crate) use awaited::{Awaited, AwaitedDescriptor, Awaiting, Awaits, Reason};
pub(crate) use awaiter::{Awaiter, Told};
pub(crate) use completion::{Completion, Joiner};
pub(crate) use deadline::Deadline;
pub(crate) use holder::{Holder, WorkerNumber};
pub(crate) use identity::{Identity, RunningCell, running_cell};
pub(crate) use inbox::{Inbox, Link, Mail};
use interrupt_scope::Innermost;
pub use interrupt_scope::Interrupts;
pub(crate) use interrupt_scope::{Cancellations, Change, InterruptScope, Reach, earlier};
use locals::Locals;
pub(crate) use os_thread::PolledDescriptor;
use refs::Refs;
pub use running::on_coroutine;
pub(crate) use running::{
    Current, as_if_on_coroutine, current, enter, forget_running, is_prepared_to_wait,
    is_runtime_stopping, prepare_to_wait, running, with_running,
};
#[cfg(debug_assertions)]
pub(crate) use sections::{Section, count_switch};
pub(crate) use suspension::{Suspension, set_look};
pub(crate) use task_ref::TaskRef;
pub(crate) use unwind::{
    InHook, Suspended, is_unwinding, is_unwinding_for_certain, keeps_thread, may_unwind,
    swallowed_interrupts,
};
pub(crate) use waiting::{Waiting, Woken};
use word::{Outcome, Seq, WaitWord};

/// The part of a task that depends on the type of its closure: holds the closure until the task runs, and
/// then the result.
pub(crate) trait Body: Send + Sync {
    /// Runs the closure, stores its result, and ends the task. `task` is the task with this body.
    ///
    /// # Safety
    ///
    /// Called by the owner of the task. Of `run` and `abandon`, only one is called, and once.
    unsafe fn run(&self, task: &Task);

    /// Ends a task that has not started: drops the closure, and stores `why` as the result. `task` is the
    /// task with this body.
    ///
    /// # Safety
    ///
    /// The caller has taken the task out of a queue of fresh tasks. Of `run` and `abandon`, only one is
    /// called, and once.
    unsafe fn abandon(&self, task: &Task, why: Box<dyn Any + Send>);
}

/// Schedules and suspends a task: the worker that a coroutine is pinned to, or the OS thread of an OS
/// thread's task.
pub(crate) trait Owner: Send + Sync {
    /// Schedules the task in `slot`, if the calling thread is the owner's. Returns whether it is.
    fn schedule_here(&self, slot: u32) -> bool;

    /// Schedules the task of that link. From any thread.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait of the task, and schedules the task only once for that.
    unsafe fn schedule(&self, link: &Link);

    /// Whether a task that is scheduled now would run at once, because the owner has nothing else to run.
    fn runs_at_once(&self) -> bool;

    /// Sets a timer that ends wait `seq` of the calling task, in `slot`, at `deadline`.
    fn arm(&self, slot: u32, deadline: Deadline, seq: Seq);

    /// Cancels the timer of the calling task, in `slot`.
    fn disarm(&self, slot: u32);

    /// Suspends the calling task until wait `seq`, which has begun, has ended. At
    /// `deadline` the wait ends as timed out.
    ///
    /// Only for tasks that need more than a switch: OS threads, and coroutines while std's panic count of
    /// the thread is raised.
    fn suspend(&self, task: &Task, seq: Seq, suspension: &Suspension, deadline: Option<Deadline>);

    /// Whether the calling task keeps the owner's thread to itself while it waits. See `keeps_thread`.
    fn waits_alone(&self) -> bool;

    /// Whether the owner's runtime shuts down.
    fn is_stopping(&self) -> bool;

    /// Aborts the process, since the calling task keeps the thread to itself and waits for another task of
    /// the same owner, in `slot`.
    fn refuse_deadlock(&self, task: &Task, slot: u32) -> !;
}

/// The part of a coroutine or OS thread that others refer to.
///
/// The fields that every wait and every wake use come first, so that they share a cache line.
#[repr(C)]
pub(crate) struct Task<B: ?Sized = dyn Body> {
    /// The state of the task's current wait.
    pub(crate) word: WaitWord,
    /// Set when the task is pinned, which for a coroutine is before its first turn. Null until then. See
    /// `pin` for how long the pointer is valid.
    owner: AtomicPtr<Arc<dyn Owner>>,
    /// The slot by which the owner knows the task, and the task's place in the owner's inbox.
    link: Link,
    /// The innermost call that changes how interrupts reach the task.
    innermost: Innermost,
    /// The number of the task's runtime.
    runtime: u32,
    /// An interrupt has begun to unwind the task. See `unwind`.
    unwound: Flag,
    /// `catch_cancel` has returned the task's cancellation.
    caught: Flag,
    /// An operation of the task has returned an error for its cancellation.
    told: Flag,
    /// The same, since the runtime shuts down.
    told_of_end: Flag,
    /// How often the task has caught the unwind of an interrupt and waited again.
    swallowed: AtomicU8,
    /// The number that identifies the task in the process. Zero until it is asked for.
    id: AtomicU64,
    /// The id of the coroutine that has spawned this one. Zero if no coroutine has.
    parent: u64,
    name: Option<Box<str>>,
    spawned_at: &'static Location<'static>,
    role: Role,
    /// Where the task waits by `sync::futex`, in that module's terms. Zero for nowhere.
    pub(crate) futex: AtomicU16,
    /// The low half of the number of the process that made the task. Half fits in here, and suffices to
    /// tell a process from its forks.
    made_by: u16,
    /// The task's reservation of a stack, as its class. Null once the task has finished.
    stack_class: AtomicPtr<Class>,
    locals: Locals,
    completion: Completion<Awaiter>,
    refs: Refs,
    #[cfg(debug_assertions)]
    sections: sections::Sections,
    body: B,
}

/// The role of a task in its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The main coroutine, which `run` runs. `run` returns when it has finished.
    Main,
    /// A coroutine that any worker may start.
    Spawned,
    /// A coroutine that only the worker on which it was spawned may start.
    Local,
    /// The coroutine that fires the timers of its runtime. Any worker may start it.
    Keeper,
    /// A coroutine that `wait_idle` does not wait for.
    Daemon,
    /// An OS thread, which belongs to no runtime.
    OsThread,
}

impl<B: Body> Task<B> {
    /// A task that has not started. To be passed to [`TaskRef::pair`], which makes its two references.
    #[inline]
    pub(crate) fn new(
        name: Option<Box<str>>,
        spawned_at: &'static Location<'static>,
        role: Role,
        runtime: u32,
        interrupts: Interrupts,
        reservation: Option<Reservation>,
        body: B,
    ) -> Task<B> {
        let innermost = Innermost::root(interrupts);
        Task {
            word: innermost.word(),
            owner: AtomicPtr::new(ptr::null_mut()),
            link: Link::new(),
            innermost,
            runtime,
            unwound: Flag::new(),
            caught: Flag::new(),
            told: Flag::new(),
            told_of_end: Flag::new(),
            swallowed: AtomicU8::new(0),
            id: AtomicU64::new(0),
            parent: with_running(|parent| parent.map_or(0, |parent| parent.id().get())),
            name,
            spawned_at,
            role,
            futex: AtomicU16::new(0),
            made_by: Process::current().number() as u16,
            stack_class: AtomicPtr::new(reservation.map_or(ptr::null_mut(), Reservation::into_raw)),
            locals: Locals::new(),
            completion: Completion::new(),
            refs: Refs::new(2),
            #[cfg(debug_assertions)]
            sections: sections::Sections::default(),
            body,
        }
    }
}

impl Task {
    /// Pins the task to its owner, which knows the task by `slot`.
    ///
    /// # Safety
    ///
    /// Called once, before the task runs. `owner` stays valid and in place until the task has run for the
    /// last time and none of its waits can be ended any more.
    pub(crate) unsafe fn pin(&self, owner: &Arc<dyn Owner>, slot: u32) {
        self.link.set_slot(slot);
        debug_assert!(self.owner.load(Ordering::Relaxed).is_null());
        let owner = ptr::from_ref(owner).cast_mut();
        self.owner.store(owner, Ordering::Release);
    }

    /// The owner of this task. To be called by the task itself, or by a thread that has ended a wait of it
    /// and not scheduled it yet.
    #[inline]
    fn owner(&self) -> &Arc<dyn Owner> {
        let owner = self.owner.load(Ordering::Acquire);
        // SAFETY: the task runs, or will run again since its wait was ended. So it was pinned, and the
        // caller of `pin` has promised that the owner is valid until the task has run for the last time.
        unsafe { owner.as_ref() }.expect("a task that waits is pinned")
    }

    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        self.link.slot()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the task was spawned.
    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Whether this process is a fork of the one that made the task. Then the task never runs here.
    #[inline]
    pub(crate) fn is_left_in_parent(&self) -> bool {
        self.made_by != Process::current().number() as u16
    }

    /// Aborts the process if it is one that this task has forked. To be called by the task when its closure
    /// has returned. In the child, the worker's loop, to which the coroutine would return, must not go on.
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

    /// Whether `other` is a task of the same runtime, and this task would keep its worker to itself while it
    /// waits for `other`. To be called by this task.
    pub(crate) fn waits_alone_for(&self, other: &Task) -> bool {
        self.runtime == other.runtime && self.waits_alone()
    }

    /// The number that identifies this task in the process. Taken when it is first asked for.
    #[inline]
    pub(crate) fn id(&self) -> NonZeroU64 {
        match NonZeroU64::new(self.id.load(Ordering::Relaxed)) {
            Some(id) => id,
            None => self.take_id(),
        }
    }

    #[cold]
    fn take_id(&self) -> NonZeroU64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
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

    /// The id of the coroutine that has spawned this one.
    pub(crate) fn parent(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.parent)
    }

    /// The number of the task's runtime.
    pub(crate) fn runtime(&self) -> u32 {
        self.runtime
    }

    /// The task's coroutine locals.
    #[inline]
    pub(crate) fn locals(&self) -> &Locals {
        &self.locals
    }

    /// The task's end, as its joiner sees it.
    #[inline]
    pub(crate) fn completion(&self) -> &Completion<Awaiter> {
        &self.completion
    }

    #[inline]
    pub(crate) fn body(&self) -> &dyn Body {
        &self.body
    }

    /// The class of the stack that is reserved for this task.
    ///
    /// # Panics
    ///
    /// If the task has finished.
    pub(crate) fn stack_class(&self) -> &'static Class {
        let class = self.stack_class.load(Ordering::Relaxed);
        // SAFETY: a pointer that is not null came from `Reservation::into_raw`, which returns the address
        // of a static.
        unsafe { class.as_ref() }.expect("a task that has not finished has a reservation")
    }

    /// Takes the reservation of a stack back. To be called once, by the thread that ends the task.
    pub(crate) fn take_reservation(&self) -> Option<Reservation> {
        let class = self.stack_class.load(Ordering::Relaxed);
        self.stack_class.store(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: a pointer that is not null came from `Reservation::into_raw`. It is restored only once,
        // since only the thread that ends the task comes here.
        (!class.is_null()).then(|| unsafe { Reservation::from_raw(class) })
    }

    /// Has the processor fetch the task into its caches.
    #[inline]
    pub(crate) fn prefetch(&self) {
        memory::prefetch_all(self);
    }

    /// Ends wait `seq` and schedules the task, unless the wait has ended. Returns whether this has ended it.
    #[inline]
    pub(crate) fn wake(&self, seq: Seq, outcome: Outcome) -> bool {
        let ended = self.word.wake(seq, outcome);
        if ended {
            self.schedule();
        }
        ended
    }

    /// Cancels the task: ends its current wait, if that can be interrupted and cancellation reaches it,
    /// and prevents such waits from beginning. A task that has not started never runs.
    pub(crate) fn cancel(&self) {
        if !self.is_left_in_parent() && self.word.interrupt() {
            self.schedule();
        }
    }

    /// Whether the task was cancelled, by a handle or by the end of its runtime.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.word.is_interrupted()
    }

    /// Which cancellations are delivered to this task, which is the calling one, where `reach` holds. Where
    /// they are errors, each is told once: that by a handle, and that by the end of the runtime.
    pub(crate) fn cancellations(&self, reach: Reach) -> Cancellations {
        if reach.cancel == Cancellations::None || reach.how == Interrupts::Unwind {
            return reach.cancel;
        }
        match (self.told_of_end.get(), self.told.get()) {
            (true, _) => Cancellations::None,
            (false, true) if !self.owner().is_stopping() => Cancellations::OfRuntime,
            _ => reach.cancel,
        }
    }

    /// Notes that an operation of this task, which is the calling one, returns an error for its
    /// cancellation.
    pub(crate) fn note_told(&self) {
        self.told.set(true);
        self.told_of_end.set(self.owner().is_stopping());
    }

    /// What `note_told` has noted.
    pub(crate) fn told(&self) -> (bool, bool) {
        (self.told.get(), self.told_of_end.get())
    }

    /// Undoes the last `note_told`: the operation returns what it has done before. The next one is told.
    pub(crate) fn note_untold(&self) {
        self.told.set(false);
        self.told_of_end.set(false);
    }

    /// Makes the token of `thread::park` available.
    pub(crate) fn unpark(&self) {
        if self.word.unpark() {
            self.schedule();
        }
    }

    /// Schedules the task. To be called by the thread that has ended its wait, once for that.
    ///
    /// The task may run, end and be freed before this returns.
    #[inline]
    pub(crate) fn schedule(&self) {
        let slot = self.slot();
        if !self.owner().schedule_here(slot) {
            self.schedule_elsewhere();
        }
    }

    #[cold]
    fn schedule_elsewhere(&self) {
        // Once scheduled, the task may run on another thread, end and be freed, and so may its worker. The
        // clone keeps the owner alive for the rest of its `schedule`.
        let owner = Arc::clone(self.owner());
        // SAFETY: the caller of `Task::schedule` has ended the task's wait, and schedules it once for that.
        unsafe { owner.schedule(&self.link) };
    }

    /// Whether the task would run as soon as it is scheduled. To be called by the thread that has ended the
    /// task's wait, before this thread schedules the task.
    #[inline]
    pub(crate) fn runs_at_once(&self) -> bool {
        self.owner().runs_at_once()
    }

    /// Whether this task, which is the calling one, keeps its owner's thread to itself while it waits.
    pub(crate) fn waits_alone(&self) -> bool {
        self.owner().waits_alone()
    }

    /// Aborts the process, since this task, which is the calling one, keeps its worker to itself and waits
    /// for a lock that another task of this worker holds, in `slot`.
    pub(crate) fn refuse_deadlock(&self, slot: u32) -> ! {
        self.owner().refuse_deadlock(self, slot)
    }

    /// Suspends this task, which is the calling one, until wait `seq` has ended. At
    /// `deadline` the wait ends as timed out. Returns how it has ended.
    ///
    /// The owner may resume the task before that, for a look at its stack: see `suspension`. Then this suspends
    /// it again.
    ///
    /// Always inlined, together with the switch. A processor predicts the target of a return from the last
    /// calls, so it mispredicts the return from each function that was called before a switch and returns
    /// after it.
    #[inline(always)]
    pub(crate) fn suspend(
        &self,
        seq: Seq,
        suspension: &Suspension,
        deadline: Option<&Deadline>,
    ) -> Outcome {
        // The wait has begun, and the look allocates. A wait of the allocator must be the thread's, not this task's.
        #[cfg(debug_assertions)]
        if on_coroutine() {
            aside(crate::sys::initialisers::look);
        }
        if !on_coroutine() || std::thread::panicking() {
            self.owner()
                .suspend(self, seq, suspension, deadline.copied());
            return self.word.outcome();
        }
        #[cfg(debug_assertions)]
        count_switch();
        // Two switches, so that a wait without a deadline does not ask twice whether it has one.
        match deadline {
            None => self.switch(suspension),
            Some(deadline) => {
                self.owner().arm(self.slot(), *deadline, seq);
                let outcome = self.switch(suspension);
                self.owner().disarm(self.slot());
                outcome
            }
        }
    }

    /// Switches to the worker. Returns when the wait has ended.
    #[inline(always)]
    fn switch(&self, suspension: &Suspension) -> Outcome {
        coroutine::suspend(Suspend::Parked, suspension);
        match self.word.outcome_unless_looked_at() {
            Some(outcome) => outcome,
            None => self.be_looked_at(suspension),
        }
    }
}

impl Task {
    /// Called by this task, which is the calling one, when it was resumed for a look. Suspends it again, with
    /// the same suspension, until its wait has ended.
    ///
    /// Not a part of `suspend`: a loop there would cost each wait some instructions.
    #[cold]
    #[inline(never)]
    pub(crate) fn be_looked_at(&self, suspension: &Suspension) -> Outcome {
        loop {
            suspension::look();
            coroutine::suspend(Suspend::Parked, suspension);
            if let Some(outcome) = self.word.outcome_unless_looked_at() {
                return outcome;
            }
        }
    }
}

/// A flag that only its own coroutine sets and reads.
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

/// Displays a coroutine's name and where it was spawned. Async-signal-safe.
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

/// Notes that an interrupt is about to unwind the running coroutine.
pub(crate) fn note_unwind(is_cancellation: bool) {
    unwind::begin_unwind(is_cancellation);
}

/// Notes that the unwind of the running coroutine has come to its end.
#[cold]
pub(crate) fn note_unwound() {
    unwind::end_unwind();
}

/// Notes that the unwind of the running coroutine by its cancellation was caught, to go on.
#[cold]
pub(crate) fn note_caught() {
    unwind::end_unwind();
    with_running(|task| {
        if let Some(task) = task {
            task.caught.set(true);
        }
    });
}
