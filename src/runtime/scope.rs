//! Scoped coroutines, which may borrow from the code that spawns them.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::default_runtime::with_current_or_default;
use super::join::{Join, JoinHandle, PacketGuard, Unjoined};
use super::spawn::Builder;
use super::thread::{self, Thread};
use crate::park::{self, Waiters};
use crate::sys::fork::Process;
use crate::task;
use crate::task::word::Kind;
use crate::worker::Worker;

/// Calls `f`, which can spawn coroutines that borrow from the caller, and waits until all of them have
/// ended.
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
/// If `f` panics, with the same payload. Also if a coroutine of the scope has panicked that was not
/// joined.
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
    // A panic of `f` is caught first, since a wait during an unwind would keep the worker.
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let idle = || scope.data.running.load(Ordering::SeqCst) == 0;
    if !idle() {
        Worker::refuse_to_wait_alone_for("the end of a scope's coroutines");
    }
    // In a forked child the scope's coroutines do not run, so nothing uses what they borrow.
    while !idle() && scope.data.made_by.is_current() {
        // Not interruptible, since the coroutines borrow from this stack.
        scope.data.ended.wait(Kind::Plain, None, idle);
    }
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.data.unjoined_panic.load(Ordering::Relaxed) => {
            panic!("a scoped thread panicked")
        }
        // A coroutine of the scope was unwound, since the runtime shuts down. Unwind this one, too,
        // rather than return as if that coroutine had finished.
        Ok(_) if scope.data.unjoined_cancel.load(Ordering::Relaxed) && task::may_unwind() => {
            park::unwind()
        }
        Ok(value) => value,
    }
}

/// A scope to spawn coroutines in. See [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<ScopeData>,
    /// Invariant in `'scope`, so that this lifetime cannot shrink to a part of the scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Invariant in `'env`, as std's.
    env: PhantomData<&'env mut &'env ()>,
}

/// What a scope shares with its coroutines and their handles.
struct ScopeData {
    /// The process that made the scope.
    made_by: Process,
    /// How many coroutines of this scope have not ended.
    running: AtomicUsize,
    /// A coroutine that was not joined has panicked.
    unjoined_panic: AtomicBool,
    /// A coroutine that was not joined was unwound by its runtime.
    unjoined_cancel: AtomicBool,
    /// Waits until `running` is zero.
    ended: Waiters,
    /// The coroutine or thread that made the scope, for `Debug`.
    main_thread: Thread,
}

impl ScopeData {
    /// Notes how a coroutine has ended that is not joined, if it has not returned.
    fn note(&self, how: Unjoined) {
        let flag = match how {
            Unjoined::Panicked => &self.unjoined_panic,
            Unjoined::Cancelled => &self.unjoined_cancel,
        };
        flag.store(true, Ordering::Relaxed);
    }
}

/// Held by each coroutine of a scope until it uses none of its borrows any more.
struct Member(Arc<ScopeData>);

impl Member {
    fn of(scope: &Arc<ScopeData>) -> Member {
        // Relaxed: `scope` reads the count after `f` has returned. If a coroutine of the scope spawns
        // another one, its own count is given back, with SeqCst, only later.
        scope.running.fetch_add(1, Ordering::Relaxed);
        Member(Arc::clone(scope))
    }
}

impl PacketGuard for Member {
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
    /// If there is no stack for the coroutine, or if the default runtime cannot be started. Use
    /// [`Builder::spawn_scoped`] to get an error instead.
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
    /// Spawns a coroutine with these settings in `scope`. See [`Scope::spawn`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Builder::spawn).
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
            // SAFETY: `f` and `T` live for `'scope`. The guard is a member of the scope, and the scope does
            // not end before the guard was dropped. The handle cannot outlive `'scope` either, by its type.
            unsafe { self.spawn_with_guard(scheduler, site, f, Member::of(&scope.data)) }
        })?;
        Ok(ScopedJoinHandle {
            join: handle.into_inner(),
            data: Arc::clone(&scope.data),
            scope: PhantomData,
        })
    }

    /// Spawns a coroutine that may borrow, without a scope.
    ///
    /// Like [`std::thread::Builder::spawn_unchecked`]. Unsafe code may rely on the join of this coroutine,
    /// so that join is no interruption point: it does not end before the coroutine has ended.
    ///
    /// ```
    /// let words = String::from("one two three");
    /// let borrowed = &words;
    /// let count = move || borrowed.split(' ').count();
    /// // SAFETY: the coroutine is joined before `words` is dropped.
    /// let handle = unsafe { greenroom::Builder::new().spawn_unchecked(count) }.unwrap();
    /// assert_eq!(handle.join().unwrap(), 3);
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Builder::spawn).
    ///
    /// # Safety
    ///
    /// The coroutine does not outlive what `f` and its result borrow. Unless they are `'static`, the caller
    /// must join it before the borrows end.
    #[track_caller]
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let site = Location::caller();
        let handle = with_current_or_default(|scheduler| {
            // SAFETY: the caller promises that what `f` and the result borrow outlives the coroutine, and
            // joins it before the borrows end.
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

// SAFETY: the handle gives access to the result, which is `Send`. Its other parts are `Send` themselves.
unsafe impl<T: Send> Send for ScopedJoinHandle<'_, T> {}
// SAFETY: a shared handle gives no access to the result, only to parts that are `Sync` themselves.
unsafe impl<T: Send> Sync for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the coroutine to finish.
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
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
