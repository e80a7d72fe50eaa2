//! Handles that are dropped although their coroutines have results.
#![forbid(unsafe_code)]

use std::any::type_name;
use std::collections::HashSet;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::unjoined::call_uninterrupted;
use crate::task::{self, Description, Task};

type Hook = dyn Fn(&DroppedHandle<'_>) + Send + Sync;

struct Lint {
    hook: Arc<Hook>,
    /// The places that the hook was told of.
    told: HashSet<&'static Location<'static>>,
}

static LINT: Mutex<Option<Lint>> = Mutex::new(None);

/// Whether there is a hook. While it is false, a dropped handle costs one load.
static IS_SET: AtomicBool = AtomicBool::new(false);

/// Has `hook` called when the handle of a coroutine is dropped without a join, and a result gets lost with it.
///
/// Dropping a handle is how a coroutine is detached, so this is no error. But a result that nobody looks at may
/// be an `Err`. This finds such coroutines while a program is developed, once for each place that spawns
/// them:
///
/// ```
/// use std::sync::mpsc;
///
/// let (tell, told) = mpsc::channel();
/// greenroom::set_dropped_handle_hook(move |dropped| {
///     let _ = tell.send(dropped.to_string()); // or log it
/// });
/// for word in ["1", "two"] {
///     greenroom::spawn(|| word.parse::<i32>()); // drops the handle
/// }
/// let told = told.recv().unwrap();
/// assert!(told.contains("Result<i32, core::num::error::ParseIntError>"));
/// ```
///
/// The hook is called where the handle is dropped, so a backtrace that it takes has that place. The coroutine may
/// still run then. No interrupt reaches the hook, except that the end of the runtime interrupts its waits. A
/// panic of the hook ends there. A further call of this function replaces the hook, which is then told of
/// each place again.
///
/// The hook is not told
///
/// - if the result has a size of zero, like `()`;
/// - if the coroutine was cancelled, or has panicked: for that, see
///   [`set_unjoined_hook`](crate::set_unjoined_hook);
/// - if the handle is dropped by an unwind, which could not have joined it.
pub fn set_dropped_handle_hook(hook: impl Fn(&DroppedHandle<'_>) + Send + Sync + 'static) {
    let lint = Lint {
        hook: Arc::new(hook),
        told: HashSet::new(),
    };
    let old = task::lock_aside(&LINT).replace(lint);
    IS_SET.store(true, Ordering::Relaxed);
    // Not under the lock: it is the user's.
    drop(old);
}

/// Called when the handle of `task` is dropped, whose result of type `T` was not joined, and which has not
/// panicked so far.
#[inline]
pub(crate) fn note<T>(task: &Task) {
    if size_of::<T>() != 0 && IS_SET.load(Ordering::Relaxed) {
        tell(&DroppedHandle {
            task,
            output: type_name::<T>(),
        });
    }
}

#[cold]
fn tell(dropped: &DroppedHandle<'_>) {
    if dropped.task.is_cancelled() || dropped.task.is_left_in_parent() || task::is_unwinding() {
        return;
    }
    let hook = task::lock_aside(&LINT).as_mut().and_then(|lint| {
        let is_first = lint.told.insert(dropped.spawned_at());
        is_first.then(|| Arc::clone(&lint.hook))
    });
    // The lock is free again.
    if let Some(hook) = hook {
        call_uninterrupted(move || hook(dropped));
    }
}

/// A handle that is dropped although its coroutine has a result. See [`set_dropped_handle_hook`].
///
/// Its `Display` is a sentence without a full stop: the coroutine, where it was spawned, and the type of the
/// result.
pub struct DroppedHandle<'a> {
    task: &'a Task,
    output: &'static str,
}

impl DroppedHandle<'_> {
    /// The coroutine's name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// Where the coroutine was spawned.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.spawned_at()
    }

    /// The type of the result, as [`type_name`] writes it.
    #[must_use]
    pub fn output(&self) -> &'static str {
        self.output
    }
}

impl fmt::Display for DroppedHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (coroutine, output) = (Description(self.task), self.output);
        write!(f, "{coroutine} is not joined, which loses its {output}")
    }
}

impl fmt::Debug for DroppedHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DroppedHandle")
            .field("name", &self.name())
            .field("spawned_at", &format_args!("{}", self.spawned_at()))
            .field("output", &self.output)
            .finish()
    }
}
