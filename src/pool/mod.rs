//! The pool for what can only block: name resolution, regular files, calls into C.

mod crew;
pub(crate) mod resolver;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::park::Waiters;
use crate::sys::switches::{excused, own_lock};
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Deadline};
use crew::{Crew, Needs, Purpose};

/// The most threads of the pool.
const THREADS: usize = 256;

/// How many of its threads wait for others at once before [`many_wait`].
const MANY: usize = 64;

/// How long a thread of the pool waits for a job before it ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `f`, which blocks, on a thread of the pool, and parks the calling coroutine until it is
/// done. Off-coroutine, it runs `f` where it is.
///
/// The pool is shared by the process. It has up to 256 threads, which end after 5 seconds without
/// a job; beyond that, jobs queue: so none may wait for another. (What the [shims](crate::shims)
/// leave to the pool and may wait for others, such as the lock of a file, the other end of a named
/// pipe or room in the queue of a Unix listener, is not counted.)
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
/// With `f`'s panic.
///
/// # Unwinding
///
/// If the runtime shuts down meanwhile, this unwinds at once, and `f` runs to its end alone.
pub fn unblock<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed.
    unsafe { on_pool(Kind::Event, Purpose::Limited, f) }
}

/// As [`unblock`], for a call that waits for others, who may need the pool themselves: its thread is
/// not one of the limited number.
pub(crate) fn unblock_waiting<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    // SAFETY: nothing is borrowed.
    unsafe { on_pool(Kind::Event, Purpose::Waiting, f) }
}

/// Whether so many threads of the pool wait for others that a caller with another way to wait takes
/// that one.
pub(crate) fn many_wait() -> bool {
    POOL.lock().waiting() >= MANY
}

/// As [`unblock`], for a call that borrows, and is over soon: the caller is not interrupted while it
/// waits for that.
pub(crate) fn unblock_borrowed<'a, F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
{
    // SAFETY: a wait of this kind ends when `f` has, and not before; a caller that is given up
    // amid it stays with its stack.
    unsafe { on_pool(Kind::Borrowed, Purpose::Limited, f) }
}

/// As [`unblock_waiting`], for a destructor: the caller is not interrupted while it waits. One that
/// unwinds leaves `f` to the pool.
pub(crate) fn unblock_in_drop(f: impl FnOnce() + Send + 'static) {
    if task::on_coroutine() && task::is_unwinding() {
        if let Err(job) = POOL.run(Box::new(f), Purpose::Waiting) {
            // As below.
            job();
        }
        return;
    }
    // SAFETY: nothing is borrowed.
    unsafe { on_pool(Kind::Borrowed, Purpose::Waiting, f) }
}

/// # Safety
///
/// What `f` and `T` borrow stays until this returns; if waits of this kind can be interrupted, for
/// ever.
unsafe fn on_pool<'a, F, T>(kind: Kind, purpose: Purpose, f: F) -> T
where
    F: FnOnce() -> T + Send + 'a,
    T: Send + 'a,
{
    if !task::on_coroutine() {
        return f();
    }
    let result = Arc::new(Pending::new());
    let filled = Arc::clone(&result);
    let job: Box<dyn FnOnce() + Send + 'a> = Box::new(move || {
        filled.fill(catch_unwind(AssertUnwindSafe(f)));
    });
    // SAFETY: only the lifetime changes. Of what the job borrows it uses nothing after it has filled
    // the result, but drops its share of that, which the caller has taken; and until it is filled,
    // the caller waits, or all stays for ever.
    let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Job>(job) };
    if let Err(job) = POOL.run(job, purpose) {
        // Not one thread can be had: better late than never.
        job();
    }
    result.wait(kind, None).expect("there is no deadline")
}

/// Has the pool do `job`, for which nobody waits here.
pub(crate) fn submit(job: Job) {
    if let Err(job) = POOL.run(job, Purpose::Limited) {
        // As above.
        job();
    }
}

/// As `submit`, of a job that waits for others.
pub(crate) fn submit_waiting(job: Job) {
    if let Err(job) = POOL.run(job, Purpose::Waiting) {
        // As above.
        job();
    }
}

/// The result of a job, under way to the one who waits for it.
pub(crate) struct Pending<T> {
    result: Mutex<Option<thread::Result<T>>>,
    waiter: Waiters,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> Pending<T> {
        Pending {
            result: Mutex::new(None),
            waiter: Waiters::new(),
        }
    }

    pub(crate) fn fill(&self, result: thread::Result<T>) {
        *self.result() = Some(result);
        self.waiter.wake_one(|| {});
    }

    /// Waits for it; `None` when `deadline` has passed.
    ///
    /// # Panics
    ///
    /// With the panic that is the result.
    pub(crate) fn wait(&self, kind: Kind, deadline: Option<Deadline>) -> Option<T> {
        let mut outcome = Outcome::Woken;
        loop {
            let result = self.result().take();
            if let Some(result) = result {
                return Some(result.unwrap_or_else(|payload| resume_unwind(payload)));
            }
            if let Outcome::TimedOut = outcome {
                return None;
            }
            let filled = || self.result().is_some();
            outcome = self.waiter.wait(kind, deadline, filled);
        }
    }

    fn result(&self) -> MutexGuard<'_, Option<thread::Result<T>>> {
        own_lock(&self.result)
    }
}

pub(crate) type Job = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool {
    crew: Mutex::new(Crew::new()),
    job_added: Condvar::new(),
};

struct Pool {
    crew: Mutex<Crew<Job>>,
    job_added: Condvar,
}

impl Pool {
    /// Queues the job.
    ///
    /// # Errors
    ///
    /// With the job, if the pool has no thread and gets none.
    fn run(&'static self, job: Job, purpose: Purpose) -> Result<(), Job> {
        let mut crew = task::lock_aside(&self.crew);
        match crew.needs(purpose, THREADS) {
            Needs::Wake => self.job_added.notify_one(),
            Needs::Thread => {
                let thread = thread::Builder::new().name("greenroom-pool".into());
                match excused(|| thread.spawn(|| self.work())) {
                    Ok(_) => crew.count_in(),
                    Err(_) if !crew.has_threads() => return Err(job),
                    // Those there are will come to it.
                    Err(_) => {}
                }
            }
            Needs::Nothing => {}
        }
        crew.add(job, purpose);
        Ok(())
    }

    fn work(&self) {
        let mut crew = self.lock();
        loop {
            while let Some((job, purpose)) = crew.next() {
                drop(crew);
                // Where nobody waits any more, a job ends by dropping its value, which may panic;
                // the hook has reported that.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                    mem::forget(payload);
                }
                crew = self.lock();
                crew.done(purpose);
            }
            crew.begin_idle(THREADS);
            let (woken, wait) = self
                .job_added
                .wait_timeout_while(crew, PATIENCE, |crew| !crew.has_jobs())
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
