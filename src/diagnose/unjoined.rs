//! Panics of coroutines that nobody joins.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use crate::context::{Context, ContextKey};
use crate::park::{self, Cancelled};
use crate::task::{self, Change, InterruptScope, Task};

type Hook = dyn Fn(UnjoinedPanic) + Send + Sync;

/// The hook of the process.
static HOOK: Mutex<Option<Arc<Hook>>> = Mutex::new(None);

/// The innermost hook of the code that runs.
static SCOPED: ContextKey<Option<Arc<ScopedHook>>> = ContextKey::new();

struct ScopedHook {
    hook: Box<Hook>,
    /// The hook around this one.
    outer: Option<Arc<ScopedHook>>,
}

impl Drop for ScopedHook {
    fn drop(&mut self) {
        // One after the other: a chain of spawns may have put any number around each other.
        let mut outer = self.outer.take();
        while let Some(mut hook) = outer.and_then(Arc::into_inner) {
            outer = hook.outer.take();
        }
    }
}

/// Has `hook` called whenever a coroutine has panicked and nobody will join it, because its handle was
/// dropped.
///
/// The panic hook sees every panic when it happens, also those that are caught or joined. This hook sees the
/// failures that would otherwise be lost, with their payloads; but not those that a hook of
/// [`with_unjoined_hook`] gets. It replaces the hook that was set before.
///
/// The hook is called by the coroutine at its end; or, if the handle is dropped after that, where it is
/// dropped. (If it is dropped by a coroutine that unwinds, another coroutine calls the hook.) No interrupt
/// reaches the hook, except that the end of the runtime interrupts its waits. A panic of the hook itself ends
/// there.
///
/// The hook is not called for cancellations; nor for a coroutine of a [`scope`](crate::scope()), since the
/// scope panics then; nor for a member of a [`Group`](crate::Group) whose panic its `join` returns. It is
/// called for the panic of one call of [`every`](crate::every()).
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
pub fn set_unjoined_hook(hook: impl Fn(UnjoinedPanic) + Send + Sync + 'static) {
    let old = task::lock_aside(&HOOK).replace(Arc::new(hook));
    // Not under the lock: it is the user's.
    drop(old);
}

/// Calls `f`, and has `hook` called when a coroutine that was spawned inside has panicked and nobody will join
/// it.
///
/// For the coroutines that `f` spawns, for those that they spawn, and so on, also after `f` has returned: the
/// hook is inherited like a value of a [context](crate::context). So a failure finds the request that it
/// belongs to, however many spawns lie between:
///
/// ```
/// use greenroom::{shims::sync::mpsc, spawn, with_unjoined_hook};
///
/// fn handle() {
///     spawn(|| spawn(|| panic!("no such user"))); // drops both handles
/// }
///
/// # greenroom::run(|| {
/// let (fail, failed) = mpsc::channel();
/// let hook = move |failure: greenroom::UnjoinedPanic| fail.send(failure.to_string()).unwrap();
/// with_unjoined_hook(hook, handle);
/// assert!(failed.recv().unwrap().ends_with("panicked: no such user"));
/// # });
/// ```
///
/// When and where the hook is called is said at [`set_unjoined_hook`]. It is called with the context of the
/// coroutine that has panicked. A panic of `f` itself goes to the caller.
///
/// # Hooks inside each other
///
/// The innermost hook gets the failure, and no other one does. If that hook panics, its panic goes to the hook
/// around it, as if the coroutine had panicked like that; and a panic of the outermost hook to the hook of the
/// process. So a hook passes on what it does not handle in the way of code that has caught a panic:
///
/// ```
/// use greenroom::UnjoinedPanic;
/// use std::panic::resume_unwind;
///
/// fn hook(failure: UnjoinedPanic) {
///     match failure.payload().downcast_ref::<std::io::Error>() {
///         Some(error) => eprintln!("{error}"),
///         None => resume_unwind(failure.into_payload()),
///     }
/// }
/// ```
///
/// Coroutines that a hook spawns have the hooks around it.
pub fn with_unjoined_hook<R>(
    hook: impl Fn(UnjoinedPanic) + Send + Sync + 'static,
    f: impl FnOnce() -> R,
) -> R {
    let hook = ScopedHook {
        hook: Box::new(hook),
        outer: innermost(),
    };
    SCOPED.scope(Some(Arc::new(hook)), f)
}

/// Calls `call`, which calls a hook of the user's. Neither a timeout nor a cancellation around the caller
/// interrupts it. Its panic ends here.
pub(crate) fn call_uninterrupted(call: impl FnOnce()) {
    // A shield, through which the end of the runtime passes.
    let uninterrupted = || {
        InterruptScope::enter(Change::Shield, |_| {
            InterruptScope::enter(Change::End, |_| call());
        });
    };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(uninterrupted)) {
        if park::is_interrupt(&*payload) {
            task::note_unwound();
        }
        // The panic hook has reported a panic of the hook, or of a destructor. The payload is leaked, because
        // dropping that might panic once more.
        mem::forget(payload);
    }
}

/// The innermost hook of the caller.
fn innermost() -> Option<Arc<ScopedHook>> {
    SCOPED.get().flatten()
}

/// The panic of a coroutine that nobody joins. See [`set_unjoined_hook`] and [`with_unjoined_hook`].
///
/// Its `Display` is a sentence without a full stop: the coroutine, where it was spawned, and the message.
pub struct UnjoinedPanic {
    name: Option<Box<str>>,
    spawned_at: &'static Location<'static>,
    payload: Box<dyn Any + Send>,
    /// What the coroutine has inherited, until the hooks are called.
    context: Context,
}

impl UnjoinedPanic {
    /// That of `task`, whose context is `context`. `None`, if the task was cancelled.
    pub(crate) fn of(
        task: &Task,
        payload: Box<dyn Any + Send>,
        context: Context,
    ) -> Option<UnjoinedPanic> {
        (!payload.is::<Cancelled>()).then(|| UnjoinedPanic {
            name: task.name().map(Into::into),
            spawned_at: task.spawned_at(),
            payload,
            context,
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

    /// The payload, to resume the panic or to keep it.
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload
    }

    /// Calls the hooks, until one has returned. Without any, drops the payload.
    #[cold]
    pub(crate) fn tell(mut self) {
        let context = mem::take(&mut self.context);
        call_uninterrupted(|| context.enter(|| self.pass_on()));
    }

    fn pass_on(mut self) {
        let (name, spawned_at) = (self.name.clone(), self.spawned_at);
        let mut next = innermost();
        while let Some(scoped) = next {
            next = scoped.outer.clone();
            let call = || SCOPED.scope(next.clone(), || (scoped.hook)(self));
            match catch_unwind(AssertUnwindSafe(call)) {
                Ok(()) => return,
                // The runtime ends, and has unwound the hook.
                Err(payload) if park::is_interrupt(&*payload) => resume_unwind(payload),
                Err(payload) => {
                    self = UnjoinedPanic {
                        name: name.clone(),
                        spawned_at,
                        payload,
                        context: Context::empty(),
                    };
                }
            }
        }
        let hook = task::lock_aside(&HOOK).clone();
        if let Some(hook) = hook {
            hook(self);
        }
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
