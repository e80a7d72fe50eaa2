//! The pool of OS threads for calls that can only block: name resolution, regular files, C libraries.
//!
//! A coroutine boxes the call as a job, queues it and parks. A thread of the pool runs the job, stores
//! the result and wakes the coroutine. `crew` has the protocol between submitters and threads,
//! `resolver` the lookups of host names. `thread_pool` and `pinned_thread` are threads of the user's own.

mod crew;
pub(crate) mod join_thread;
pub(crate) mod pinned_thread;
pub(crate) mod resolver;
pub(crate) mod thread_pool;

use std::io;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::context;
use crate::park::{self, Waited, Waiters};
use crate::sys::switches::{excused, own_lock};
use crate::task::word::Kind;
use crate::task::{self, Deadline, Reason};
pub(crate) use crew::Size;
use crew::{Crew, Needs, Purpose};

/// The most threads of the pool, without those for jobs that wait for others.
const MOST_THREADS: usize = 256;

/// With this number of jobs that wait for others, [`many_wait`] becomes true.
const MANY_WAITING: usize = 64;

/// How long an idle thread waits for a job before it ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs `f`, which may block, on a thread of the pool, and parks the calling coroutine until `f` has
/// returned. Off-coroutine, runs `f` on the calling thread.
///
/// The pool is shared by the whole process. It has up to 256 threads. A thread ends after 5 seconds
/// without a job. When all threads are at work, further jobs queue, so `f` must not wait for another
/// job of the pool. (The [shims](crate::shims) also use the pool for calls that may wait for others: for
/// the lock of a file, for the other end of a named pipe, or for room in the queue of a Unix listener.
/// Each of those gets a thread beyond the 256.)
///
/// ```
/// greenroom::run(|| {
///     let hosts = greenroom::unblock(|| std::fs::read_to_string("/etc/hosts"));
///     assert!(hosts.is_ok());
/// });
/// ```
///
/// # Panics
///
/// Resumes the panic, if `f` panics.
///
/// # Unwinding
///
/// An interruption point: a caller that is interrupted unwinds at once. `f` still runs to its end on the
/// pool.
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: `F` and `T` are `'static`, so what they borrow stays for ever.
    unsafe { on_pool(Kind::Event, Purpose::Limited, f) }
}

/// Like [`unblock`], for a call that waits for other threads or processes, which may need the pool
/// themselves. The job gets a thread beyond the limit.
pub(crate) fn unblock_waiting<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: `F` and `T` are `'static`, so what they borrow stays for ever.
    unsafe { on_pool(Kind::Event, Purpose::Waiting, f) }
}

/// Like [`unblock_waiting`], for an operation that can fail.
///
/// # Errors
///
/// That of an interrupt, if interrupts are delivered as errors. `f` still runs to its end, unless the interrupt came
/// before.
pub(crate) fn unblock_operation<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if !task::on_coroutine() {
        return Ok(f());
    }
    // Only meets an interrupt that is pending. Otherwise the job would do what the caller is told has failed.
    park::pause(Duration::ZERO)?;
    let (job, result) = job(f);
    submit_waiting(job);
    let result = result.wait_for_operation(None)?;
    Ok(result.expect("there is no deadline"))
}

/// Whether so many jobs of the pool wait for others that a caller with another way to wait should use
/// that way.
pub(crate) fn many_wait() -> bool {
    POOL.lock().waiting() >= MANY_WAITING
}

/// Like [`unblock`], for a call that borrows and that returns soon. The wait is not an interruption
/// point, because an interrupted caller would take away what the call still borrows.
pub(crate) fn unblock_borrowed<'a, F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
{
    // SAFETY: a wait of `Kind::Borrowed` is not interrupted: it ends when `f` has returned. Until then
    // the caller's frame, which keeps the borrows alive, stays. If the runtime leaves the coroutine
    // behind in this wait, its stack is leaked, so the frame stays for ever.
    unsafe { on_pool(Kind::Borrowed, Purpose::Limited, f) }
}

/// Like [`unblock_borrowed`], for a call that waits for other threads or processes: it gets a thread beyond the
/// limit.
pub(crate) fn unblock_borrowed_waiting<'a, F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
{
    // SAFETY: as in `unblock_borrowed`.
    unsafe { on_pool(Kind::Borrowed, Purpose::Waiting, f) }
}

/// Like [`unblock_waiting`], for a destructor. The wait is not an interruption point. A caller that
/// unwinds does not wait at all, because it would keep its worker waiting: it leaves `f` to the pool.
pub(crate) fn unblock_in_drop(f: impl FnOnce() + Send + 'static) {
    if task::on_coroutine() && task::is_unwinding() {
        submit_waiting(Box::new(f));
        return;
    }
    // SAFETY: `f` is `'static` and returns nothing, so what they borrow stays for ever.
    unsafe { on_pool(Kind::Borrowed, Purpose::Waiting, f) }
}

/// Runs `f` on the pool and waits for its result by a wait of `kind`. Off-coroutine, runs `f` here.
///
/// # Panics
///
/// Resumes the panic, if `f` panics.
///
/// # Safety
///
/// What `F` and `T` borrow stays valid until this function returns. If waits of `kind` can be
/// interrupted, it stays valid for ever: an interrupt unwinds this function while `f` still runs.
unsafe fn on_pool<'a, F, T>(kind: Kind, purpose: Purpose, f: F) -> T
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
{
    if !task::on_coroutine() {
        return f();
    }
    let f = context::carry(f);
    let result = Arc::new(JobResult::new());
    let filled = Arc::clone(&result);
    let job: Box<dyn FnOnce() + Send + 'a> = Box::new(move || {
        filled.fill(catch_unwind(AssertUnwindSafe(f)));
    });
    // SAFETY: the transmute changes the lifetime alone. The job uses borrowed data only until it has
    // filled the result, because `f` is consumed by then. Until then the data is valid: this function
    // waits, or the caller has promised that the data stays for ever. After that the job drops its
    // `Arc`. It is either not the last one, or the caller has taken the value out of the result.
    let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Job>(job) };
    if let Err(job) = Threads::run(&&POOL, job, purpose) {
        // The pool has no thread and cannot get one. Blocking this worker is better than failing.
        job();
    }
    result.wait(kind)
}

/// Queues `job` without waiting for it. If the pool has no thread and cannot get one, runs it here.
pub(crate) fn submit(job: Job) {
    if let Err(job) = Threads::run(&&POOL, job, Purpose::Limited) {
        job();
    }
}

/// Like [`submit`], for a job that waits for others: it gets a thread beyond the limit.
pub(crate) fn submit_waiting(job: Job) {
    if let Err(job) = Threads::run(&&POOL, job, Purpose::Waiting) {
        job();
    }
}

/// The size of the process's pool.
pub(crate) fn crew_size() -> Size {
    POOL.lock().size()
}

/// Calls `f` with the size of the process's pool, while no thread joins or leaves it. (A thread that has left may still
/// exit.)
pub(crate) fn while_none_leaves<R>(f: impl FnOnce(Size) -> R) -> R {
    let crew = task::lock_aside(&POOL.crew);
    f(crew.size())
}

/// The result of a job, shared by the thread that fills it and the coroutine or thread that waits for
/// it.
pub(crate) struct JobResult<T> {
    /// `None` before it is filled, and after it was taken.
    result: Mutex<Option<thread::Result<T>>>,
    /// The one waiter.
    waiter: Waiters,
}

impl<T> JobResult<T> {
    /// A result that is not filled yet.
    pub(crate) fn new() -> JobResult<T> {
        JobResult::of(Reason::Job)
    }

    /// The same, for a waiter with another reason.
    pub(crate) fn of(reason: Reason) -> JobResult<T> {
        JobResult {
            result: Mutex::new(None),
            waiter: Waiters::new(reason),
        }
    }

    /// Stores the result, and wakes the waiter.
    pub(crate) fn fill(&self, result: thread::Result<T>) {
        *self.result() = Some(result);
        self.waiter.wake_one(|| {});
    }

    /// Waits for the result and takes it.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if the result is one.
    pub(crate) fn wait(&self, kind: Kind) -> T {
        loop {
            if let Some(result) = self.take() {
                return result;
            }
            self.waiter.wait(kind, None, || self.is_filled());
        }
    }

    /// Waits for the result of an operation, and takes it. `None`, if `deadline` has passed without one.
    ///
    /// # Errors
    ///
    /// That of an interrupt, if interrupts are delivered as errors.
    ///
    /// # Panics
    ///
    /// Resumes the panic, if the result is one.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(crate) fn wait_for_operation(&self, deadline: Option<Deadline>) -> io::Result<Option<T>> {
        let mut waited = Waited::Woken;
        loop {
            match (self.take(), waited) {
                (Some(result), _) => return Ok(Some(result)),
                (None, Waited::Woken) => {}
                (None, Waited::TimedOut) => return Ok(None),
                (None, Waited::Interrupted(interrupt)) => return Err(interrupt.deliver()),
            }
            waited = self
                .waiter
                .try_wait(self.waiter.awaiting(), deadline, || self.is_filled());
        }
    }

    /// Takes the result, if it is there.
    fn take(&self) -> Option<T> {
        let result = self.result().take();
        result.map(|result| result.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// Asked under the lock of the waiter, so that a `fill` either is seen or wakes the waiter.
    fn is_filled(&self) -> bool {
        self.result().is_some()
    }

    fn result(&self) -> MutexGuard<'_, Option<thread::Result<T>>> {
        own_lock(&self.result)
    }
}

/// Runs a job on a thread of a pool.
fn run_job(job: Job) {
    // A job catches the panic of its call. But if the waiter is gone, the job drops the value that nobody takes,
    // which may panic, too. The panic hook has reported it. The payload is leaked, because dropping that might
    // panic once more.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
        mem::forget(payload);
    }
}

/// The job that calls `f`, and the result that it fills.
fn job<F, T>(f: F) -> (Job, Arc<JobResult<T>>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let f = context::carry(f);
    let result = Arc::new(JobResult::new());
    let filled = Arc::clone(&result);
    let job = move || filled.fill(catch_unwind(AssertUnwindSafe(f)));
    (Box::new(job), result)
}

/// A call that a thread of the pool makes. It may panic.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

static POOL: Threads = Threads::new(MOST_THREADS);

/// The threads of a pool, and their jobs.
struct Threads {
    crew: Mutex<Crew<Job>>,
    /// Idle threads wait here, under the lock of `crew`.
    job_added: Condvar,
    /// The most threads that there may be, without those for jobs that wait for others.
    most: usize,
}

impl Threads {
    const fn new(most: usize) -> Threads {
        Threads {
            crew: Mutex::new(Crew::new()),
            job_added: Condvar::new(),
            most,
        }
    }

    /// Queues the job, and wakes or makes a thread for it if need be. Each thread keeps a clone of `this`.
    ///
    /// # Errors
    ///
    /// Returns the job, if the pool has no thread and cannot get one.
    fn run<P>(this: &P, job: Job, purpose: Purpose) -> Result<(), Job>
    where
        P: Deref<Target = Threads> + Clone + Send + 'static,
    {
        let mut crew = task::lock_aside(&this.crew);
        match crew.needs(purpose, this.most) {
            Needs::Wake => this.job_added.notify_one(),
            Needs::Thread => {
                let thread = thread::Builder::new().name("greenroom-pool".into());
                let threads = this.clone();
                match excused(|| thread.spawn(move || threads.work())) {
                    Ok(_) => crew.count_in(),
                    Err(_) if !crew.has_threads() => return Err(job),
                    // Out of threads. Those that exist will take the job, later.
                    Err(_) => {}
                }
            }
            Needs::Nothing => {}
        }
        crew.add(job, purpose);
        Ok(())
    }

    /// The loop of a thread of the pool: runs jobs, and leaves after [`IDLE_TIMEOUT`] without one.
    fn work(&self) {
        let mut crew = self.lock();
        loop {
            while let Some((job, purpose)) = crew.next() {
                drop(crew);
                run_job(job);
                crew = self.lock();
                if crew.done(purpose, self.most) {
                    return;
                }
            }
            crew.begin_idle(self.most);
            let (woken, wait) = self
                .job_added
                .wait_timeout_while(crew, IDLE_TIMEOUT, |crew| !crew.has_jobs())
                .unwrap_or_else(PoisonError::into_inner);
            crew = woken;
            if crew.end_idle(wait.timed_out()) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Crew<Job>> {
        own_lock(&self.crew)
    }
}
