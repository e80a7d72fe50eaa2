//! A runtime as other threads see it.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use super::Runtime;
use super::join::JoinHandle;
use super::spawn::Builder;
use crate::worker::Scheduler;

/// A runtime as any thread may use it: spawns coroutines on it, asks it to stop, and has code called at its end.
///
/// It does not keep the runtime from ending. What is spawned after the end never runs: its closure is dropped, and
/// a join returns [`Cancelled`](crate::Cancelled).
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
/// let handle = runtime.handle();
/// let thread = std::thread::spawn(move || handle.spawn(|| 6 * 7).join().unwrap());
/// runtime.run(|| assert_eq!(greenroom::join_thread(thread).unwrap(), 42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle(Arc<Scheduler>);

impl Runtime {
    /// A handle of this runtime, for any thread.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.scheduler))
    }
}

impl Handle {
    /// The runtime of the calling coroutine. `None` if the caller is no coroutine.
    pub fn current() -> Option<Handle> {
        Scheduler::current().map(Handle)
    }

    /// Spawns a coroutine on the runtime. A worker that sleeps is woken for it.
    ///
    /// # Panics
    ///
    /// If there is no stack to be had; in a forked child of the process that made the runtime.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Builder::new()
            .spawn_on(&self.0, f)
            .expect("failed to spawn a coroutine")
    }

    /// Asks the runtime to stop. Returns at once. From any coroutine or thread, also one that waits for signals;
    /// but not from a signal handler itself.
    ///
    /// - If the runtime is in [`run`](Runtime::run), the main coroutine is cancelled, as by
    ///   [`JoinHandle::cancel`]. It may [catch](crate::catch_cancel) that, and return. Otherwise `run` unwinds
    ///   with the payload [`Cancelled`](crate::Cancelled) after the end of the runtime.
    /// - [`turn`](Runtime::turn) returns [`Turn::Stopped`](crate::Turn::Stopped).
    ///
    /// The thread that is in `run` or gives the turns then drops the runtime, which ends the other coroutines. The
    /// request stays: a later `run` is cancelled before it calls its function. The default runtime has no such
    /// thread, and does not stop.
    ///
    /// ```
    /// use greenroom::{Cancelled, catch_cancel, shims::thread::sleep};
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = greenroom::RuntimeBuilder::new().build()?;
    /// let handle = runtime.handle();
    /// let stopped = runtime.run(|| {
    ///     std::thread::spawn(move || handle.stop());
    ///     catch_cancel(|| sleep(Duration::from_secs(60)))
    /// });
    /// assert_eq!(stopped, Err(Cancelled));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) {
        self.0.ask_to_stop();
    }

    /// Whether the runtime was asked to [stop](Handle::stop), or ends.
    pub fn is_stopping(&self) -> bool {
        self.0.is_asked_to_stop() || self.0.is_stopping()
    }

    /// Has `hook` called at the beginning of the runtime's end, while all its coroutines still run.
    ///
    /// So the hook may wait for them: it can stop a listener, and let requests finish. It is called on a coroutine
    /// of worker 0, and may spawn others. When it has returned, the remaining coroutines unwind; and after that
    /// come the hooks of [`after_shutdown`](Handle::after_shutdown).
    ///
    /// Hooks are called one after the other, in the order in which they were added. All together they have the
    /// [grace](crate::RuntimeBuilder::grace) of the runtime; after that, their waits time out, as by
    /// [`timeout`](crate::timeout()). A panic of a hook ends there. If the runtime is dropped by a coroutine of
    /// another one, that calls the hooks, and this runtime's worker 0 does not run meanwhile.
    ///
    /// A hook that is added later in the end of the runtime is not called. The hooks of the default runtime are
    /// never called, since that does not end; nor are any if [`std::process::exit`] or a signal ends the process.
    ///
    /// ```
    /// use greenroom::{Handle, shims::sync::mpsc};
    ///
    /// let (request, requests) = mpsc::channel();
    /// let (finish, finished) = mpsc::channel();
    /// greenroom::run(|| {
    ///     let server = greenroom::spawn(move || {
    ///         requests.into_iter().for_each(|n: u32| finish.send(n).unwrap());
    ///     });
    ///     let handle = Handle::current().unwrap();
    ///     handle.before_shutdown(move || server.join().unwrap());
    ///     (0..3).for_each(|n| request.send(n).unwrap());
    ///     drop(request);
    /// });
    /// assert_eq!(finished.iter().collect::<Vec<_>>(), [0, 1, 2]);
    /// ```
    pub fn before_shutdown(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.before_shutdown.add(Box::new(hook));
    }

    /// Has `hook` called when the runtime has ended: all its coroutines have unwound or were left behind, and its
    /// threads are gone.
    ///
    /// The hook is called by the thread that drops the runtime, outside of the runtime. Hooks are called one after
    /// the other, in the order in which they were added. A panic of a hook ends there. See also
    /// [`before_shutdown`](Handle::before_shutdown).
    pub fn after_shutdown(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.after_shutdown.add(Box::new(hook));
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("workers", &self.0.workers())
            .field("is_stopping", &self.is_stopping())
            .finish()
    }
}
