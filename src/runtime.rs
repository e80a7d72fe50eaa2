//! Runtimes: all wiring.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::num::NonZeroUsize;
use std::panic::{Location, resume_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::coroutine::Class;
use crate::coroutine::overflow::Stderr;
use crate::fatal;
use crate::fork;
use crate::join::{JoinHandle, LocalJoinHandle, Packet};
use crate::scheduler::{PAUSE, Scheduler, Worker};
use crate::spawn::Builder;
use crate::sys::switches::excused;
use crate::task::{Role, Task, TaskRef};

/// The usable stack of a coroutine: address space, of which it occupies what it touches.
const STACK_SIZE: usize = 256 << 10;

/// The usable stack of the main coroutine of [`Runtime::run`]: that of a main thread.
const MAIN_STACK_SIZE: usize = 8 << 20;

/// How long the end of a runtime waits for coroutines that do not end.
const GRACE: Duration = Duration::from_secs(30);

/// The settings of a runtime.
///
/// What is not set here comes from the environment, and otherwise from the defaults below.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
/// let sum = runtime.run(|| {
///     let halves = [greenroom::spawn(|| 20), greenroom::spawn(|| 22)];
///     halves.map(|half| half.join().unwrap()).iter().sum::<i32>()
/// });
/// assert_eq!(sum, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RuntimeBuilder {
    workers: Option<NonZeroUsize>,
    stack_size: Option<usize>,
    grace: Option<Duration>,
}

impl RuntimeBuilder {
    /// Starts with the defaults.
    pub fn new() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// The number of OS threads that run coroutines, the calling one included. Default:
    /// `GREENROOM_WORKERS`, or else [`std::thread::available_parallelism`].
    ///
    /// # Panics
    ///
    /// If `workers` is zero.
    pub fn workers(mut self, workers: usize) -> RuntimeBuilder {
        self.workers = Some(NonZeroUsize::new(workers).expect("a runtime has at least one worker"));
        self
    }

    /// The usable stack size, in bytes, of coroutines whose [`Builder`] asks for no other.
    /// Default: `GREENROOM_STACK_SIZE`, or else `RUST_MIN_STACK`, or else 256 KiB.
    ///
    /// It is address space: of memory, a coroutine takes what it touches.
    pub fn stack_size(mut self, bytes: usize) -> RuntimeBuilder {
        self.stack_size = Some(bytes);
        self
    }

    /// How long the end of the runtime waits for coroutines that do not end: because they catch the
    /// unwind and go on, or because their destructors wait. After that they are left behind, and named on
    /// standard error. Default: 30 seconds.
    ///
    /// A coroutine that keeps its worker is left on the worker's thread, which goes on alone. On the
    /// thread that ends the runtime it is waited for: that thread is in its call.
    ///
    /// [`Duration::MAX`] waits for ever.
    pub fn grace(mut self, grace: Duration) -> RuntimeBuilder {
        self.grace = Some(grace);
        self
    }

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
            let other = start_worker(index + 1, &scheduler, parts)?;
            runtime.others.borrow_mut().push(other);
        }
        let others = runtime.others.borrow();
        others.iter().for_each(OtherThread::wait_for_beginning);
        drop(others);
        Ok(runtime)
    }

    /// Starts a runtime with a thread for each worker, which end with the process.
    fn build_detached(self) -> io::Result<Arc<Scheduler>> {
        let (scheduler, parts) = self.scheduler()?;
        let mut started = Vec::new();
        for (index, parts) in parts.into_iter().enumerate() {
            match start_worker(index, &scheduler, parts) {
                Ok(worker) => started.push(worker),
                Err(error) => {
                    scheduler.stop(GRACE);
                    started.into_iter().for_each(|other| other.wait(None));
                    return Err(error);
                }
            }
        }
        started.iter().for_each(OtherThread::wait_for_beginning);
        Ok(scheduler)
    }

    fn scheduler(&self) -> io::Result<(Arc<Scheduler>, Vec<crate::scheduler::Parts>)> {
        let workers = match self.workers {
            Some(workers) => workers,
            None => match setting("GREENROOM_WORKERS")? {
                Some(0) => return Err(invalid("GREENROOM_WORKERS is 0".into())),
                Some(workers) => NonZeroUsize::new(workers).expect("not zero"),
                None => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            },
        };
        let stack_size = match self.stack_size {
            Some(bytes) => bytes,
            None => match setting("GREENROOM_STACK_SIZE")? {
                Some(bytes) => bytes,
                // As std: a value that is no number counts for nothing.
                None => setting("RUST_MIN_STACK")
                    .unwrap_or(None)
                    .unwrap_or(STACK_SIZE),
            },
        };
        let stack_class = Class::for_size(stack_size)?;
        fork::set_up_process()?;
        Scheduler::new(workers.get(), stack_class)
    }
}

/// A number from the environment.
fn setting(name: &str) -> io::Result<Option<usize>> {
    match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => Ok(None),
        Ok(value) => match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(format!("{name} is {value:?}, not a number"))),
        },
        Err(error) => Err(invalid(format!("{name}: {error}"))),
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The thread of a worker other than worker 0.
struct OtherThread {
    thread: thread::JoinHandle<()>,
    begins: mpsc::Receiver<()>,
    /// Tells that the worker has gone, but its thread stays: hangs up otherwise.
    stays: mpsc::Receiver<()>,
}

impl OtherThread {
    /// Waits until std has set the thread up: it aborts the process if there is no memory for that or
    /// no mapping, and the coroutines that are about to run may take all.
    fn wait_for_beginning(&self) {
        // There is nothing else it can say.
        let _ = excused(|| self.begins.recv());
    }

    /// Waits until the worker has gone, and has left its thread or stays there; until `until` at most.
    /// A coroutine may hold it for longer: then the thread goes on alone.
    fn wait(self, until: Option<Instant>) {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let has_gone = match left {
            Some(left) => self.stays.recv_timeout(left),
            None => self
                .stays
                .recv()
                .map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        match has_gone {
            // It stays, for what it has left behind.
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let thread = self.thread.thread().name().unwrap_or_default();
                let report =
                    format!("greenroom: {thread} is held by a coroutine, and goes on alone\n");
                // Where stderr is gone there is nothing to do.
                let _ = fmt::Write::write_str(&mut Stderr, &report);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                if let Err(payload) = self.thread.join() {
                    // A worker's panic is a bug of this crate, which its hook has reported.
                    mem::forget(payload);
                }
            }
        }
    }
}

fn start_worker(
    index: usize,
    scheduler: &Arc<Scheduler>,
    parts: crate::scheduler::Parts,
) -> io::Result<OtherThread> {
    let scheduler = Arc::clone(scheduler);
    let builder = thread::Builder::new().name(format!("greenroom-{index}"));
    parts.announce();
    let (begin, begins) = mpsc::channel();
    let (stay, stays) = mpsc::channel();
    let thread = builder.spawn(move || {
        let _ = begin.send(());
        fork::set_up_late();
        let worker = Worker::new(scheduler, parts);
        if !worker.drive_until_stopped() {
            return;
        }
        drop(worker);
        // Nobody may be there to hear it.
        let _ = stay.send(());
        loop {
            thread::park();
        }
    })?;
    Ok(OtherThread {
        thread,
        begins,
        stays,
    })
}

/// Workers, and the coroutines that run on them.
///
/// The thread that makes a runtime is its worker 0, during [`run`](Runtime::run): so a runtime
/// does not leave its thread.
///
/// Dropped, it unwinds the coroutines that are left, waits for them, and ends its threads. It leaves those
/// behind that cannot unwind; see the [hazards](crate#hazards) and [`RuntimeBuilder::grace`].
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
    others: RefCell<Vec<OtherThread>>,
    stopped: Cell<bool>,
    grace: Duration,
    thread: PhantomData<*mut ()>,
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
/// [hazards](crate#hazards).
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

/// The runtime of threads that belong to none, from `Arc::into_raw`; null before it is started.
static DEFAULT: AtomicPtr<Scheduler> = AtomicPtr::new(ptr::null_mut());

fn started_default() -> Option<&'static Scheduler> {
    // SAFETY: what is not null came from `into_raw`, and is never dropped.
    unsafe { DEFAULT.load(Ordering::Acquire).as_ref() }
}

/// Calls `f` with the runtime that the caller spawns on: its worker's, or the default one, which
/// this starts.
pub(crate) fn with_current_or_default<R>(
    f: impl FnOnce(&Scheduler) -> io::Result<R>,
) -> io::Result<R> {
    Worker::with_current(|worker| match worker {
        Some(worker) => f(worker.scheduler()),
        None => f(default()?),
    })
}

fn default() -> io::Result<&'static Scheduler> {
    /// Locked while the default runtime starts.
    static STARTING: Mutex<()> = Mutex::new(());
    fork::refuse_in_child()?;
    if let Some(default) = started_default() {
        return Ok(default);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if started_default().is_none() {
        let started = RuntimeBuilder::new().build_detached()?;
        DEFAULT.store(Arc::into_raw(started).cast_mut(), Ordering::Release);
    }
    Ok(started_default().expect("it was just started"))
}
