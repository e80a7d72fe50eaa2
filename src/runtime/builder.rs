//! The settings of a runtime.
#![forbid(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::fork;
use super::worker_thread::WorkerThread;
use crate::coroutine::Class;
use crate::worker::{Deadlock, OnDeadlock, Parts, PollHooks, Scheduler};

/// The default usable stack size of a coroutine, in bytes of address space.
///
/// `cargo greenroom` sets the cfg: an unmodified program may rely on the size that std's threads have.
const STACK_SIZE: usize = if cfg!(greenroom_whole_program) {
    2 << 20
} else {
    256 << 10
};

/// How long the end of a runtime waits, by default, for coroutines that do not end.
const GRACE: Duration = Duration::from_secs(30);

/// The settings of a runtime.
///
/// A setting that is not made here comes from the environment, or else is the default given below.
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
    on_deadlock: Option<OnDeadlock>,
    poll_hooks: PollHooks,
}

impl RuntimeBuilder {
    /// Starts with the defaults.
    pub fn new() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// The number of OS threads that run coroutines, including the calling thread. Default:
    /// `GREENROOM_WORKERS`, or else [`std::thread::available_parallelism`].
    ///
    /// # Panics
    ///
    /// If `workers` is zero.
    pub fn workers(mut self, workers: usize) -> RuntimeBuilder {
        self.workers = Some(NonZeroUsize::new(workers).expect("a runtime has at least one worker"));
        self
    }

    /// The usable stack size, in bytes, of coroutines whose [`Builder`](crate::Builder) asks for no other.
    /// Default: `GREENROOM_STACK_SIZE`, or else `RUST_MIN_STACK`, or else 256 KiB
    /// (2 MiB, as std's threads, in a program that `cargo greenroom` has built).
    ///
    /// This is address space. A coroutine occupies only the memory that it has touched.
    pub fn stack_size(mut self, bytes: usize) -> RuntimeBuilder {
        self.stack_size = Some(bytes);
        self
    }

    /// How long the end of the runtime waits for coroutines that do not end, because they catch the
    /// unwind and go on, or because their destructors wait. After that time they are left behind and
    /// named on standard error. Default: 30 seconds. [`Duration::MAX`] waits for ever.
    ///
    /// A coroutine may also never return to its worker. Its worker thread then goes on alone. If the
    /// worker is that of the thread which ends the runtime, that thread cannot go on before the
    /// coroutine does.
    pub fn grace(mut self, grace: Duration) -> RuntimeBuilder {
        self.grace = Some(grace);
        self
    }

    /// Calls `hook` if the coroutines of this runtime wait for each other, and nothing else can wake them.
    ///
    /// The hook is called on the thread of a worker, outside of any coroutine, once for each deadlock. It may
    /// [dump](crate::dump()) the coroutines, for their backtraces. It may end the deadlock: by unparking or cancelling a
    /// coroutine, say. If it does not, the runtime hangs. A panic of the hook is caught and ignored.
    ///
    /// # What is found
    ///
    /// A deadlock is reported only if that is certain. The main coroutine waits and so do all others, none of them for
    /// time, for I/O, for a child, for a signal or for a job of the pool; there is no job under way; and the process
    /// has no other thread. A thread of the program's may have a handle of a coroutine, and nobody can tell. So nothing
    /// is reported beside such a thread, nor beside another runtime, nor for the default runtime of an ordinary `main`,
    /// which runs beside the main thread. A handle that only the waiting coroutines have does not count: a coroutine
    /// that receives while it has the only sender is in a deadlock. (One that joins itself panics at once.)
    ///
    /// Nothing is reported either if a coroutine runs a future ([`block_on`](crate::block_on)), whose waker may be
    /// anywhere, or after the runtime has had a timer of [`after`](crate::after()).
    ///
    /// Daemons count as all others do: they wait for what never comes, too.
    ///
    /// # What it costs
    ///
    /// Nothing while coroutines run. A worker that has nothing to run and no timer wakes up once after the duration
    /// `after`, and looks at its coroutines. After that it sleeps. This is why the setting is not on by default. If other
    /// threads exist then, the last worker looks a few times more, after pauses that double.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = greenroom::RuntimeBuilder::new()
    ///     .on_deadlock(Duration::from_millis(100), |deadlock| eprintln!("{deadlock}"))
    ///     .build()?;
    /// # runtime.run(|| ());
    /// # Ok(()) }
    /// ```
    pub fn on_deadlock(
        mut self,
        after: Duration,
        hook: impl Fn(&Deadlock) + Send + Sync + 'static,
    ) -> RuntimeBuilder {
        let hook = Arc::new(hook);
        self.on_deadlock = Some(OnDeadlock { after, hook });
        self
    }

    /// Has each worker call `hook` before each of its looks at I/O and timers, which may block.
    ///
    /// A worker has run a batch of coroutines by then. It calls the hook on its own thread, outside of
    /// coroutines, so a wait in the hook blocks the worker. What the hook spawns or wakes is run before the worker
    /// blocks. The hook is not called any more while the runtime ends. The second call replaces the hook of the
    /// first.
    ///
    /// For what is to be done once for many coroutines: to flush a buffer that they share, for instance.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let looks = Arc::new(AtomicUsize::new(0));
    /// let count = {
    ///     let looks = Arc::clone(&looks);
    ///     move || _ = looks.fetch_add(1, Ordering::Relaxed)
    /// };
    /// let runtime = greenroom::RuntimeBuilder::new().before_poll(count).build()?;
    /// runtime.run(|| greenroom::shims::thread::sleep(std::time::Duration::from_millis(1)));
    /// assert_ne!(looks.load(Ordering::Relaxed), 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of the hook aborts the process.
    pub fn before_poll(mut self, hook: impl Fn() + Send + Sync + 'static) -> RuntimeBuilder {
        self.poll_hooks.before = Some(Arc::new(hook));
        self
    }

    /// Has each worker call `hook` after each of its looks at I/O and timers, before it runs the coroutines that
    /// these have woken. See [`before_poll`](RuntimeBuilder::before_poll).
    ///
    /// # Panics
    ///
    /// A panic of the hook aborts the process.
    pub fn after_poll(mut self, hook: impl Fn() + Send + Sync + 'static) -> RuntimeBuilder {
        self.poll_hooks.after = Some(Arc::new(hook));
        self
    }

    /// Starts a runtime that has a thread for each worker. The threads end with the process.
    pub(super) fn build_detached(self) -> io::Result<Arc<Scheduler>> {
        let (scheduler, parts) = self.scheduler()?;
        let mut started = Vec::new();
        for (index, parts) in parts.into_iter().enumerate() {
            match WorkerThread::start(index, &scheduler, parts) {
                Ok(worker) => started.push(worker),
                Err(error) => {
                    scheduler.stop();
                    started.into_iter().for_each(|worker| worker.wait(None));
                    return Err(error);
                }
            }
        }
        started.iter().for_each(WorkerThread::wait_for_beginning);
        Ok(scheduler)
    }

    pub(super) fn scheduler(&self) -> io::Result<(Arc<Scheduler>, Vec<Parts>)> {
        let workers = match self.workers {
            Some(workers) => workers,
            None => match setting("GREENROOM_WORKERS")? {
                Some(0) => return Err(invalid("GREENROOM_WORKERS is 0".into())),
                Some(workers) => NonZeroUsize::new(workers).expect("not zero"),
                None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            },
        };
        let stack_size = match self.stack_size {
            Some(bytes) => bytes,
            None => match setting("GREENROOM_STACK_SIZE")? {
                Some(bytes) => bytes,
                // std, too, ignores a value that is not a number.
                None => setting("RUST_MIN_STACK")
                    .unwrap_or(None)
                    .unwrap_or(STACK_SIZE),
            },
        };
        let stack_class = Class::for_size(stack_size)?;
        fork::set_up_process()?;
        let grace = self.grace.unwrap_or(GRACE);
        let hooks = self.poll_hooks.clone();
        Scheduler::new(
            workers.get(),
            stack_class,
            grace,
            self.on_deadlock.clone(),
            hooks,
        )
    }
}

/// A number from the environment variable `name`.
///
/// # Errors
///
/// `InvalidInput`, if the value is not a number.
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
