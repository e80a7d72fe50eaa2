//! What a panic in a coroutine prints.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::task;

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// Where the hook lies that was set here last. It is only compared.
static OURS: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

fn address(hook: &Hook) -> *mut () {
    ptr::from_ref(&**hook).cast_mut().cast()
}

/// Makes the default panic hook name coroutines, and returns whether that is done: a thread that
/// panics cannot do it. To be done once.
///
/// A hook that the user has set is called as before, and may ask [`current`](crate::current) for
/// the name.
#[must_use]
pub(crate) fn install_hook() -> bool {
    if std::thread::panicking() {
        return false;
    }
    let hook = take_hook();
    // Taking the hook has put the default one in its place: so this is that.
    let default = take_hook();
    // The default hook is a function, of which all boxes are alike.
    let is_default = std::ptr::eq(&*hook, &*default);
    if is_default {
        set(Box::new(move |info| report(info, &*default)));
    } else {
        wrap(hook);
    }
    true
}

/// Sees to it that panics are taken note of from now on, even if the user has set a hook since: where
/// a runtime stops, coroutines of one thread unwind at the same time, and std does not tell them apart.
pub(crate) fn look_after_hook() {
    if std::thread::panicking() {
        return;
    }
    let hook = take_hook();
    if address(&hook) == OURS.load(Ordering::SeqCst) {
        set_hook(hook);
    } else {
        wrap(hook);
    }
}

fn wrap(hook: Hook) {
    set(Box::new(move |info| {
        task::note_unwinding();
        hook(info);
    }));
}

fn set(hook: Hook) {
    OURS.store(address(&hook), Ordering::SeqCst);
    set_hook(hook);
}

fn report(info: &PanicHookInfo<'_>, default: &(dyn Fn(&PanicHookInfo<'_>) + Send + Sync)) {
    task::note_unwinding();
    let Some(task) = task::running() else {
        return default(info);
    };
    let name = task.name().unwrap_or("<unnamed>");
    let spawned = task.spawned_at();
    let message = info.payload_as_str().unwrap_or("Box<dyn Any>");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let trace = match backtrace.status() {
        BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}"),
        _ => "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
            .to_owned(),
    };
    let report = format!(
        "\ncoroutine '{name}' panicked at {place} (spawned at {spawned}):\n{message}\n{trace}"
    );
    // In one piece, lest two coroutines' reports mix. Where stderr is gone there is nothing to do.
    let _ = std::io::stderr().lock().write_all(report.as_bytes());
}
