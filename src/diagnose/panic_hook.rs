//! The panic hook: the report of a panic in a coroutine names the coroutine.
#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::env;
use std::io::Write;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};

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
/// A hook that the user sets later replaces the wrapper, or calls it, as with any hook. Only one that another
/// thread sets between the last [`take_hook`] and [`set_hook`] here is lost: std cannot do both at once.
#[must_use]
pub(crate) fn install_hook() -> bool {
    if std::thread::panicking() {
        return false;
    }
    let (hook, is_default) = last_hook(take_hook);
    set_hook(Box::new(move |info| {
        let _in_hook = InHook::enter();
        match is_default {
            true => report(info, &*hook),
            false => hook(info),
        }
    }));
    true
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// The hook that was set last, and whether it is std's default one. `take` is [`take_hook`].
///
/// Taking a hook installs the default one. So two takes in a row give the same hook only if it is the default one,
/// and no other thread has set one in between.
fn last_hook(mut take: impl FnMut() -> Hook) -> (Hook, bool) {
    let mut before = None;
    let mut last = take();
    loop {
        let next = take();
        // The default hook is a function item, which has no size, so all boxes of it have the same address.
        // The wide pointers are compared: a user's closure of no size has another vtable.
        if std::ptr::eq(&*last, &*next) {
            return match before {
                Some(hook) => (hook, false),
                None => (next, true),
            };
        }
        before = Some(std::mem::replace(&mut last, next));
    }
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
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let headline = match cfg!(greenroom_whole_program) {
        true => format!("thread '{name}' ({}) panicked at {place}", task.id()),
        false => {
            let spawned = task.spawned_at();
            format!("coroutine '{name}' panicked at {place} (spawned at {spawned})")
        }
    };
    let payload = info.payload();
    let message = match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref().copied().unwrap_or("Box<dyn Any>"),
    };
    // As std's hook does. (`Backtrace::capture` would heed `RUST_LIB_BACKTRACE`, too.)
    let style = env::var_os("RUST_BACKTRACE").filter(|style| style != "0");
    let trace = match style {
        Some(style) if style == "full" => {
            format!("stack backtrace:\n{:#}", Backtrace::force_capture())
        }
        Some(_) => format!(
            "stack backtrace:\n{}note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose \
             backtrace.\n",
            shorten(&Backtrace::force_capture().to_string())
        ),
        None if !HAS_HINTED.swap(true, Ordering::Relaxed) => {
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
                .to_owned()
        }
        None => String::new(),
    };
    let report = format!("\n{headline}:\n{message}\n{trace}");
    // In one piece, so that the reports of two threads do not mix. A failure to write to standard
    // error is ignored, as the default hook does.
    let _ = std::io::stderr().lock().write_all(report.as_bytes());
}

/// Whether a report has told how to have backtraces. One is enough for a process. (std's own hook counts for itself.)
static HAS_HINTED: AtomicBool = AtomicBool::new(false);

/// Marks the end of a backtrace by its name: std's own hook leaves out what is beyond it.
#[inline(never)]
pub(crate) fn __rust_begin_short_backtrace<T>(f: impl FnOnce() -> T) -> T {
    let result = f();
    // Otherwise the call of `f` could take the place of this frame.
    std::hint::black_box(());
    result
}

/// The frames of a backtrace between std's two marks, numbered from 0.
fn shorten(trace: &str) -> String {
    let is_place = |line: &str| line.trim_start().starts_with("at ");
    let lines: Vec<&str> = trace.lines().collect();
    let mark = |name: &str| lines.iter().position(|line| line.contains(name));
    let start = mark("__rust_end_short_backtrace").map_or(0, |mark| mark + 1);
    let end = mark("__rust_begin_short_backtrace").unwrap_or(lines.len());
    let kept = lines.get(start..end).unwrap_or(&lines);
    let mut number = 0;
    let mut text = String::new();
    for line in kept.iter().skip_while(|line| start > 0 && is_place(line)) {
        // A function that was inlined has no number.
        match line.split_once(": ") {
            Some((old, name)) if old.trim_start().parse::<usize>().is_ok() => {
                text += &format!("{number:4}: {name}\n");
                number += 1;
            }
            _ => text += &format!("{line}\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hooks are told apart by their sizes. The default one has none.
    fn hook(size: usize) -> Hook {
        let (byte, word) = (1_u8, 8_usize);
        match size {
            0 => Box::new(|_| {}),
            1 => Box::new(move |_| _ = std::hint::black_box(byte)),
            _ => Box::new(move |_| _ = std::hint::black_box(word)),
        }
    }

    #[test]
    fn a_hook_that_another_thread_sets_meanwhile_is_the_last_one() {
        for (taken, expected) in [
            (&[0][..], 0),
            (&[1], 1),
            (&[0, 8], 8),
            (&[1, 0, 8], 8),
            (&[1, 8], 8),
        ] {
            let mut taken = taken
                .iter()
                .map(|&size| hook(size))
                .chain(std::iter::repeat_with(|| hook(0)));
            let (last, is_default) = last_hook(|| taken.next().unwrap());
            assert_eq!((size_of_val(&*last), is_default), (expected, expected == 0));
        }
    }

    #[test]
    fn frames_between_the_marks_are_numbered_anew() {
        let trace = "   0: std::backtrace::Backtrace::create\n             at /std/x.rs:1:2\n   \
                     8: __rustc::__rust_end_short_backtrace\n             at /std/y.rs:1:2\n   \
                     9: core::panic\n             at /core/z.rs:1:2\n      main::inlined\n  \
                     10: main::f\n             at ./main.rs:3:4\n  \
                     11: greenroom::__rust_begin_short_backtrace\n  12: greenroom::root\n";
        let expected = "   0: core::panic\n             at /core/z.rs:1:2\n      main::inlined\n   \
                        1: main::f\n             at ./main.rs:3:4\n";
        assert_eq!(shorten(trace), expected);
        assert_eq!(shorten("   3: f\n"), "   0: f\n");
    }
}
