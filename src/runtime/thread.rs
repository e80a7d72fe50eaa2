//! The handle of a coroutine or OS thread, as `thread::current()` returns it.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::task::{self, TaskRef};

/// A handle to a coroutine or an OS thread.
///
/// Like [`std::thread::Thread`]. [`shims::thread`](crate::shims::thread) has it in place of that type.
#[derive(Clone)]
pub struct Thread {
    task: TaskRef,
}

impl Thread {
    pub(crate) fn of(task: TaskRef) -> Thread {
        Thread { task }
    }

    pub(crate) fn task(&self) -> &TaskRef {
        &self.task
    }

    /// The number of this coroutine or thread. No other one of the process has it, now or later.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        ThreadId(self.task.id())
    }

    /// The coroutine's name, if [`Builder::name`](crate::Builder::name) has set one; or the OS thread's
    /// name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// Makes the park token of this coroutine or thread available. Ends its current
    /// [`park`](crate::park()), or makes its next one return at once.
    pub fn unpark(&self) {
        self.task.unpark();
    }
}

// As std's handle: no invariant of it can be broken by a panic.
impl UnwindSafe for Thread {}
impl RefUnwindSafe for Thread {}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// The number of a coroutine or OS thread. It is never given to another one of the process.
///
/// Like [`std::thread::ThreadId`], which is a different type because only std can make its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(NonZeroU64);

/// The handle of the calling coroutine or OS thread.
///
/// ```
/// let builder = greenroom::Builder::new().name("reader".into());
/// let reader = builder.spawn(|| greenroom::current().name().map(str::to_owned)).unwrap();
/// assert_eq!(reader.join().unwrap().as_deref(), Some("reader"));
/// ```
///
/// The first thread of the process is called `main`. So are the main coroutines of
/// [`run`](crate::run), though they are different ones:
///
/// ```standalone_crate
/// let main = greenroom::current();
/// assert_eq!(main.name(), Some("main"));
/// let inside = greenroom::run(greenroom::current);
/// assert_eq!(inside.name(), Some("main"));
/// assert_ne!(inside.id(), main.id());
/// assert_eq!(greenroom::spawn(|| ()).thread().name(), None);
/// ```
#[must_use]
pub fn current() -> Thread {
    Thread::of(task::current())
}

/// Checks a name that is about to be given to a coroutine.
///
/// # Panics
///
/// If the name contains a NUL byte, as std does.
pub(crate) fn checked_name(name: String) -> Box<str> {
    if name.contains('\0') {
        let why = CString::new(name).expect_err("there is one");
        panic!("thread name may not contain interior null bytes: {why:?}");
    }
    name.into_boxed_str()
}

const _: () = {
    const fn as_stds<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    as_stds::<Thread>();
    as_stds::<ThreadId>();
};
