//! Waits inside the initialiser of a `thread_local!`, found in debug builds.
//!
//! While a coroutine waits there, another coroutine of the thread may enter the same initialiser.
//!
//! How it is found: std calls a lazy initialiser from a function with a known name, so a backtrace of
//! the waiting coroutine contains that name. Resolving the names of a backtrace takes milliseconds.
//! So the return addresses on the stack are hashed first, and names are resolved once for each hash
//! and thread.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use super::frames;
use super::switches::excused;

/// The path of std's functions that call lazy initialisers. (It is private to std; the unit test fails
/// if it changes.)
const INITIALISERS: &str = "std::sys::thread_local::native::lazy::";

/// Whether waits are looked at.
static WATCHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The call stacks of waits that were seen, by their hashes, and whether an initialiser is on the
    /// stack.
    static SEEN: RefCell<BTreeMap<u64, bool>> = const { RefCell::new(BTreeMap::new()) };

    /// Whether a wait has begun in an initialiser since the last `take_found`.
    static FOUND: Cell<bool> = const { Cell::new(false) };
}

/// Turns looking at waits on, for all threads and for good.
pub(crate) fn watch() {
    WATCHED.store(true, Ordering::Relaxed);
}

/// Looks at the wait that the caller is about to begin, if that is turned on.
#[inline(always)]
pub(crate) fn look() {
    if WATCHED.load(Ordering::Relaxed) {
        look_at_stack();
    }
}

/// Whether a wait has begun in an initialiser on this thread since the last call.
pub(crate) fn take_found() -> bool {
    FOUND.take()
}

#[cold]
#[inline(never)]
fn look_at_stack() {
    let stack = hash_of_stack();
    let seen = SEEN.try_with(|seen| seen.borrow().get(&stack).copied());
    let is_in_initialiser = match seen {
        // The thread is dropping its thread-locals.
        Err(_) => return,
        Ok(Some(known)) => known,
        Ok(None) => {
            // Excused, because it reads the debug information from files.
            let names = excused(|| Backtrace::force_capture().to_string());
            let found = names.contains(INITIALISERS);
            // If this fails, the stack is resolved again at the next wait.
            let _ = SEEN.try_with(|seen| seen.borrow_mut().insert(stack, found));
            found
        }
    };
    if is_in_initialiser {
        FOUND.set(true);
    }
}

/// A hash of the return addresses on the caller's stack.
fn hash_of_stack() -> u64 {
    let mut hasher = DefaultHasher::new();
    frames::walk(|frame| {
        hasher.write_usize(frame.returns_to);
        true
    });
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_in_a_lazy_initialiser_is_found_and_other_waits_are_not() {
        thread_local! {
            static LAZY: u8 = { look(); 1 };
            static CONST: Cell<u8> = const { Cell::new(2) };
        }
        watch();
        look();
        CONST.with(|_| look());
        assert!(!take_found());
        for _ in 0..2 {
            std::thread::spawn(|| {
                assert_eq!(LAZY.with(|value| *value), 1);
                assert!(take_found());
                LAZY.with(|_| look());
                assert!(!take_found(), "the initialiser has returned");
            })
            .join()
            .unwrap();
        }
    }
}
