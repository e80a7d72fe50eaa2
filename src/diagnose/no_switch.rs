//! Code that must not switch to other coroutines.
#![forbid(unsafe_code)]

/// Calls `f`, and panics in debug builds if `f` has switched to another coroutine.
///
/// For code that relies on running alone between two waits: it changes several values that other
/// coroutines of the worker must see together, or calls into a library that expects its calls of one
/// thread to be nested. (The coroutines of *other* workers run all the time.)
///
/// Without debug assertions, this only calls `f`. Off-coroutine, nothing is switched.
///
/// ```
/// use greenroom::no_switch;
/// use std::cell::Cell;
///
/// let (from, to) = (Cell::new(10), Cell::new(0));
/// no_switch(|| {
///     from.set(from.get() - 3);
///     to.set(to.get() + 3);
/// });
/// ```
///
/// # Panics
///
/// In debug builds, after `f` has returned, if it has waited or yielded. The message has the backtrace of
/// the first time.
#[track_caller]
pub fn no_switch<T>(f: impl FnOnce() -> T) -> T {
    assert_switches(0, f)
}

/// Calls `f`, and panics in debug builds if `f` has switched to other coroutines more than `max` times.
///
/// For tests of code that is meant to wait only so often: once for a batch, and not once for each
/// element. See [`no_switch`].
///
/// # Panics
///
/// In debug builds, after `f` has returned, if it has waited or yielded more often. The message has the
/// backtrace of the first time.
#[track_caller]
pub fn assert_switches<T>(max: usize, f: impl FnOnce() -> T) -> T {
    #[cfg(not(debug_assertions))]
    {
        let _ = max;
        f()
    }
    #[cfg(debug_assertions)]
    {
        use std::fmt::Write;

        let (result, section) = crate::task::Section::count(f);
        let switches = section.switches();
        if switches > max {
            let mut first = String::new();
            if let Some(backtrace) = section.first() {
                // Writing to a string does not fail.
                let _ = write!(first, "; the first time at\n{backtrace}");
            }
            panic!("switched {switches} times where {max} are allowed{first}");
        }
        result
    }
}
