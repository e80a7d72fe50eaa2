//! Waiting for several coroutines at once.
#![forbid(unsafe_code)]

use std::any::Any;

use super::{Join, JoinHandle, Joined, LocalJoinHandle, is_running, refuse_to_wait_alone};
use crate::interrupt::deadline::Deadline;
use crate::park::Wait;
use crate::runtime::thread::Thread;
use crate::task::word::{Kind, Outcome};
use crate::task::{Awaiter, Awaiting, Joiner, Task};
use sealed::{Awaited, Sealed};

/// A handle that joins a coroutine: [`JoinHandle`], [`LocalJoinHandle`] or
/// [`ScopedJoinHandle`](crate::ScopedJoinHandle).
///
/// The functions that wait for several coroutines take handles of any of these types.
pub trait Joinable: Sealed {
    /// The result of the coroutine.
    type Output;

    /// Waits for the coroutine to finish, and returns its result. See [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
    fn join(self) -> std::thread::Result<Self::Output>
    where
        Self: Sized;

    /// Whether the coroutine has finished, so that [`join`](Joinable::join) would not wait.
    fn is_finished(&self) -> bool;

    /// Cancels the coroutine. See [`JoinHandle::cancel`].
    fn cancel(&self);

    /// The coroutine's handle.
    fn thread(&self) -> &Thread;
}

/// What only the handles of this crate have.
pub(crate) mod sealed {
    use crate::task::Task;
    use crate::task::word::Kind;

    /// A task to wait for.
    #[derive(Clone, Copy, Debug)]
    #[allow(
        unnameable_types,
        reason = "users neither call nor implement the sealed trait"
    )]
    pub struct Awaited<'a> {
        pub(crate) task: &'a Task,
        /// The kind of the wait.
        pub(crate) kind: Kind,
    }

    #[allow(unnameable_types, reason = "so that only this crate implements it")]
    pub trait Sealed {
        #[doc(hidden)]
        fn awaited(&self) -> Awaited<'_>;
    }
}

impl<T> Join<T> {
    pub(crate) fn awaited(&self) -> Awaited<'_> {
        Awaited {
            task: self.thread().task(),
            kind: self.kind,
        }
    }
}

/// Implements [`Joinable`] and `IntoFuture` for a handle with results of type `T`, by its own methods. The
/// field `$join` has its [`Join`].
macro_rules! joinable {
    ($handle:ty, $join:tt $(, $lifetime:lifetime)?) => {
        impl<$($lifetime,)? T> $crate::runtime::join::many::sealed::Sealed for $handle {
            fn awaited(&self) -> $crate::runtime::join::many::sealed::Awaited<'_> {
                self.$join.awaited()
            }
        }

        impl<$($lifetime,)? T> $crate::runtime::join::many::Joinable for $handle {
            type Output = T;

            fn join(self) -> ::std::thread::Result<T> {
                self.join()
            }

            fn is_finished(&self) -> bool {
                self.is_finished()
            }

            fn cancel(&self) {
                self.cancel();
            }

            fn thread(&self) -> &$crate::runtime::thread::Thread {
                self.thread()
            }
        }

        /// Async code can await the coroutine.
        impl<$($lifetime,)? T> ::std::future::IntoFuture for $handle {
            type Output = ::std::thread::Result<T>;
            type IntoFuture = $crate::runtime::join::JoinFuture<$handle>;

            fn into_future(self) -> $crate::runtime::join::JoinFuture<$handle> {
                $crate::runtime::join::JoinFuture::new(self)
            }
        }
    };
}

pub(crate) use joinable;

joinable!(JoinHandle<T>, 0);
joinable!(LocalJoinHandle<T>, join);

/// Waits for all coroutines, and returns their results, in the order of the handles.
///
/// ```
/// let squares = greenroom::join_all((1..=3).map(|n| greenroom::spawn(move || n * n)));
/// let squares: Vec<_> = squares.into_iter().map(Result::unwrap).collect();
/// assert_eq!(squares, [1, 4, 9]);
/// ```
///
/// A failure of one coroutine does not end the wait for the others: see [`try_join_all`].
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`]. The handles are then dropped, which detaches the coroutines.
pub fn join_all<H: Joinable>(
    handles: impl IntoIterator<Item = H>,
) -> Vec<std::thread::Result<H::Output>> {
    // All handles come first: the iterator may spawn the coroutines.
    let handles: Vec<H> = handles.into_iter().collect();
    handles.into_iter().map(H::join).collect()
}

/// Waits for all coroutines, and returns their results, in the order of the handles; or, as soon as one
/// coroutine has failed, cancels the others, waits until they have ended, and returns that failure.
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use std::time::Duration;
///
/// let fails = greenroom::spawn(|| std::panic::resume_unwind(Box::new("no luck")));
/// let takes_long = greenroom::spawn(|| sleep(Duration::from_secs(60)));
/// let failure = greenroom::try_join_all([takes_long, fails]).unwrap_err();
/// assert_eq!(failure.downcast_ref(), Some(&"no luck"));
/// ```
///
/// Coroutines that return a `Result` do not fail in this sense: see [`try_join_all_by`].
///
/// Each end of a coroutine costs a look at all handles that are left. For thousands of coroutines, a
/// [`Group`](crate::Group) is better.
///
/// # Errors
///
/// The payload of the coroutine that has failed first. See [`JoinHandle::join`].
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`]. The coroutines are then cancelled.
pub fn try_join_all<H: Joinable>(
    handles: impl IntoIterator<Item = H>,
) -> Result<Vec<H::Output>, Box<dyn Any + Send>> {
    try_join_all_by(handles, |result| result)
}

/// Like [`try_join_all`], for coroutines whose failures are told by `check`.
///
/// `check` is called with each result, in the order in which the coroutines end.
///
/// ```
/// use greenroom::{spawn, try_join_all_by};
///
/// let parse = ["1", "two", "3"].map(|word| spawn(move || word.parse::<i32>()));
/// let error = try_join_all_by(parse, |joined| joined.unwrap()).unwrap_err();
/// assert_eq!(error.to_string(), "invalid digit found in string");
/// ```
///
/// # Errors
///
/// The first error that `check` returns.
///
/// # Panics
///
/// If `check` panics, or if one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`]. The coroutines are then cancelled.
pub fn try_join_all_by<H: Joinable, T, E>(
    handles: impl IntoIterator<Item = H>,
    mut check: impl FnMut(std::thread::Result<H::Output>) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let mut left = CancelOnDrop(handles.into_iter().enumerate().collect());
    let mut results: Vec<Option<T>> = left.0.iter().map(|_| None).collect();
    while !left.0.is_empty() {
        left.wait(1);
        while let Some(at) = left.position_of_ended() {
            let (index, handle) = left.0.remove(at);
            match check(handle.join()) {
                Ok(result) => results[index] = Some(result),
                Err(error) => {
                    left.cancel();
                    left.wait(left.0.len());
                    return Err(error);
                }
            }
        }
    }
    Ok(results.into_iter().flatten().collect())
}

/// Handles, and the places of their results. Cancels the coroutines when dropped.
struct CancelOnDrop<H: Joinable>(Vec<(usize, H)>);

impl<H: Joinable> CancelOnDrop<H> {
    /// Waits until `count` of the coroutines have finished.
    fn wait(&self, count: usize) {
        let tasks: Vec<_> = self.0.iter().map(|(_, handle)| handle.awaited()).collect();
        wait_for(&tasks, count, Deadline::NEVER);
    }

    fn position_of_ended(&self) -> Option<usize> {
        let mut handles = self.0.iter();
        handles.position(|(_, handle)| handle.awaited().has_ended())
    }

    fn cancel(&self) {
        self.0.iter().for_each(|(_, handle)| handle.cancel());
    }
}

impl<H: Joinable> Drop for CancelOnDrop<H> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Waits until one of the coroutines has finished, removes its handle, and returns the index that the
/// handle had, and the coroutine's result. Returns `None` if there are no handles.
///
/// If several coroutines have finished, the first one in `handles` counts. Each call looks at all handles.
/// For thousands of coroutines, [`Group::imap_unordered`](crate::Group::imap_unordered) is better.
///
/// ```
/// use greenroom::shims::thread::sleep;
/// use std::time::Duration;
///
/// let mut sleepers: Vec<_> = [60_000, 5]
///     .map(|millis| greenroom::spawn(move || sleep(Duration::from_millis(millis))))
///     .into();
/// let (index, result) = greenroom::join_any(&mut sleepers).unwrap();
/// assert_eq!(index, 1);
/// result.unwrap();
/// sleepers[0].cancel();
/// assert!(greenroom::join_any(&mut sleepers).unwrap().1.is_err());
/// assert!(greenroom::join_any(&mut sleepers).is_none());
/// ```
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`]. All handles are then left in `handles`.
pub fn join_any<H: Joinable>(
    handles: &mut Vec<H>,
) -> Option<(usize, std::thread::Result<H::Output>)> {
    let index = wait_any(handles.iter_mut(), Deadline::NEVER)?;
    Some((index, handles.remove(index).join()))
}

/// Waits until one of the coroutines has finished, or until `deadline`. Returns the index of its handle;
/// that of the first one, if several have finished. Returns `None` if none has finished by then, or if there
/// are no handles.
///
/// The handles stay usable. They are borrowed as mutable because only one at a time can wait for a coroutine.
///
/// ```
/// use greenroom::{Deadline, wait_any};
/// use std::time::Duration;
///
/// let (sender, receiver) = greenroom::shims::sync::mpsc::channel();
/// let mut handles = [greenroom::spawn(move || receiver.recv().unwrap())];
/// let soon = Deadline::after(Duration::from_millis(1));
/// assert_eq!(wait_any(&mut handles, soon), None);
/// sender.send(7).unwrap();
/// assert_eq!(wait_any(&mut handles, Deadline::NEVER), Some(0));
/// let [handle] = handles;
/// assert_eq!(handle.join().unwrap(), 7);
/// ```
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`].
pub fn wait_any<'a, H>(
    handles: impl IntoIterator<Item = &'a mut H>,
    deadline: impl Into<Deadline>,
) -> Option<usize>
where
    H: Joinable + ?Sized + 'a,
{
    let tasks = awaited(handles);
    if tasks.is_empty() || wait_for(&tasks, 1, deadline.into()) == 0 {
        return None;
    }
    tasks.iter().position(Awaited::has_ended)
}

/// Waits until all of the coroutines have finished, or until `deadline`. Returns whether they have.
///
/// The handles stay usable. See [`wait_any`].
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`].
pub fn wait_all<'a, H>(
    handles: impl IntoIterator<Item = &'a mut H>,
    deadline: impl Into<Deadline>,
) -> bool
where
    H: Joinable + ?Sized + 'a,
{
    let tasks = awaited(handles);
    wait_for(&tasks, tasks.len(), deadline.into()) == tasks.len()
}

/// Waits until `count` of the coroutines have finished, or until `deadline`. Returns how many have, which may
/// be more. A `count` that is larger than the number of handles means all of them.
///
/// The caller is woken once, when the last of the `count` coroutines has finished. The handles stay usable.
/// See [`wait_any`].
///
/// ```
/// use greenroom::{Deadline, spawn, wait_count};
///
/// // A write is done when two of three replicas have it.
/// let mut replicas = [1, 2, 3].map(|n| spawn(move || n));
/// assert!(wait_count(&mut replicas, 2, Deadline::NEVER) >= 2);
/// ```
///
/// # Panics
///
/// If one of the coroutines is the calling one.
///
/// # Unwinding
///
/// As [`JoinHandle::join`].
pub fn wait_count<'a, H>(
    handles: impl IntoIterator<Item = &'a mut H>,
    count: usize,
    deadline: impl Into<Deadline>,
) -> usize
where
    H: Joinable + ?Sized + 'a,
{
    let tasks = awaited(handles);
    wait_for(&tasks, count.min(tasks.len()), deadline.into())
}

fn awaited<'a, H>(handles: impl IntoIterator<Item = &'a mut H>) -> Vec<Awaited<'a>>
where
    H: Joinable + ?Sized + 'a,
{
    let handles = handles.into_iter();
    handles.map(|handle| (*handle).awaited()).collect()
}

impl Awaited<'_> {
    /// Whether nothing is left to wait for: the task has finished, or does not run in this process.
    pub(super) fn has_ended(&self) -> bool {
        self.task.completion().is_done() || self.task.is_left_in_parent()
    }
}

/// Waits until `count` of the tasks have finished, or until `deadline`. Returns how many have. The caller is
/// the only one that waits for these tasks.
///
/// # Panics
///
/// If one of the tasks is the calling one.
///
/// # Unwinding
///
/// If the caller is interrupted, unless the join of one of the tasks is no interruption point.
fn wait_for(tasks: &[Awaited<'_>], count: usize, deadline: Deadline) -> usize {
    loop {
        let pending = tasks.iter().filter(|awaited| !awaited.has_ended());
        let pending: Vec<_> = pending.map(|awaited| awaited.task).collect();
        let ended = tasks.len() - pending.len();
        if ended >= count {
            return ended;
        }
        assert!(
            !pending.iter().any(|task| is_running(task)),
            "failed to join thread: a coroutine that waits for itself waits for ever"
        );
        if std::thread::panicking() {
            pending.iter().for_each(|task| refuse_to_wait_alone(task));
        }
        let kind = match tasks.iter().any(|awaited| awaited.kind == Kind::Plain) {
            true => Kind::Plain,
            false => Kind::Peer,
        };
        let waited = {
            let wait = Wait::begin(kind);
            let joiner = Joiner::of_several(Awaiter::Task(wait.waiting()), count - ended);
            // From here to the suspension nothing is allocated, since the allocator may wait.
            let mut leaving = LeavingAll(pending);
            leaving.0.retain(|task| {
                let is_registered = task.completion().await_by(&joiner);
                if !is_registered {
                    // A wait that has begun must be suspended. If this ends it, that returns at once.
                    let _ = joiner.arrive(|_| wait.end().then_some(()));
                }
                is_registered
            });
            wait.try_suspend(Awaiting::Described(&Joined(&leaving.0)), deadline.of_wait())
        };
        if waited.or_unwind() == Outcome::TimedOut {
            return tasks.iter().filter(|awaited| awaited.has_ended()).count();
        }
    }
}

/// Takes the joiner back from the completions of these tasks when dropped. Also runs if the joiner unwinds.
struct LeavingAll<'a>(Vec<&'a Task>);

impl Drop for LeavingAll<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|task| task.completion().leave());
    }
}
