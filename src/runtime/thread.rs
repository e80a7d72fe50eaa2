//! The handle by which a coroutine or OS thread is known: what `thread::current()` returns.

use std::ffi::CString;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::task::{self, TaskRef};

/// A handle to a coroutine or an OS thread.
///
/// Like [`std::thread::Thread`], which it stands for in [`shims::thread`](crate::shims::thread).
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

    /// The number of this coroutine or thread, which no other has or will have.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        ThreadId(self.task.id())
    }

    /// The name it was given by [`Builder::name`](crate::Builder::name).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// Makes its park token available: ends its [`park`](crate::park), or its next one.
    pub fn unpark(&self) {
        self.task.unpark();
    }
}

// As std's: what others do to the thread meanwhile shows in no invariant of the handle.
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

/// The number of a coroutine or OS thread, never given to another one of the process.
///
/// Like [`std::thread::ThreadId`], of which only std can make values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(NonZeroU64);

/// The handle of the calling coroutine, or OS thread.
///
/// ```
/// let builder = greenroom::Builder::new().name("reader".into());
/// let reader = builder.spawn(|| greenroom::current().name().map(str::to_owned)).unwrap();
/// assert_eq!(reader.join().unwrap().as_deref(), Some("reader"));
/// ```
///
/// The first thread of the process is called `main`, and so are the main coroutines of
/// [`run`](crate::run), which are others:
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

/// A name to be given to a coroutine.
///
/// # Panics
///
/// If it has a NUL in it, as std does, whose names are C strings.
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
