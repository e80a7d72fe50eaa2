//! Spawning coroutines.

use std::fmt;
use std::io;
use std::panic::Location;

use super::default_runtime::with_current_or_default;
use super::join::{JoinHandle, LocalJoinHandle, Packet, PacketGuard};
use super::{fork, thread};
use crate::context;
use crate::coroutine::Reservation;
use crate::task::{Interrupts, Role, Task, TaskRef};
use crate::worker::{Scheduler, Worker};

/// Spawns a coroutine and returns a handle to join it.
///
/// The coroutine goes to the end of the calling worker's queue, so it does not run before the caller
/// parks or yields. A worker that has nothing to do may take the coroutine and start it earlier. Once
/// started, a coroutine never moves to another thread, so values on its stack need not be [`Send`].
///
/// On an OS thread that is no worker, this spawns on the default runtime, and starts it first if
/// necessary. The threads of the default runtime end with the process.
///
/// ```
/// // No runtime is set up: the first spawn starts the default one.
/// let handle = greenroom::spawn(|| "hello".len());
/// assert_eq!(handle.join().unwrap(), 5);
/// ```
///
/// # Panics
///
/// If there is no stack for the coroutine, or if the default runtime cannot be started. Use
/// [`Builder::spawn`] to get an error instead.
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

/// Spawns a coroutine that only the calling worker may start. So its closure and result need not be
/// [`Send`].
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
/// If the caller is no coroutine, or if there is no stack for the new one. Use
/// [`Builder::spawn_local`] to get an error instead.
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

/// Spawns a daemon: a coroutine that [`wait_idle`](crate::wait_idle) does not wait for. See
/// [`Builder::daemon`].
///
/// # Panics
///
/// As [`spawn`].
#[track_caller]
pub fn spawn_daemon<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new()
        .daemon(true)
        .spawn(f)
        .expect("failed to spawn a coroutine")
}

/// The settings of a coroutine that is about to be spawned, like [`std::thread::Builder`].
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
    interrupts: Interrupts,
    daemon: bool,
    /// That of the stack, if it was made before the spawn.
    reservation: Option<Reservation>,
}

impl Builder {
    /// The default settings: no name, and the runtime's stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the coroutine. The name appears in panic messages and in [`current`](crate::current).
    ///
    /// If the name contains a NUL byte, spawning panics, as in std.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Sets the usable stack size in bytes. It is rounded up to a power of two, and to at least 16 KiB.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Sets how the coroutine is interrupted: by [`JoinHandle::cancel`] and [`timeout`](crate::timeout).
    ///
    /// [`Interrupts::Errors`] is for code that is not written to be unwound by a wait, for example other
    /// people's code with `unsafe` that was compiled with the shims.
    ///
    /// ```
    /// use greenroom::shims::net::UdpSocket;
    /// use greenroom::{Builder, Cancelled, Interrupts};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let reader = Builder::new()
    ///     .interrupts(Interrupts::Errors)
    ///     .spawn(move || socket.recv(&mut [0; 16]))?;
    /// greenroom::yield_now();
    /// reader.cancel();
    /// match reader.join() {
    ///     Ok(received) => assert!(received.unwrap_err().get_ref().unwrap().is::<Cancelled>()),
    ///     Err(payload) => assert!(payload.is::<Cancelled>(), "it had not started"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn interrupts(mut self, how: Interrupts) -> Builder {
        self.interrupts = how;
        self
    }

    /// Sets whether the coroutine is a daemon: [`wait_idle`](crate::wait_idle) does not wait for it. It differs
    /// in nothing else.
    ///
    /// For coroutines that serve the others for as long as there are any. Coroutines that a daemon spawns
    /// are no daemons, unless they are set to be.
    ///
    /// ```
    /// use greenroom::shims::thread::sleep;
    /// use std::time::Duration;
    ///
    /// greenroom::run(|| {
    ///     let daemon = greenroom::Builder::new().daemon(true);
    ///     daemon.spawn(|| sleep(Duration::from_secs(60))).unwrap();
    ///     greenroom::wait_idle(); // does not wait for the sleeper
    /// });
    /// ```
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.daemon = daemon;
        self
    }

    /// Reserves the stack now, so that a spawn on the runtime of the caller does not fail. For callers that
    /// could not undo what they do between this and the spawn.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Builder::spawn).
    pub(crate) fn with_stack(self) -> io::Result<Builder> {
        with_current_or_default(|scheduler| self.with_stack_of(scheduler))
    }

    /// Like `with_stack`, for a spawn on the runtime of `scheduler`.
    pub(super) fn with_stack_of(mut self, scheduler: &Scheduler) -> io::Result<Builder> {
        self.reservation = Some(scheduler.reserve_stack(self.stack_size)?);
        Ok(self)
    }

    /// Spawns a coroutine with these settings. See [`spawn`](crate::spawn()).
    ///
    /// # Errors
    ///
    /// - the operating system's error, if there is no stack for the coroutine or the default runtime
    ///   cannot be started;
    /// - `InvalidInput` for a stack of more than 1 GiB;
    /// - `Unsupported` in a fork of a process that has had a runtime.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let site = Location::caller();
        // SAFETY: `f` and `T` are `'static`, so what they borrow stays.
        with_current_or_default(|scheduler| unsafe {
            self.spawn_with_guard(scheduler, site, f, ())
        })
    }

    /// Spawns a coroutine on the runtime of `scheduler`.
    #[track_caller]
    pub(crate) fn spawn_on<F, T>(self, scheduler: &Scheduler, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if scheduler.is_left_in_parent() {
            return Err(fork::left_in_parent());
        }
        // SAFETY: `f` and `T` are `'static`, so what they borrow stays.
        unsafe { self.spawn_with_guard(scheduler, Location::caller(), f, ()) }
    }

    /// Spawns a coroutine that may borrow. `guard` is dropped after its closure and, unless the handle
    /// takes the result, after its result.
    ///
    /// # Safety
    ///
    /// What `f` and `T` borrow stays valid until `guard` was dropped; and, if the result has not been
    /// taken or dropped by then, until the handle was dropped.
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
        G: PacketGuard + Send + 'a,
    {
        // SAFETY: the contract is the same.
        unsafe { self.spawn_enlisted(scheduler, site, f, guard, |_| {}) }
    }

    /// Like `spawn_with_guard`. Calls `enlist` with the task before it is queued.
    ///
    /// # Safety
    ///
    /// That of `spawn_with_guard`.
    pub(crate) unsafe fn spawn_enlisted<'a, F, T, G>(
        self,
        scheduler: &Scheduler,
        site: &'static Location<'static>,
        f: F,
        guard: G,
        enlist: impl FnOnce(&TaskRef),
    ) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'a,
        T: Send + 'a,
        G: PacketGuard + Send + 'a,
    {
        // SAFETY: `into_task` demands of what `f` and `T` borrow what our caller promises.
        let (task, joined) = unsafe { self.into_task(scheduler, Role::Spawned, site, f, guard)? };
        enlist(&task);
        scheduler.spawn(task);
        // SAFETY: the task's body was made for results of type `T`, which is `Send`, and this is its only
        // handle.
        Ok(unsafe { JoinHandle::new(joined) })
    }

    /// Spawns the coroutine that fires the timers of `scheduler`'s runtime.
    pub(super) fn spawn_keeper(
        self,
        scheduler: &Scheduler,
        site: &'static Location<'static>,
        f: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        // SAFETY: the closure is `'static`, so what it borrows stays.
        let (task, joined) = unsafe { self.into_task(scheduler, Role::Keeper, site, f, ())? };
        scheduler.spawn(task);
        drop(joined);
        Ok(())
    }

    /// Spawns a coroutine with these settings. See [`spawn_local`](crate::spawn_local()).
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Builder::spawn); and `Unsupported` if the caller is no coroutine, since there is
    /// no worker then that could start the new one.
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
            self.spawn_local_at(worker, site, f)
        })
    }

    /// Spawns a coroutine on `worker`, which belongs to the calling thread.
    pub(crate) fn spawn_local_at<F, T>(
        self,
        worker: &Worker,
        site: &'static Location<'static>,
        f: F,
    ) -> io::Result<LocalJoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        // SAFETY: `f` and `T` are `'static`, so what they borrow stays.
        let (task, joined) =
            unsafe { self.into_task(worker.scheduler(), Role::Local, site, f, ())? };
        worker.spawn_local(task);
        // SAFETY: the task's body was made for results of type `T`, and this is its only handle. The
        // task runs on the calling thread, since only `worker`, which never leaves its thread, starts it.
        Ok(unsafe { LocalJoinHandle::new(joined) })
    }

    /// Makes the task, and reserves its stack. Returns the reference for the scheduler and that for the
    /// handle.
    ///
    /// # Safety
    ///
    /// What `f` and `T` borrow stays valid until `guard` was dropped; and, if the result has not been
    /// taken or dropped by then, until the handle was dropped.
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
        G: PacketGuard + 'a,
    {
        let role = if self.daemon { Role::Daemon } else { role };
        let name = self.name.map(thread::checked_name);
        let reservation = match self.reservation {
            Some(reservation) => reservation,
            None => scheduler.reserve_stack(self.stack_size)?,
        };
        let body = Packet::new(f, guard);
        let task = Task::new(
            name,
            site,
            role,
            scheduler.number(),
            self.interrupts,
            Some(reservation),
            body,
        );
        // SAFETY: the closure and the result are only used when the task runs or is abandoned, which
        // drops the guard last, and by the handle. Our caller promises that what they borrow stays valid
        // for so long.
        let (task, joined) = unsafe { TaskRef::pair(task) };
        // SAFETY: the task was just made, and is not queued.
        unsafe { context::hand_down(&task) };
        Ok((task, joined))
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").finish_non_exhaustive()
    }
}
