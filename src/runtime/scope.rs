//! Scoped coroutines, which may borrow from their spawner.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::default_runtime::with_current_or_default;
use super::join::{Guard, Join, JoinHandle, Unjoined};
use super::spawn::Builder;
use super::thread::{self, Thread};
use crate::park::{self, Waiters};
use crate::sys::fork::Process;
use crate::task;
use crate::task::word::Kind;
use crate::worker::Worker;

/// Runs `f`, which can spawn coroutines that borrow from the caller, and waits for all of them.
///
/// Like [`std::thread::scope`].
///
/// ```
/// let mut numbers = vec![1, 2, 3];
/// let mut sum = 0;
/// greenroom::scope(|s| {
///     s.spawn(|| sum = numbers.iter().sum());
///     s.spawn(|| assert_eq!(numbers.len(), 3));
/// });
/// numbers.push(sum);
/// assert_eq!(numbers, [1, 2, 3, 6]);
/// ```
///
/// # Panics
///
/// With `f`'s panic; if a coroutine panicked that was not joined.
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope {
        data: Arc::new(ScopeData {
            made_by: Process::current(),
            running: AtomicUsize::new(0),
            unjoined_panic: AtomicBool::new(false),
            unjoined_cancel: AtomicBool::new(false),
            ended: Waiters::new(),
            main_thread: thread::current(),
        }),
        scope: PhantomData,
        env: PhantomData,
    };
    // Caught first, so that the wait is not part of an unwind.
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let idle = || scope.data.running.load(Ordering::SeqCst) == 0;
    if !idle() {
        Worker::refuse_to_wait_alone_for("the end of a scope's coroutines");
    }
    // In a fork of the process the children are not there, and nobody uses what they borrow.
    while !idle() && scope.data.made_by.is_current() {
        // Not interruptible: the children borrow from this stack.
        scope.data.ended.wait(Kind::Plain, None, idle);
    }
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.data.unjoined_panic.load(Ordering::Relaxed) => {
            panic!("a scoped thread panicked")
        }
        // The runtime shuts down, and this coroutine with it.
        Ok(_) if scope.data.unjoined_cancel.load(Ordering::Relaxed) && task::may_unwind() => {
            park::unwind()
        }
        Ok(value) => value,
    }
}

/// A scope to spawn coroutines in. See [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<ScopeData>,
    /// Invariant, so that `'scope` cannot shrink to a part of the scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

struct ScopeData {
    made_by: Process,
    /// Coroutines of this scope that have not ended.
    running: AtomicUsize,
    unjoined_panic: AtomicBool,
    unjoined_cancel: AtomicBool,
    ended: Waiters,
    /// Whose scope it is, for those who want to see that.
    main_thread: Thread,
}

impl ScopeData {
    /// Takes note of a coroutine that did not end well, and that nobody joined.
    fn note(&self, how: Unjoined) {
        let flag = match how {
            Unjoined::Panicked => &self.unjoined_panic,
            Unjoined::Cancelled => &self.unjoined_cancel,
        };
        flag.store(true, Ordering::Relaxed);
    }
}

/// Held by each coroutine of a scope until the last of what it borrows has been used.
struct Member(Arc<ScopeData>);

impl Member {
    fn of(scope: &Arc<ScopeData>) -> Member {
        scope.running.fetch_add(1, Ordering::Relaxed);
        Member(Arc::clone(scope))
    }
}

impl Guard for Member {
    fn unjoined(&self, how: Unjoined) {
        self.0.note(how);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.ended.wake_all();
        }
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Spawns a coroutine in this scope.
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        Builder::new()
            .spawn_scoped(self, f)
            .expect("failed to spawn a coroutine")
    }
}

impl Builder {
    /// As [`Scope::spawn`].
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let site = Location::caller();
        let handle = with_current_or_default(|scheduler| {
            // SAFETY: the guard is a member of the scope, which does not end before that is
            // dropped; and the handle does not leave `'scope`.
            unsafe { self.spawn_with_guard(scheduler, site, f, Member::of(&scope.data)) }
        })?;
        Ok(ScopedJoinHandle {
            join: handle.into_inner(),
            data: Arc::clone(&scope.data),
            scope: PhantomData,
        })
    }

    /// As [`spawn`](Builder::spawn), of a coroutine that may borrow.
    ///
    /// Like [`std::thread::Builder::spawn_unchecked`]. For code to be able to rely on it, joining
    /// this coroutine is no interruption point: the join ends with the coroutine, and not before.
    ///
    /// ```
    /// let words = String::from("one two three");
    /// let borrowed = &words;
    /// let count = move || borrowed.split(' ').count();
    /// // SAFETY: it is joined before `words` goes.
    /// let handle = unsafe { greenroom::Builder::new().spawn_unchecked(count) }.unwrap();
    /// assert_eq!(handle.join().unwrap(), 3);
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Builder::spawn).
    ///
    /// # Safety
    ///
    /// The coroutine does not outlive what `f` and its result borrow: it is joined before, if
    /// that is not `'static`.
    #[track_caller]
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let site = Location::caller();
        let handle = with_current_or_default(|scheduler| {
            // SAFETY: what is borrowed outlives the coroutine and its result, says the caller.
            unsafe { self.spawn_with_guard(scheduler, site, f, ()) }
        })?;
        Ok(handle.committed())
    }
}

/// The right to join a scoped coroutine, like [`std::thread::ScopedJoinHandle`].
pub struct ScopedJoinHandle<'scope, T> {
    join: Join<T>,
    data: Arc<ScopeData>,
    scope: PhantomData<&'scope ()>,
}

// SAFETY: the result crosses to the joiner, and `T: Send`; what else there is may be shared.
unsafe impl<T: Send> Send for ScopedJoinHandle<'_, T> {}
// SAFETY: a shared handle gives no access to the result.
unsafe impl<T: Send> Sync for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the coroutine to finish.
    ///
    /// # Errors
    ///
    /// As [`JoinHandle::join`].
    ///
    /// # Panics
    ///
    /// If the coroutine joins itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn join(self) -> std::thread::Result<T> {
        self.join.join()
    }

    /// The coroutine's handle.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        self.join.thread()
    }

    /// Whether the coroutine has finished, so that [`join`](ScopedJoinHandle::join) would not wait.
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

impl<T> Drop for ScopedJoinHandle<'_, T> {
    fn drop(&mut self) {
        if let Some(how) = self.join.detach() {
            self.data.note(how);
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.data.running.load(Ordering::Relaxed);
        let panicked = self.data.unjoined_panic.load(Ordering::Relaxed);
        f.debug_struct("Scope")
            .field("num_running_threads", &running)
            .field("a_thread_panicked", &panicked)
            .field("main_thread", &self.data.main_thread)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}
