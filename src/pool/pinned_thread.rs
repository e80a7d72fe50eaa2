//! Threads for values that must stay on one thread.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ThreadId};

use super::{Job, job, run_job};
use crate::channel::{self, Sender};
use crate::sys::fork::Process;
use crate::task::word::Kind;
use crate::task::{Change, InterruptScope};

/// An OS thread of its own, on which coroutines make calls that block.
///
/// For handles of libraries that may be used on one thread only: make a [`Proxy`] of such a handle. All calls
/// are made one after the other, in the order in which they came.
///
/// ```
/// use greenroom::PinnedThread;
/// use std::rc::Rc;
///
/// # fn main() -> std::io::Result<()> {
/// let thread = PinnedThread::new("database")?;
/// // Neither `Send` nor `Sync`: it never leaves the thread.
/// let handle = thread.proxy(|| Rc::new(42));
/// greenroom::run(|| {
///     assert_eq!(handle.with(|value| **value), 42); // may block
/// });
/// # Ok(())
/// # }
/// ```
///
/// The thread ends when all clones and all proxies are dropped, after the calls that are queued. In a forked child,
/// calls panic, since the thread is left in the parent.
#[derive(Clone)]
pub struct PinnedThread(Arc<Shared>);

struct Shared {
    jobs: Sender<Job>,
    id: ThreadId,
    made_by: Process,
}

thread_local! {
    /// The values of the proxies, on a pinned thread. A value is absent while it is used.
    static VALUES: RefCell<HashMap<u64, Box<dyn Any>>> = RefCell::new(HashMap::new());
}

impl PinnedThread {
    /// Starts a thread with this name.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no thread left.
    ///
    /// # Panics
    ///
    /// If the name contains a zero byte.
    pub fn new(name: impl Into<String>) -> io::Result<PinnedThread> {
        let (jobs, queued) = channel::unbounded::<Job>();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            while let Ok(job) = queued.recv() {
                run_job(job);
            }
        })?;
        let id = thread.thread().id();
        // Forks are counted since the channel was made.
        let made_by = Process::current();
        Ok(PinnedThread(Arc::new(Shared { jobs, id, made_by })))
    }

    /// Runs `f` on the thread, and returns what it returns. Parks the calling coroutine meanwhile, and blocks an
    /// OS thread. On the thread itself, calls `f` at once.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if `f` panics. Panics in a forked child of the process that has started the thread.
    ///
    /// # Unwinding
    ///
    /// An interruption point: a caller that is interrupted unwinds at once. `f` is still called.
    pub fn call<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if thread::current().id() == self.0.id {
            return f();
        }
        assert!(
            self.0.made_by.is_current(),
            "this process is a fork, and the pinned thread is left in the parent"
        );
        let (job, result) = job(f);
        self.submit(job);
        result.wait(Kind::Event)
    }

    /// Calls `make` on the thread, and returns a proxy of its value, which stays there.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if `make` panics.
    ///
    /// # Unwinding
    ///
    /// As [`call`](PinnedThread::call).
    pub fn proxy<T, F>(&self, make: F) -> Proxy<T>
    where
        T: 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self.try_proxy(|| Ok::<T, std::convert::Infallible>(make())) {
            Ok(proxy) => proxy,
            Err(never) => match never {},
        }
    }

    /// Like [`proxy`](PinnedThread::proxy), for a value that may not come about.
    ///
    /// # Errors
    ///
    /// Those of `make`.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if `make` panics.
    ///
    /// # Unwinding
    ///
    /// As [`call`](PinnedThread::call).
    pub fn try_proxy<T, E, F>(&self, make: F) -> Result<Proxy<T>, E>
    where
        T: 'static,
        E: Send + 'static,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);

        // Made first, so that a value whose caller is gone is dropped.
        let proxy = Proxy {
            thread: self.clone(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            value: PhantomData,
        };
        let number = proxy.number;
        self.call(move || {
            let value: Box<dyn Any> = Box::new(make()?);
            VALUES.with_borrow_mut(|values| values.insert(number, value));
            Ok(())
        })?;
        Ok(proxy)
    }

    /// The number of calls that wait for the thread.
    pub fn queued(&self) -> usize {
        self.0.jobs.len()
    }

    fn submit(&self, job: Job) {
        if !self.0.made_by.is_current() {
            return;
        }
        // A send may yield. No interrupt must keep the job from the thread then.
        let sent = InterruptScope::enter(Change::Shield, |_| self.0.jobs.send(job));
        // The thread receives until all senders are gone, and this is one.
        if sent.is_err() {
            unreachable!("a pinned thread has ended before its handle");
        }
    }
}

impl fmt::Debug for PinnedThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedThread")
            .field("id", &self.0.id)
            .field("queued", &self.queued())
            .finish()
    }
}

/// A value on a [`PinnedThread`], for use from anywhere.
///
/// When the proxy is dropped, the value is dropped on its thread, after the calls that are queued.
pub struct Proxy<T> {
    thread: PinnedThread,
    number: u64,
    /// The value is used on its thread only, so the proxy is `Send` and `Sync` whatever `T` is.
    value: PhantomData<fn(T) -> T>,
}

impl<T: 'static> Proxy<T> {
    /// Calls `f` with the value, on its thread, and returns what `f` returns. Parks the calling coroutine
    /// meanwhile, and blocks an OS thread.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if `f` panics. The value is still there afterwards. Panics if `f`, on the thread, calls
    /// this for the same value.
    ///
    /// # Unwinding
    ///
    /// An interruption point: a caller that is interrupted unwinds at once. `f` is still called.
    pub fn with<F, R>(&self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let number = self.number;
        self.thread.call(move || {
            let mut taken = TakenValue::take(number);
            let value = taken.value.as_mut().and_then(|value| value.downcast_mut());
            f(value.expect("the value of a proxy is in use by a call further out"))
        })
    }

    /// The thread of the value.
    pub fn thread(&self) -> &PinnedThread {
        &self.thread
    }
}

impl<T> Drop for Proxy<T> {
    fn drop(&mut self) {
        let number = self.number;
        let drop_value = move || {
            // Not while the map is borrowed: the destructor may use another proxy.
            let value = VALUES.with_borrow_mut(|values| values.remove(&number));
            drop(value);
        };
        self.thread.submit(Box::new(drop_value));
    }
}

impl<T> fmt::Debug for Proxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// A value that is used, and put back when this is dropped.
struct TakenValue {
    number: u64,
    value: Option<Box<dyn Any>>,
}

impl TakenValue {
    fn take(number: u64) -> TakenValue {
        let value = VALUES.with_borrow_mut(|values| values.remove(&number));
        TakenValue { number, value }
    }
}

impl Drop for TakenValue {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            VALUES.with_borrow_mut(|values| values.insert(self.number, value));
        }
    }
}
