//! Code of the user's that the loop of a worker, and the end of a runtime, call.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::fatal;
use crate::sys::switches::own_lock;
use crate::task;

type PollHook = Arc<dyn Fn() + Send + Sync>;

/// What each worker calls around its looks at I/O.
#[derive(Clone, Default)]
pub(crate) struct PollHooks {
    pub(crate) before: Option<PollHook>,
    pub(crate) after: Option<PollHook>,
}

impl PollHooks {
    #[inline]
    pub(super) fn before_poll(&self) {
        if let Some(hook) = &self.before {
            call(&**hook);
        }
    }

    #[inline]
    pub(super) fn after_poll(&self) {
        if let Some(hook) = &self.after {
            call(&**hook);
        }
    }
}

#[cold]
fn call(hook: &dyn Fn()) {
    /// Aborts, because the worker could not go on with its coroutines.
    struct AbortOnUnwind;
    impl Drop for AbortOnUnwind {
        fn drop(&mut self) {
            fatal::abort(format_args!("a hook before or after the poll has panicked"));
        }
    }
    let abort = AbortOnUnwind;
    hook();
    std::mem::forget(abort);
}

impl fmt::Debug for PollHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollHooks")
            .field("before", &self.before.is_some())
            .field("after", &self.after.is_some())
            .finish()
    }
}

type EndHook = Box<dyn FnOnce() + Send>;

/// What a runtime calls once, in the order in which it was added.
#[derive(Default)]
pub(crate) struct EndHooks(Mutex<VecDeque<EndHook>>);

impl EndHooks {
    pub(crate) fn add(&self, hook: EndHook) {
        task::lock_aside(&self.0).push_back(hook);
    }

    /// Takes the next one, which the caller calls. Hooks may add hooks.
    pub(crate) fn next(&self) -> Option<EndHook> {
        own_lock(&self.0).pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        own_lock(&self.0).is_empty()
    }
}
