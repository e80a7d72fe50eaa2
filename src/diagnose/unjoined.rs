//! Panics of coroutines that nobody joins.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::park::Cancelled;
use crate::task::{self, Task};

type Hook = dyn Fn(&UnjoinedPanic) + Send + Sync;

static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

/// Has `hook` called whenever a coroutine has panicked and nobody will join it, because its handle was
/// dropped.
///
/// The panic hook sees every panic when it happens, also those that are caught or joined. This hook sees the
/// failures that would otherwise be lost, with their payloads. It replaces the hook that was set before.
///
/// The hook is called by the coroutine at its end; or, if the handle is dropped after that, where it is
/// dropped. It is not called for cancellations; nor for a coroutine of a [`scope`](crate::scope()), since the
/// scope panics then; nor for a member of a [`Group`](crate::Group) whose panic its `join` returns. It is
/// called for the panic of one call of [`every`](crate::every()). A panic of the hook itself ends there.
///
/// ```
/// use std::panic::resume_unwind;
/// use std::sync::mpsc;
///
/// let (sender, failures) = mpsc::channel();
/// greenroom::set_unjoined_hook(move |failure| {
///     let _ = sender.send(failure.to_string());
/// });
/// greenroom::Builder::new()
///     .name("worker".into())
///     .spawn(|| resume_unwind(Box::new("no luck")))
///     .unwrap(); // drops the handle
/// let failure = failures.iter().find(|failure| failure.contains("'worker'"));
/// assert!(failure.unwrap().contains("no luck"));
/// ```
pub fn set_unjoined_hook(hook: impl Fn(&UnjoinedPanic) + Send + Sync + 'static) {
    let old = task::lock_aside(&HOOK).replace(Arc::new(hook));
    // Not under the lock: it is the user's.
    drop(old);
}

/// The panic of a coroutine that nobody joins. See [`set_unjoined_hook`].
pub struct UnjoinedPanic {
    name: Option<Box<str>>,
    spawned_at: &'static Location<'static>,
    payload: Box<dyn Any + Send>,
}

impl UnjoinedPanic {
    /// That of `task`. `None`, if the task was cancelled.
    pub(crate) fn of(task: &Task, payload: Box<dyn Any + Send>) -> Option<UnjoinedPanic> {
        (!payload.is::<Cancelled>()).then(|| UnjoinedPanic {
            name: task.name().map(Into::into),
            spawned_at: task.spawned_at(),
            payload,
        })
    }

    /// The coroutine's name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the coroutine was spawned.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// The payload of the panic. An [`io::Error`](std::io::Error), if the coroutine could not start for lack
    /// of memory.
    #[must_use]
    pub fn payload(&self) -> &(dyn Any + Send) {
        &*self.payload
    }

    pub(crate) fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload
    }

    /// Calls the hook, and drops the payload.
    #[cold]
    pub(crate) fn report(self) {
        let hook = task::lock_aside(&HOOK).clone();
        let reported = catch_unwind(AssertUnwindSafe(move || {
            if let Some(hook) = hook {
                hook(&self);
            }
            drop(self);
        }));
        // The panic hook has reported a panic of the hook, or of a destructor. The payload is leaked,
        // because dropping that might panic once more.
        mem::forget(reported);
    }
}

/// Reports the panic of `task`, which nobody joins.
#[cold]
pub(crate) fn report(task: &Task, payload: Box<dyn Any + Send>) {
    if let Some(panic) = UnjoinedPanic::of(task, payload) {
        panic.report();
    }
}

impl fmt::Display for UnjoinedPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("<unnamed>");
        let text = match self.payload.downcast_ref::<String>() {
            Some(text) => text,
            None => self
                .payload
                .downcast_ref()
                .copied()
                .unwrap_or("Box<dyn Any>"),
        };
        let spawned_at = self.spawned_at;
        write!(
            f,
            "coroutine '{name}' (spawned at {spawned_at}) panicked: {text}"
        )
    }
}

impl fmt::Debug for UnjoinedPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnjoinedPanic")
            .field("name", &self.name)
            .field("spawned_at", &format_args!("{}", self.spawned_at))
            .finish_non_exhaustive()
    }
}
