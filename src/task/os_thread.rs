//! OS threads as tasks. A thread that waits through this crate is its own owner.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::word::{Outcome, Seq};
use super::{Body, Deadline, Interrupts, Link, Owner, Role, Suspension, Task, TaskRef, Waiting};
use crate::fatal;
use crate::sys::fork::{self, Process};
use crate::sys::poll;
use crate::sys::switches::own_lock;
use crate::sys::thread_end::AtEnd;

thread_local! {
    /// The thread's task, once it was needed. Stands for a reference, which `forget` takes back.
    ///
    /// It has no destructor of its own, since the destructors of other thread-locals may wait, too. They
    /// must find the task under which the thread is known from before.
    static THREAD: Cell<Option<NonNull<Task>>> = const { Cell::new(None) };

    /// Whether the thread cannot get a task: the task is being made, or the thread is at its end. Both call the
    /// allocator, which may want to wait.
    static CANNOT_BE_MADE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread has no task, and cannot get one now.
pub(super) fn cannot_be_made() -> bool {
    CANNOT_BE_MADE.get()
}

/// The calling OS thread's task.
pub(super) fn current() -> TaskRef {
    let Some(task) = THREAD.get() else {
        return first();
    };
    // SAFETY: `THREAD` stands for a reference until `forget` takes that back, on this thread.
    unsafe { TaskRef::another(task) }
}

/// Whether the calling thread has its task.
pub(super) fn is_prepared() -> bool {
    THREAD.get().is_some()
}

/// Makes sure that the calling thread has its task.
pub(super) fn prepare() {
    if !is_prepared() {
        drop(first());
    }
}

/// Makes the calling thread's task.
#[cold]
#[track_caller]
fn first() -> TaskRef {
    if CANNOT_BE_MADE.replace(true) {
        fatal::abort(format_args!(
            "the global allocator waits, and not for a lock, when a thread waits for the first time or ends"
        ));
    }
    let (task, kept) = new();
    THREAD.set(Some(ManuallyDrop::new(kept).as_ptr()));
    CANNOT_BE_MADE.set(false);
    // `forget` is called at the end of the thread if the kept pointer is not null; which pointer does not
    // matter. If this fails, the task is leaked.
    let _ = AT_END.keep((&raw const AT_END).cast_mut().cast());
    task
}

/// Calls `forget` at the end of each thread that has a task, after the destructors of thread-locals.
static AT_END: AtEnd = AtEnd::new(forget);

/// Drops the reference that `THREAD` stands for.
extern "C" fn forget(_: *mut c_void) {
    if let Some(task) = THREAD.take() {
        // std does not tell the name of the thread any more.
        CANNOT_BE_MADE.set(true);
        // SAFETY: `THREAD` stood for a reference that `first` has forgotten, and now is empty, so the
        // reference is restored only once.
        drop(unsafe { TaskRef::taken_back(task) });
    }
}

#[track_caller]
fn new() -> (TaskRef, TaskRef) {
    let name = std::thread::current().name().map(Box::from);
    let owner: Box<Arc<dyn Owner>> = Box::new(Arc::new(OsThread::default()));
    let body = NoBody { owner };
    let task = Task::new(
        name,
        Location::caller(),
        Role::OsThread,
        0,
        Interrupts::Unwind,
        None,
        body,
    );
    // SAFETY: the task is new, so it has not been pinned. The owner lies in a box, which the task's body
    // keeps in place as long as the task exists.
    unsafe { Task::pin(&task, &task.body.owner, 0) };
    // SAFETY: the body borrows nothing.
    unsafe { TaskRef::pair(task) }
}

/// Where an OS thread sleeps while its task waits.
#[derive(Default)]
struct OsThread {
    state: Mutex<State>,
    changed: Condvar,
}

/// What the lock of an [`OsThread`] guards.
#[derive(Default)]
struct State {
    /// The task's wait has ended.
    scheduled: bool,
    /// The thread polls descriptors, among them this one, which is to be rung instead of `changed`.
    bell: Option<Arc<OwnedFd>>,
}

impl Owner for OsThread {
    fn schedule_here(&self, _slot: u32) -> bool {
        false
    }

    unsafe fn schedule(&self, _: &Link) {
        let bell = {
            let mut state = own_lock(&self.state);
            state.scheduled = true;
            state.bell.take()
        };
        match bell {
            None => self.changed.notify_one(),
            // Cannot fail: the counter of the eventfd is far from full.
            Some(bell) => drop(rustix::io::write(&bell, &1_u64.to_ne_bytes())),
        }
    }

    fn runs_at_once(&self) -> bool {
        // The system runs the thread sooner or later, whatever other tasks do.
        true
    }

    fn arm(&self, _: u32, _: Deadline, _: Seq) {
        unreachable!("an OS thread sleeps with its deadline");
    }

    fn disarm(&self, _: u32) {
        unreachable!("an OS thread sleeps with its deadline");
    }

    fn suspend(&self, task: &Task, seq: Seq, _: &Suspension, deadline: Option<Deadline>) {
        if POLLED_IN.get() == Some(Waiting::new(task, seq)) {
            return self.suspend_polling(task, seq, deadline);
        }
        let mut state = self.lock();
        while !state.scheduled {
            let Some(deadline) = deadline else {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.at.saturating_duration_since(Instant::now());
            if left.is_zero() && task.word.wake(seq, Outcome::TimedOut) {
                return;
            }
            // If the deadline has passed and the wait has ended otherwise, the waker is about to call
            // `schedule`. The thread must wait for that call, so that it does not end a later wait.
            let limit = if left.is_zero() { Duration::MAX } else { left };
            let waited = self.changed.wait_timeout(state, limit);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.scheduled = false;
    }

    fn waits_alone(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        false
    }

    fn refuse_deadlock(&self, _: &Task, _: u32) -> ! {
        unreachable!("an OS thread keeps nobody from running");
    }
}

impl OsThread {
    fn lock(&self) -> MutexGuard<'_, State> {
        own_lock(&self.state)
    }

    /// Like `suspend`, but an event of a descriptor that is polled in this wait ends it, too. Allocates nothing.
    ///
    /// A waker rings the bell after it has stored that the task is scheduled. If it rings late, the next wait
    /// of this kind looks once in vain.
    #[cold]
    fn suspend_polling(&self, task: &Task, seq: Seq, deadline: Option<Deadline>) {
        POLLED_IN.set(None);
        POLLED.with_borrow_mut(|polled| {
            let (bell, _) = polled.bell.as_ref().expect("`prepare` has made it");
            let descriptors = &mut polled.descriptors;
            // The wait has ended otherwise, and the waker is about to call `schedule`.
            let mut ended = false;
            while !self.is_scheduled_or_set_bell(bell) {
                let left = deadline
                    .map(|deadline| deadline.at.saturating_duration_since(Instant::now()))
                    .filter(|_| !ended);
                if left.is_some_and(|left| left.is_zero()) {
                    if task.word.wake(seq, Outcome::TimedOut) {
                        break;
                    }
                    ended = true;
                    continue;
                }
                // The bell comes first.
                let count = if ended { 1 } else { descriptors.len() };
                let polled = poll::block(&mut descriptors[..count], left);
                if !descriptors[0].revents().is_empty() {
                    // Resets it.
                    let _ = rustix::io::read(bell, &mut [0; 8]);
                }
                let others = &descriptors[1..count];
                if others.iter().any(|other| !other.revents().is_empty()) {
                    if task.word.wake(seq, Outcome::Woken) {
                        break;
                    }
                    ended = true;
                }
                if polled.is_err() {
                    // Out of memory, perhaps. Looking again must not take all of a processor.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            // If this has ended the wait itself, nobody rings for it.
            self.lock().bell = None;
        });
    }

    /// Whether the task was scheduled, which this takes note of. If not, `bell` is rung when it will be.
    fn is_scheduled_or_set_bell(&self, bell: &Arc<OwnedFd>) -> bool {
        let mut state = self.lock();
        if !state.scheduled {
            state.bell = Some(Arc::clone(bell));
        }
        std::mem::take(&mut state.scheduled)
    }
}

/// A descriptor that the calling OS thread can poll, instead of sleeping, while a wait lasts. Its events then end the
/// wait, as if a waker had.
pub(crate) struct PolledDescriptor {
    fd: RawFd,
    events: PollFlags,
    /// Keeps it on its thread.
    not_send: PhantomData<*const ()>,
}

/// What a thread polls.
#[derive(Default)]
struct Polled {
    /// Wakes the thread from its poll. Made by this process.
    bell: Option<(Arc<OwnedFd>, Process)>,
    /// The bell, and then the descriptors of the wait `POLLED_IN`, or of the last one. There is room for all
    /// `PolledDescriptor`s there are.
    descriptors: Vec<PollFd<'static>>,
    /// How many `PolledDescriptor`s there are.
    count: usize,
}

thread_local! {
    static POLLED: RefCell<Polled> = RefCell::default();

    /// The wait during which the descriptors are polled.
    static POLLED_IN: Cell<Option<Waiting>> = const { Cell::new(None) };
}

impl PolledDescriptor {
    /// Makes ready to poll `fd` for `events`.
    ///
    /// # Errors
    ///
    /// Those of [`prepare`](PolledDescriptor::prepare).
    pub(crate) fn new(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<PolledDescriptor> {
        let counted = POLLED.try_with(|polled| polled.borrow_mut().count += 1);
        counted.map_err(io::Error::other)?;
        let polled = PolledDescriptor {
            fd: fd.as_raw_fd(),
            events,
            not_send: PhantomData,
        };
        polled.prepare()?;
        Ok(polled)
    }

    /// Makes ready for `poll_in`. To be called again before each wait: the process may be a fork by then.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no descriptor for the thread's bell. If the thread's locals are gone,
    /// because it ends.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let prepared = POLLED.try_with(|polled| polled.borrow_mut().prepare());
        prepared.map_err(io::Error::other)?
    }

    /// Has the calling thread poll in the wait `waiting`, which is its own and has begun. Allocates nothing.
    pub(crate) fn poll_in(&self, waiting: Waiting) {
        POLLED.with_borrow_mut(|polled| {
            if POLLED_IN.replace(Some(waiting)) != Some(waiting) {
                // The others were of an earlier wait.
                polled.descriptors.truncate(1);
            }
            // SAFETY: the number is only passed to poll(2), in the wait. The maker of this has borrowed the
            // descriptor for longer.
            unsafe { polled.add(self.fd, self.events) };
        });
    }
}

impl Drop for PolledDescriptor {
    fn drop(&mut self) {
        // The thread may be ending, and its list be gone.
        let _ = POLLED.try_with(|polled| polled.borrow_mut().count -= 1);
    }
}

impl Polled {
    /// Makes the bell, and room for all descriptors.
    fn prepare(&mut self) -> io::Result<()> {
        // A forked child shares its parent's bell, and must not use it.
        if !self.bell.as_ref().is_some_and(|(_, by)| by.is_current()) {
            fork::count_forks()?;
            let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
            let bell = rustix::event::eventfd(0, flags)?;
            self.descriptors.clear();
            // SAFETY: this has the bell, and drops it only when it clears the list.
            unsafe { self.add(bell.as_raw_fd(), PollFlags::IN) };
            self.bell = Some((Arc::new(bell), Process::current()));
        }
        // The bell stays.
        self.descriptors.truncate(1);
        self.descriptors.reserve(self.count);
        Ok(())
    }

    /// # Safety
    ///
    /// `fd` is open for as long as the list is polled with it.
    unsafe fn add(&mut self, fd: RawFd, events: PollFlags) {
        // SAFETY: the caller promises that it is open whenever it is used.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.descriptors.push(PollFd::from_borrowed_fd(fd, events));
    }
}

/// The body of an OS thread's task, which runs no code of this crate.
struct NoBody {
    /// The task's owner. In a box, since tasks point to the `Arc`.
    owner: Box<Arc<dyn Owner>>,
}

/// A pointer to no task, which is not null.
pub(super) fn no_task() -> NonNull<Task> {
    NonNull::<Task<NoBody>>::dangling()
}

impl Body for NoBody {
    unsafe fn run(&self, _: &Task) {
        unreachable!("an OS thread runs by itself");
    }

    unsafe fn abandon(&self, _: &Task, _: Box<dyn Any + Send>) {
        unreachable!("an OS thread is never queued");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_thread_goes_with_the_thread() {
        let task = std::thread::spawn(|| {
            let task = current();
            assert_eq!(task.as_ptr(), current().as_ptr());
            task
        });
        let task = task.join().unwrap();
        assert!(task.is_referred_to_once(), "only from here");
    }
}
