//! Scoped coroutines, which may borrow from the code that spawns them.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::default_runtime::with_current_or_default;
use super::join::many::joinable;
use super::join::{Canceller, Join, JoinHandle};
use super::members::{Member, Members, Panics};
use super::spawn::Builder;
use super::thread::{self, Thread};
use crate::park::{self, Interrupt};
use crate::task::word::Kind;
use crate::task::{self, TaskRef};
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
/// If the caller is interrupted, by a cancellation or a [`timeout`](crate::timeout), the coroutines of the
/// scope are cancelled. The caller unwinds when all of them have ended.
///
/// # Panics
///
/// If `f` panics, with the same payload. Also if a coroutine of the scope has panicked that was not
/// joined.
///
/// # Unwinding
///
/// An interruption point, in the way that was just described.
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope {
        members: Arc::new(Members::new(Panics::Noted)),
        main_thread: thread::current(),
        scope: PhantomData,
        env: PhantomData,
    };
    // An unwind of `f` is caught first, since a wait during an unwind would keep the worker.
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if result
        .as_ref()
        .is_err_and(|payload| park::is_interrupt(&**payload))
    {
        scope.members.cancel();
    }
    let interrupt = scope.wait_for_members();
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if scope.members.has_panicked() => {
            panic!("a scoped thread panicked")
        }
        Ok(value) => {
            if let Some(interrupt) = interrupt {
                interrupt.unwind();
            }
            // Unwind the caller, too, rather than return as if that coroutine had finished.
            if scope.members.was_unwound_by_runtime() && task::may_unwind() {
                park::unwind();
            }
            value
        }
    }
}

/// A scope to spawn coroutines in. See [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    members: Arc<Members>,
    /// The coroutine or thread that made the scope, for `Debug`.
    main_thread: Thread,
    /// Invariant in `'scope`, so that this lifetime cannot shrink to a part of the scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Invariant in `'env`, as std's.
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope, 'env> Scope<'scope, 'env> {
    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Waits until all coroutines of the scope have ended. If the caller is interrupted meanwhile, cancels
    /// them, and goes on waiting. Returns what has interrupted the caller.
    fn wait_for_members(&self) -> Option<Interrupt> {
        if !self.members.is_idle() {
            Worker::refuse_to_wait_alone_for("the end of a scope's coroutines");
        }
        let interrupt = self.members.try_wait().err()?;
        self.members.cancel();
        // This wait does not unwind, because the coroutines borrow from this stack.
        self.members.wait(Kind::Plain, None);
        Some(interrupt)
    }

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
            let member = Member::of(&scope.members);
            let entry = member.entry();
            let enlist = |task: &TaskRef| scope.members.enlist(entry, task);
            // SAFETY: `f` and `T` live for `'scope`. The guard is a member of the scope, and the scope does
            // not end before the guard was dropped. The handle cannot outlive `'scope` either, by its type.
            unsafe { self.spawn_enlisted(scheduler, site, f, member, enlist) }
        })?;
        Ok(ScopedJoinHandle::new(handle, &scope.members))
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

/// The right to join a coroutine of a scope, like [`std::thread::ScopedJoinHandle`]; or one of a
/// [`Group`](crate::Group).
pub struct ScopedJoinHandle<'scope, T> {
    join: Join<T>,
    /// Those of the scope or group that is told if the coroutine was not joined and has panicked.
    members: Arc<Members>,
    scope: PhantomData<&'scope ()>,
}

// SAFETY: the handle gives access to the result, which is `Send`. Its other parts are `Send` themselves.
unsafe impl<T: Send> Send for ScopedJoinHandle<'_, T> {}
// SAFETY: a shared handle gives no access to the result, only to parts that are `Sync` themselves.
unsafe impl<T: Send> Sync for ScopedJoinHandle<'_, T> {}

impl<T> ScopedJoinHandle<'_, T> {
    /// The handle of a coroutine that is among `members`.
    pub(crate) fn new(handle: JoinHandle<T>, members: &Arc<Members>) -> Self {
        ScopedJoinHandle {
            join: handle.into_inner(),
            members: Arc::clone(members),
            scope: PhantomData,
        }
    }

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

    /// Cancels the coroutine. See [`JoinHandle::cancel`]. The scope then does not count it as having
    /// panicked.
    pub fn cancel(&self) {
        self.join.thread().task().cancel();
    }

    /// A handle that can only cancel the coroutine, for any number of holders.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.join.canceller()
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

joinable!(ScopedJoinHandle<'scope, T>, join, 'scope);

impl<T> Drop for ScopedJoinHandle<'_, T> {
    fn drop(&mut self) {
        if let Some(failure) = self.join.detach() {
            let task = self.join.thread().task();
            self.members.note(failure, task);
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("num_running_threads", &self.members.running())
            .field("a_thread_panicked", &self.members.has_panicked())
            .field("main_thread", &self.main_thread)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").finish_non_exhaustive()
    }
}
