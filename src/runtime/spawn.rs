//! Spawning coroutines.

use std::fmt;
use std::io;
use std::panic::Location;

use super::default_runtime::with_current_or_default;
use super::join::{Guard, JoinHandle, LocalJoinHandle, Packet};
use super::{fork, thread};
use crate::task::{Role, Task, TaskRef};
use crate::worker::{Scheduler, Worker};

/// Spawns a coroutine, and returns the handle to join it.
///
/// It goes to the end of its worker's queue: it does not run before the caller parks or yields,
/// unless another worker has nothing to do and takes it. From then on it stays where it is, so
/// what lives on its stack need not be [`Send`]. On an OS thread that is no worker, this starts
/// the default runtime, whose threads end with the process.
///
/// ```
/// // No runtime is set up: the first spawn starts the default one.
/// let handle = greenroom::spawn(|| "hello".len());
/// assert_eq!(handle.join().unwrap(), 5);
/// ```
///
/// # Panics
///
/// If no stack can be had, or the default runtime not be started; [`Builder::spawn`] returns an
/// error.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new()
        .spawn(f)
        .expect("failed to spawn a coroutine")
}

/// Spawns a coroutine on the calling worker, which it does not leave: so it may capture what is
/// not [`Send`].
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// greenroom::run(|| {
///     let count = Rc::new(Cell::new(0));
///     let counter = Rc::clone(&count);
///     greenroom::spawn_local(move || counter.set(counter.get() + 1)).join().unwrap();
///     assert_eq!(count.get(), 1);
/// });
/// ```
///
/// # Panics
///
/// Off-coroutine, and if no stack can be had; [`Builder::spawn_local`] returns an error.
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> LocalJoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    Builder::new()
        .spawn_local(f)
        .expect("failed to spawn a coroutine")
}

/// The settings of a coroutine, like [`std::thread::Builder`].
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let deep = greenroom::Builder::new().name("deep".into()).stack_size(4 << 20);
/// deep.spawn(|| ())?.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "must eventually spawn the coroutine"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl Builder {
    /// Starts with the defaults: no name, and the runtime's stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the coroutine, for panic messages and [`current`](crate::current). A name with a NUL in
    /// it makes spawning panic, as in std.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// The least usable stack size in bytes. It is rounded up to a power of two, at least 16 KiB.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// As [`spawn`](crate::spawn()).
    ///
    /// # Errors
    ///
    /// The operating system's, when no stack can be had or the default runtime not be started;
    /// `InvalidInput` for a stack of more than 1 GiB; `Unsupported` in a fork of a process that has had a
    /// runtime.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let site = Location::caller();
        // SAFETY: nothing is borrowed.
        with_current_or_default(|scheduler| unsafe {
            self.spawn_with_guard(scheduler, site, f, ())
        })
    }

    #[track_caller]
    pub(crate) fn spawn_on<F, T>(self, scheduler: &Scheduler, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if scheduler.is_left_in_parent() {
            return Err(fork::left_in_parent());
        }
        // SAFETY: nothing is borrowed.
        unsafe { self.spawn_with_guard(scheduler, Location::caller(), f, ()) }
    }

    /// Spawns a coroutine that may borrow.
    ///
    /// # Safety
    ///
    /// What `f` and `T` borrow stays until `guard` has been dropped, or, if the result has not
    /// been taken by then, the handle.
    pub(crate) unsafe fn spawn_with_guard<'a, F, T, G>(
        self,
        scheduler: &Scheduler,
        site: &'static Location<'static>,
        f: F,
        guard: G,
    ) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'a,
        T: Send + 'a,
        G: Guard + Send + 'a,
    {
        // SAFETY: the caller's promise.
        let (task, joined) = unsafe { self.into_task(scheduler, Role::Spawned, site, f, guard)? };
        scheduler.spawn(task);
        // SAFETY: the body was made for `T`, this is its handle, and `T` is `Send`.
        Ok(unsafe { JoinHandle::new(joined) })
    }

    /// As [`spawn_local`](crate::spawn_local()).
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn); `Unsupported` off-coroutine, where there is no worker to stay
    /// on.
    #[track_caller]
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<LocalJoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let site = Location::caller();
        Worker::with_current(|worker| {
            let worker = worker.ok_or_else(|| {
                let why = "spawn_local needs a worker: call it from a coroutine";
                io::Error::new(io::ErrorKind::Unsupported, why)
            })?;
            // SAFETY: nothing is borrowed.
            let (task, joined) =
                unsafe { self.into_task(worker.scheduler(), Role::Local, site, f, ())? };
            worker.spawn_local(task);
            // SAFETY: the body was made for `T`, this is its handle, and stays on this thread.
            Ok(unsafe { LocalJoinHandle::new(joined) })
        })
    }

    /// # Safety
    ///
    /// As [`spawn_with_guard`](Builder::spawn_with_guard).
    unsafe fn into_task<'a, F, T, G>(
        self,
        scheduler: &Scheduler,
        role: Role,
        site: &'static Location<'static>,
        f: F,
        guard: G,
    ) -> io::Result<(TaskRef, TaskRef)>
    where
        F: FnOnce() -> T + 'a,
        T: 'a,
        G: Guard + 'a,
    {
        let name = self.name.map(thread::checked_name);
        let reservation = Some(scheduler.reserve_stack(self.stack_size)?);
        let body = Packet::new(f, guard);
        let task = Task::new(name, site, role, scheduler.number(), reservation, body);
        // SAFETY: the closure, guard and result are used by the run or the abandonment of the task,
        // which drops the guard last, and by the handle.
        Ok(unsafe { TaskRef::pair(task) })
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}
