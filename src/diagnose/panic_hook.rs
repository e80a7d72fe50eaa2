//! What a panic in a coroutine prints.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::{PanicHookInfo, set_hook, take_hook};

use crate::task::{self, InHook};

/// Wraps the panic hook, for good, and returns whether that is done: a thread that panics cannot do it. To
/// be done once.
///
/// A worker waits with a coroutine that waits in the hook, and the default hook names coroutines. A hook
/// that the user has set is called as before, and may ask [`current`](crate::current) for the name. One
/// that the user sets later takes the place of this one, as hooks do, or calls it.
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
    set_hook(Box::new(move |info| {
        let _in_hook = InHook::enter();
        match is_default {
            true => report(info, &*default),
            false => hook(info),
        }
    }));
    true
}

fn report(info: &PanicHookInfo<'_>, default: &(dyn Fn(&PanicHookInfo<'_>) + Send + Sync)) {
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
