//! Runtimes: settings, the calling thread as worker 0, the other workers' threads, and the end.
//!
//! This module wires the layers below together, and has little logic of its own.

pub(crate) mod after;
mod builder;
pub(crate) mod default_runtime;
pub(crate) mod every;
pub(crate) mod fork;
pub(crate) mod handle;
pub(crate) mod idle;
pub(crate) mod join;
mod keeper;
pub(crate) mod members;
pub(crate) mod program;
pub(crate) mod scope;
pub(crate) mod send_queue;
pub(crate) mod spawn;
pub(crate) mod thread;
pub(crate) mod turn;
mod worker_thread;
mod writing;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::context;
use crate::coroutine::Class;
use crate::fatal;
use crate::interrupt::timeout::timeout;
use crate::task::{self, Interrupts, Role, Task, TaskRef};
use crate::worker::{PAUSE, Scheduler, Worker};
use default_runtime::started_default;
use join::{JoinHandle, LocalJoinHandle, Packet};
use spawn::Builder;
use worker_thread::{WorkerThread, stay};

pub use builder::RuntimeBuilder;

/// The usable stack size of the main coroutine of [`Runtime::run`], in bytes: that of a main thread.
const MAIN_STACK_SIZE: usize = 8 << 20;

/// Workers, and the coroutines that run on them.
///
/// The thread that makes a runtime is its worker 0 while it is in [`run`](Runtime::run). So a
/// `Runtime` is not [`Send`].
///
/// Dropping a runtime unwinds the remaining coroutines, waits for them, and ends its threads.
/// Coroutines that cannot unwind are left behind; see the
/// [hazards](crate::guide::hazards#shutdown) and [`RuntimeBuilder::grace`].
///
/// If a coroutine of another runtime drops this one, its worker 0 cannot run any more, and leaves behind
/// all coroutines that it has started. The other workers end theirs as usual.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::Runtime>();
/// ```
pub struct Runtime {
    scheduler: Arc<Scheduler>,
    /// At a fixed address, because waiting coroutines point to their worker.
    worker: ManuallyDrop<Rc<Worker>>,
    others: RefCell<Vec<WorkerThread>>,
    stopped: Cell<bool>,
    thread: PhantomData<*mut ()>,
}

impl RuntimeBuilder {
    /// Makes a runtime and starts its workers, except for worker 0: that is the calling thread
    /// whenever it is in [`run`](Runtime::run).
    ///
    /// # Errors
    ///
    /// The operating system's, if there is no poll or no thread to be had. `InvalidInput`, if a setting
    /// is out of range or not a number. `Unsupported` in a forked child of a process that has had a
    /// runtime.
    pub fn build(self) -> io::Result<Runtime> {
        let (scheduler, mut parts) = self.scheduler()?;
        let own = parts.remove(0);
        let worker = ManuallyDrop::new(Rc::new(Worker::new(Arc::clone(&scheduler), own)));
        let runtime = Runtime {
            scheduler: Arc::clone(&scheduler),
            worker,
            others: RefCell::default(),
            stopped: Cell::new(false),
            thread: PhantomData,
        };
        for (index, parts) in parts.into_iter().enumerate() {
            // On an error, dropping `runtime` ends the threads that have been started.
            let other = WorkerThread::start(index + 1, &scheduler, parts)?;
            runtime.others.borrow_mut().push(other);
        }
        let others = runtime.others.borrow();
        others.iter().for_each(WorkerThread::wait_for_beginning);
        drop(others);
        Ok(runtime)
    }
}

impl Runtime {
    /// Runs `f` as the main coroutine and returns its value. Meanwhile the calling thread is worker 0.
    ///
    /// Coroutines that have not finished by then are kept. Those of worker 0 go on at the next `run`,
    /// or unwind when the runtime is dropped; those of other workers go on at once.
    ///
    /// # Panics
    ///
    /// With `f`'s panic, after the remaining coroutines have unwound. If called inside a coroutine, or
    /// after such a panic. If there is no stack to be had for `f`.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T,
    {
        self.run_with_stack(MAIN_STACK_SIZE, f)
    }

    /// [`run`](Runtime::run) with `stack_size` usable bytes, 1 GiB at most, for the main coroutine.
    #[track_caller]
    fn run_with_stack<F, T>(&self, stack_size: usize, f: F) -> T
    where
        F: FnOnce() -> T,
    {
        self.assert_usable();
        let begun = Cell::new(false);
        let main = || {
            begun.set(true);
            f()
        };
        let ended = self.run_main(stack_size, main, |task| self.scheduler.set_main(task));
        self.scheduler.unset_main();
        match ended {
            Ok(value) => value,
            Err(payload) => {
                // Before `resume_unwind`: std counts panics per thread, so during an unwind of this thread
                // the coroutines would seem to panic, too.
                self.shut_down();
                match payload.downcast_ref() {
                    Some(error) if !begun.get() => refuse_without_stack(error),
                    _ => resume_unwind(payload),
                }
            }
        }
    }

    /// Panics if the calling thread cannot drive worker 0 now.
    #[track_caller]
    fn assert_usable(&self) {
        assert!(!Worker::is_driven_here(), "{NESTED}");
        assert!(!self.stopped.get(), "the runtime has shut down");
        assert!(
            !self.scheduler.is_left_in_parent(),
            "{}",
            fork::LEFT_IN_PARENT
        );
    }

    /// Drives worker 0 until `f`, the main coroutine, has ended. Calls `enlist` with its task before that is
    /// queued.
    #[track_caller]
    fn run_main<F, T>(
        &self,
        stack_size: usize,
        f: F,
        enlist: impl FnOnce(&TaskRef),
    ) -> std::thread::Result<T>
    where
        F: FnOnce() -> T,
    {
        fork::set_up_late();
        if self.scheduler.is_stopping() {
            // A signal ends the process. The main coroutine would run up to its first wait. Coroutines that were started
            // here before unwind.
            let _abort = AbortOnUnwind;
            self.worker.drive_until_stopped();
            stay();
        }
        let class = Class::for_size(stack_size).expect("a size in range");
        let reservation = match class.reserve() {
            Ok(reservation) => Some(reservation),
            Err(error) => refuse_without_stack(&error),
        };
        let name = Some("main".into());
        let site = Location::caller();
        let body = Packet::new(f, ());
        let task = Task::new(
            name,
            site,
            Role::Main,
            self.scheduler.number(),
            Interrupts::Unwind,
            reservation,
            body,
        );
        // SAFETY: the borrows of the closure and of the result are used in `drive_main`, which returns
        // when the task has finished, and in `join`. Both end before this function does. Handles and
        // wakers may keep the task for longer, but the task then holds neither closure nor result
        // (see `Packet`).
        let (task, joined) = unsafe { TaskRef::pair(task) };
        // SAFETY: the task was just made, and is not queued.
        unsafe { context::hand_down(&task) };
        enlist(&task);
        // SAFETY: the body was made for results of type `T` above, and runs on this thread.
        let main: LocalJoinHandle<T> = unsafe { LocalJoinHandle::new(joined) };
        self.worker.spawn_local(task);
        let abort = AbortOnUnwind;
        let has_finished = self.worker.drive_main();
        mem::forget(abort);
        if !has_finished {
            // A signal ends the process.
            stay();
        }
        main.join()
    }

    /// Spawns a coroutine on this runtime, from any thread that can reach it; see
    /// [`spawn`](crate::spawn()). If there is only one worker, the coroutine runs during
    /// [`run`](Runtime::run).
    ///
    /// # Panics
    ///
    /// If there is no stack to be had.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Builder::new()
            .spawn_on(&self.scheduler, f)
            .expect("failed to spawn a coroutine")
    }

    fn shut_down(&self) {
        if self.scheduler.is_left_in_parent() {
            // This process does not have the threads, so they cannot be joined.
            mem::forget(self.others.take());
            self.stopped.set(true);
        } else if !self.stopped.get() {
            self.call_before_shutdown();
            self.stopped.set(true);
            self.end_workers();
            while let Some(hook) = self.scheduler.after_shutdown.next() {
                call_hook(hook);
            }
        }
    }

    fn end_workers(&self) {
        if Worker::is_driven_here() {
            // The caller is a coroutine of another runtime, on whose thread worker 0 cannot run.
            self.scheduler.stop();
            self.worker.give_up();
            return;
        }
        self.worker.announce_end();
        self.scheduler.stop();
        self.worker.drive_until_stopped();
        let until = self.scheduler.grace_ends().map(|ends| ends + 2 * PAUSE);
        for other in self.others.take() {
            other.wait(until);
        }
        self.scheduler.abandon_injected();
    }

    /// Calls the hooks that come before the end, on a coroutine, since they may wait.
    fn call_before_shutdown(&self) {
        let hooks = &self.scheduler.before_shutdown;
        // If a signal ends the process, that has begun already.
        if hooks.is_empty() || self.scheduler.is_stopping() {
            return;
        }
        let ends = Instant::now().checked_add(self.scheduler.grace());
        let call_all = || {
            while let Some(hook) = hooks.next() {
                let left = ends.map_or(Duration::MAX, |ends| {
                    ends.saturating_duration_since(Instant::now())
                });
                call_hook(|| _ = timeout(left, hook));
            }
        };
        if Worker::is_driven_here() {
            // The caller is a coroutine of another runtime, which waits for the hooks.
            return call_all();
        }
        // Fails if there is no stack, which is then reported as a panic.
        call_hook(|| {
            let called = self.run_main(MAIN_STACK_SIZE, call_all, |_| {});
            called.unwrap_or_else(|payload| resume_unwind(payload));
        });
    }
}

/// Calls a hook of the user's. Its panic, which the panic hook has reported, ends here.
fn call_hook(hook: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        // Dropping it might panic once more.
        mem::forget(payload);
    }
}

/// Aborts if a worker's loop unwinds, because the main coroutine may then still use what it borrows.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        fatal::abort(format_args!("a worker's loop unwinds"));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.worker.is_driven() {
            // One of its own coroutines ends the process. That drops the thread-locals of this thread,
            // and this runtime with them.
            return;
        }
        self.shut_down();
        if !self.scheduler.is_left_in_parent() {
            // Aside, because the stacks that it has kept go into a list under a lock. The caller may be a coroutine of
            // another runtime.
            //
            // SAFETY: the worker is dropped here and nowhere else. It has no coroutine left to run.
            task::aside(|| unsafe { ManuallyDrop::drop(&mut self.worker) });
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("workers", &(self.scheduler.workers()))
            .finish()
    }
}

/// Panics because the main coroutine of `run` has no stack: the capacity is used up, or the guard below
/// the stack could not be made.
#[track_caller]
fn refuse_without_stack(error: &io::Error) -> ! {
    panic!("no stack for the main coroutine: {error}");
}

/// The panic message of `run` on a thread that drives a worker already.
const NESTED: &str = "a runtime cannot be run inside a coroutine";

/// Runs `f` as the main coroutine of a runtime with default settings, on the calling thread.
///
/// Returns `f`'s value, after the remaining coroutines have unwound or were left behind; see the
/// [hazards](crate::guide::hazards#shutdown).
///
/// ```
/// let answer = greenroom::run(|| greenroom::spawn(|| 6 * 7).join().unwrap());
/// assert_eq!(answer, 42);
/// ```
///
/// # Panics
///
/// With `f`'s panic. If called inside a coroutine. If the runtime cannot be built, for which
/// [`RuntimeBuilder::build`] returns an error.
#[track_caller]
pub fn run<F, T>(f: F) -> T
where
    F: FnOnce() -> T,
{
    assert!(!Worker::is_driven_here(), "{NESTED}");
    let runtime = RuntimeBuilder::new()
        .build()
        .unwrap_or_else(|error| panic!("no runtime: {error}"));
    runtime.run(f)
}

/// Waits until all coroutines of the runtime have finished, and no timer of
/// [`after`](crate::after()) is pending. The main coroutine of [`run`] does not count, and neither do
/// [daemons](Builder::daemon), nor coroutines that are in `wait_idle` themselves.
///
/// The runtime is the caller's, or the default one if the caller is an OS thread that is no worker.
///
/// ```
/// for n in 0..10 {
///     greenroom::spawn(move || assert!(n < 10));
/// }
/// greenroom::wait_idle();
/// ```
pub fn wait_idle() {
    let current = Scheduler::current();
    // A forked child has no coroutines.
    if fork::refuse_in_child().is_ok()
        && let Some(scheduler) = current.as_deref().or_else(|| started_default())
    {
        scheduler.wait_idle();
    }
}
