//! Runtimes: all wiring.

pub(crate) mod after;
mod builder;
mod default_runtime;
pub(crate) mod fork;
pub(crate) mod join;
mod keeper;
pub(crate) mod scope;
pub(crate) mod spawn;
pub(crate) mod thread;
mod worker_thread;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::coroutine::Class;
use crate::fatal;
use crate::task::{Role, Task, TaskRef};
use crate::worker::{PAUSE, Scheduler, Worker};
use builder::GRACE;
use default_runtime::started_default;
use join::{JoinHandle, LocalJoinHandle, Packet};
use spawn::Builder;
use worker_thread::WorkerThread;

pub use builder::RuntimeBuilder;

/// The usable stack of the main coroutine of [`Runtime::run`]: that of a main thread.
const MAIN_STACK_SIZE: usize = 8 << 20;

/// Workers, and the coroutines that run on them.
///
/// The thread that makes a runtime is its worker 0, during [`run`](Runtime::run): so a runtime
/// does not leave its thread.
///
/// Dropped, it unwinds the coroutines that are left, waits for them, and ends its threads. It leaves those
/// behind that cannot unwind; see the [hazards](crate::guide::hazards) and [`RuntimeBuilder::grace`].
///
/// Nothing of it can run where it is dropped on a coroutine. There it leaves behind what has started on its
/// worker 0, and its other workers end what they have on their own.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<greenroom::Runtime>();
/// ```
pub struct Runtime {
    scheduler: Arc<Scheduler>,
    /// In a place of its own, which waiting coroutines point to.
    worker: ManuallyDrop<Rc<Worker>>,
    others: RefCell<Vec<WorkerThread>>,
    stopped: Cell<bool>,
    grace: Duration,
    thread: PhantomData<*mut ()>,
}

impl RuntimeBuilder {
    /// Makes a runtime whose worker 0 is the calling thread, whenever that is in
    /// [`run`](Runtime::run), and starts the other workers.
    ///
    /// # Errors
    ///
    /// The operating system's, when it gives no poll or no thread; `InvalidInput`, if a setting is
    /// out of range or not a number.
    pub fn build(self) -> io::Result<Runtime> {
        let (scheduler, mut parts) = self.scheduler()?;
        let own = parts.remove(0);
        let worker = ManuallyDrop::new(Rc::new(Worker::new(Arc::clone(&scheduler), own)));
        let runtime = Runtime {
            scheduler: Arc::clone(&scheduler),
            worker,
            others: RefCell::default(),
            stopped: Cell::new(false),
            grace: self.grace.unwrap_or(GRACE),
            thread: PhantomData,
        };
        for (index, parts) in parts.into_iter().enumerate() {
            // Should one fail, dropping the runtime ends those before it.
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
    /// Runs `f` as the main coroutine on the calling thread, which meanwhile is worker 0, and
    /// returns its value.
    ///
    /// Other coroutines that are then unfinished stay as they are: those of worker 0 until the
    /// next `run` or the drop, those of other workers go on.
    ///
    /// # Panics
    ///
    /// With `f`'s panic, after it has unwound what was left. If called inside a coroutine, or
    /// after such a panic. If no stack can be had for `f`.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T,
    {
        assert!(!Worker::is_driven_here(), "{NESTED}");
        assert!(!self.stopped.get(), "the runtime has shut down");
        assert!(
            !self.scheduler.is_left_in_parent(),
            "{}",
            fork::LEFT_IN_PARENT
        );
        fork::set_up_late();
        let class = Class::for_size(MAIN_STACK_SIZE).expect("a size in range");
        let reservation = match class.reserve() {
            Ok(reservation) => Some(reservation),
            Err(error) => refuse_without_stack(&error),
        };
        let name = Some("main".into());
        let site = Location::caller();
        let begun = Cell::new(false);
        let main = || {
            begun.set(true);
            f()
        };
        let body = Packet::new(main, ());
        let task = Task::new(
            name,
            site,
            Role::Main,
            self.scheduler.number(),
            reservation,
            body,
        );
        // SAFETY: what the closure and the result borrow is used in `drive_main`, which returns when
        // the task has finished, and in `join`; both end before this call does. What others may keep
        // of the task holds neither (see `Packet`).
        let (task, joined) = unsafe { TaskRef::pair(task) };
        // SAFETY: the body was made for `T`, here; and runs on this thread.
        let main: LocalJoinHandle<T> = unsafe { LocalJoinHandle::new(joined) };
        self.worker.spawn_local(task);
        let abort = AbortOnUnwind;
        self.worker.drive_main();
        mem::forget(abort);
        match main.join() {
            Ok(value) => value,
            Err(payload) => {
                // Now: if this thread unwound, std would take that for a panic of the coroutines, too.
                self.shut_down();
                match payload.downcast_ref() {
                    Some(error) if !begun.get() => refuse_without_stack(error),
                    _ => resume_unwind(payload),
                }
            }
        }
    }

    /// Spawns a coroutine on this runtime, from outside; see [`spawn`](crate::spawn()). It may
    /// wait for [`run`](Runtime::run) if there is one worker.
    ///
    /// # Panics
    ///
    /// If no stack can be had.
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
            // The threads are not there to be joined.
            mem::forget(self.others.take());
            self.stopped.set(true);
        } else if !self.stopped.replace(true) {
            self.scheduler.stop(self.grace);
            if Worker::is_driven_here() {
                // On a coroutine of another runtime nothing of this one can run.
                self.worker.give_up();
                return;
            }
            self.worker.drive_until_stopped();
            let until = self.scheduler.grace_ends().map(|ends| ends + 2 * PAUSE);
            for other in self.others.take() {
                other.wait(until);
            }
            self.scheduler.abandon_injected();
        }
    }
}

/// Aborts where the loop of a worker unwinds: then the main coroutine may still be using what it borrows.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        fatal::abort(format_args!("a worker's loop unwinds"));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.worker.is_driven() {
            // A coroutine of it ends the process, and with that the thread-local that this lies in.
            return;
        }
        self.shut_down();
        if !self.scheduler.is_left_in_parent() {
            // SAFETY: dropped here and nowhere else; it has nothing left to run.
            unsafe { ManuallyDrop::drop(&mut self.worker) };
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

/// There is none for the main coroutine of `run`; or there was room for one, but no guard.
#[track_caller]
fn refuse_without_stack(error: &io::Error) -> ! {
    panic!("no stack for the main coroutine: {error}");
}

/// What `run` says to a coroutine, or to a destructor that a worker runs.
const NESTED: &str = "a runtime cannot be run inside a coroutine";

/// Runs `f` as the main coroutine of a runtime with default settings, on the calling thread.
///
/// Returns `f`'s value, after unwinding the coroutines that are left, or leaving them behind: see the
/// [hazards](crate::guide::hazards).
///
/// ```
/// let answer = greenroom::run(|| greenroom::spawn(|| 6 * 7).join().unwrap());
/// assert_eq!(answer, 42);
/// ```
///
/// # Panics
///
/// With `f`'s panic; if called inside a coroutine; if the runtime cannot be built (see
/// [`RuntimeBuilder::build`], which says so by an error).
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

/// Waits until all coroutines of the runtime have finished, except those that wait here too and
/// the main coroutine of [`run`]; and until no timer of [`after`](crate::after()) is pending.
///
/// On an OS thread that is no worker, the runtime is the default one.
///
/// ```
/// for n in 0..10 {
///     greenroom::spawn(move || assert!(n < 10));
/// }
/// greenroom::wait_idle();
/// ```
pub fn wait_idle() {
    let current = Scheduler::current();
    // In a forked child nobody is there to be waited for.
    if fork::refuse_in_child().is_ok()
        && let Some(scheduler) = current.as_deref().or_else(|| started_default())
    {
        scheduler.wait_idle();
    }
}
