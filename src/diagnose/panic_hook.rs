//! The panic hook: the report of a panic in a coroutine names the coroutine.
#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::env;
use std::io::Write;
use std::panic::{PanicHookInfo, set_hook, take_hook};

use crate::task::{self, InHook, Role};

/// Wraps the panic hook, for good. Returns whether it did: std does not let a thread that panics change
/// the hook. To be called until it has returned `true`, and not again.
///
/// The wrapper does two things:
///
/// - It marks the hook as running on this thread. While it runs, no other coroutine of the worker may:
///   std notes per thread that a hook runs, and would abort if another coroutine panicked then.
/// - It replaces the report of std's default hook by one that names the coroutine. A hook of the user's
///   is called as before, and can get the name from [`current`](crate::current).
///
/// A hook that the user sets later replaces the wrapper, or calls it, as with any hook.
#[must_use]
pub(crate) fn install_hook() -> bool {
    if std::thread::panicking() {
        return false;
    }
    let hook = take_hook();
    // Taking a hook installs the default one, so the second one taken is the default.
    let default = take_hook();
    // The default hook is a function item, which has no size, so all boxes of it have the same address.
    // The wide pointers are compared: a user's closure of no size has another vtable.
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

/// Reports a panic in the format of std's default hook. Off-coroutine, `default` does it.
fn report(info: &PanicHookInfo<'_>, default: &(dyn Fn(&PanicHookInfo<'_>) + Send + Sync)) {
    let Some(task) = task::running() else {
        return default(info);
    };
    // The program knows nothing of coroutines, and its main function runs on the main thread.
    if cfg!(greenroom_whole_program) && task.role() == Role::Main {
        return default(info);
    }
    let name = task.name().unwrap_or("<unnamed>");
    let spawned = task.spawned_at();
    let payload = info.payload();
    let message = match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref().copied().unwrap_or("Box<dyn Any>"),
    };
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    // As std's hook does. (`Backtrace::capture` would heed `RUST_LIB_BACKTRACE`, too.)
    let style = env::var_os("RUST_BACKTRACE").filter(|style| style != "0");
    let trace = match style {
        Some(style) if style == "full" => {
            format!("stack backtrace:\n{:#}", Backtrace::force_capture())
        }
        Some(_) => format!("stack backtrace:\n{}", Backtrace::force_capture()),
        None => "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
            .to_owned(),
    };
    let report = format!(
        "\ncoroutine '{name}' panicked at {place} (spawned at {spawned}):\n{message}\n{trace}"
    );
    // In one piece, so that the reports of two threads do not mix. A failure to write to standard
    // error is ignored, as the default hook does.
    let _ = std::io::stderr().lock().write_all(report.as_bytes());
}
