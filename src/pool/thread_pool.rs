//! Pools of threads for one kind of calls.
#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use super::crew::Purpose;
use super::{Threads, job};
use crate::sys::fork::{self, Process};
use crate::task;
use crate::task::word::Kind;

/// A pool of OS threads for calls that block, apart from the one of [`unblock`](crate::unblock).
///
/// To bound how many calls of one kind run at once, such as queries of one database, and to keep them from
/// delaying others. Calls wait for a thread in the order in which they came.
///
/// ```
/// let pool = greenroom::ThreadPool::new(2);
/// greenroom::run(|| {
///     let half = pool.call(|| 84 / 2); // may block
///     assert_eq!(half, 42);
/// });
/// ```
///
/// A thread is made when a call needs it, and ends after 5 seconds without a call. Clones share the threads. Calls
/// that are queued when the last clone is dropped are still made.
///
/// If a process forks after its first call, the calling thread makes the calls in the child, since the threads are left
/// in the parent.
#[derive(Clone)]
pub struct ThreadPool {
    threads: Arc<Threads>,
    /// The process that has made the first call, and so has the threads.
    process: Arc<OnceLock<Process>>,
}

impl ThreadPool {
    /// A pool of at most `threads` threads.
    ///
    /// # Panics
    ///
    /// If `threads` is zero.
    #[track_caller]
    pub fn new(threads: usize) -> ThreadPool {
        let threads = NonZero::new(threads).expect("a pool needs a thread");
        // Out of memory, forks are not counted: a child then takes itself for its parent.
        let _ = fork::count_forks();
        ThreadPool {
            threads: Arc::new(Threads::new(threads.get())),
            process: Arc::default(),
        }
    }

    /// Runs `f` on a thread of the pool, and returns what it returns. Parks the calling coroutine meanwhile, and
    /// blocks an OS thread.
    ///
    /// `f` must not wait for another call of the same pool, since that may need the thread of `f`.
    ///
    /// If the system has no thread left for a pool without one, `f` runs on the calling thread.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if `f` panics.
    ///
    /// # Unwinding
    ///
    /// An interruption point: a caller that is interrupted unwinds at once. `f` is still called.
    pub fn call<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if !task::get_or_init_aside(&self.process, Process::current).is_current() {
            return f();
        }
        let (job, result) = job(f);
        if let Err(job) = Threads::run(&self.threads, job, Purpose::Limited) {
            job();
        }
        result.wait(Kind::Event)
    }

    /// The most threads that the pool has.
    pub fn max_threads(&self) -> usize {
        self.threads.most
    }

    /// The number of calls that wait for a thread.
    pub fn queued(&self) -> usize {
        self.threads.lock().queued()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("max_threads", &self.max_threads())
            .field("queued", &self.queued())
            .finish()
    }
}
