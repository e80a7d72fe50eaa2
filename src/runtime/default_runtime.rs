//! The default runtime, of threads that drive no worker.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::builder::RuntimeBuilder;
use super::fork;
use crate::worker::{Scheduler, Worker};

/// The default runtime's scheduler, from `Arc::into_raw`; null until it is started.
static DEFAULT: AtomicPtr<Scheduler> = AtomicPtr::new(ptr::null_mut());

/// The default runtime's scheduler, if it has been started.
pub(super) fn started_default() -> Option<&'static Scheduler> {
    // SAFETY: a non-null pointer came from `Arc::into_raw`, and that reference is never dropped.
    unsafe { DEFAULT.load(Ordering::Acquire).as_ref() }
}

/// Calls `f` with the runtime that the calling thread spawns on: its worker's, or the default
/// runtime, which this starts if need be.
pub(crate) fn with_current_or_default<R>(
    f: impl FnOnce(&Scheduler) -> io::Result<R>,
) -> io::Result<R> {
    Worker::with_current(|worker| match worker {
        Some(worker) => f(worker.scheduler()),
        None => f(default()?),
    })
}

/// Held while the default runtime starts.
static STARTING: Mutex<()> = Mutex::new(());

fn default() -> io::Result<&'static Scheduler> {
    fork::refuse_in_child()?;
    if let Some(default) = started_default() {
        return Ok(default);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if started_default().is_none() {
        set_default(RuntimeBuilder::new().build_detached()?);
    }
    Ok(started_default().expect("it was just started"))
}

/// Makes the runtime of `scheduler` the default one, unless code that ran before main has started another.
pub(super) fn make_default(scheduler: &Arc<Scheduler>) {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if started_default().is_none() {
        set_default(Arc::clone(scheduler));
    }
}

/// To be called once, under the lock.
fn set_default(scheduler: Arc<Scheduler>) {
    DEFAULT.store(Arc::into_raw(scheduler).cast_mut(), Ordering::Release);
}
