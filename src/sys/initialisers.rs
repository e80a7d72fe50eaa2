//! Waits in the initialiser of a `thread_local!`, which others of the thread may enter meanwhile.
//!
//! A stack says whether one runs: std's function that calls it has a name. To read names takes long, so each
//! way to a wait, told by the addresses on the stack, is looked at once.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use super::switches::excused;

/// Where std keeps the functions that call initialisers.
const INITIALISERS: &str = "std::sys::thread_local::native::lazy::";

static WATCHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The ways to waits that were seen, by their hashes, and whether they lead through an initialiser.
    static SEEN: RefCell<BTreeMap<u64, bool>> = const { RefCell::new(BTreeMap::new()) };

    /// A wait has begun in an initialiser since somebody asked.
    static FOUND: Cell<bool> = const { Cell::new(false) };
}

/// Has all waits be looked at, from now on.
pub(crate) fn watch() {
    WATCHED.store(true, Ordering::Relaxed);
}

/// Looks at the wait that the caller is about to begin.
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
    let way = hash_of_stack();
    let seen = SEEN.try_with(|seen| seen.borrow().get(&way).copied());
    let is_in_initialiser = match seen {
        // Thread-locals are being dropped.
        Err(_) => return,
        Ok(Some(known)) => known,
        Ok(None) => {
            // Which reads files.
            let names = excused(|| Backtrace::force_capture().to_string());
            let found = names.contains(INITIALISERS);
            // Where that fails it is looked at again.
            let _ = SEEN.try_with(|seen| seen.borrow_mut().insert(way, found));
            found
        }
    };
    if is_in_initialiser {
        FOUND.set(true);
    }
}

unsafe extern "C" {
    fn _Unwind_Backtrace(
        trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// A hash of the addresses that the functions on the caller's stack return to.
fn hash_of_stack() -> u64 {
    extern "C" fn add(context: *mut c_void, hasher: *mut c_void) -> c_int {
        // SAFETY: the unwinder passes its context, and the hasher that `hash_of_stack` has given it.
        unsafe { (*hasher.cast::<DefaultHasher>()).write_usize(_Unwind_GetIP(context)) };
        0
    }
    let mut hasher = DefaultHasher::new();
    // SAFETY: `add` takes a hasher, and does not unwind, being `extern "C"`.
    unsafe { _Unwind_Backtrace(add, (&raw mut hasher).cast()) };
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_in_an_initialiser_finds_it_each_time_and_another_does_not() {
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
                assert!(!take_found(), "it is over");
            })
            .join()
            .unwrap();
        }
    }
}
