//! The end of a thread, after the destructors of its thread-locals have run.
//!
//! glibc runs the destructors of Rust's and C++'s thread-locals first, and those of pthread's
//! thread-specific data after them: see pthread_key_create(3). This module uses the latter.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A pointer that each thread may keep, and a function that is called with it when the thread ends.
///
/// The function is not called for the thread of `main` if that returns: this ends the process, but
/// not the thread.
pub(crate) struct AtEnd {
    /// A key of pthread's thread-specific data; `NO_KEY` until it is first needed. It is never
    /// deleted.
    key: AtomicU64,
    /// Called with the pointer that an ending thread has kept.
    f: extern "C" fn(*mut c_void),
}

/// No key was created yet. (Keys are 32-bit numbers.)
const NO_KEY: u64 = u64::MAX;

impl AtEnd {
    /// Calls `f` with each pointer that is kept when its thread ends, unless the pointer is null.
    pub(crate) const fn new(f: extern "C" fn(*mut c_void)) -> AtEnd {
        let key = AtomicU64::new(NO_KEY);
        AtEnd { key, f }
    }

    /// The pointer that the calling thread keeps. Null, if it keeps none.
    pub(crate) fn kept(&'static self) -> *mut c_void {
        match self.key() {
            // SAFETY: `key()` returns a key that was created and that is never deleted.
            Some(key) => unsafe { libc::pthread_getspecific(key) },
            None => ptr::null_mut(),
        }
    }

    /// Makes the calling thread keep `what`, in place of what it kept before. Returns whether it
    /// does: it does not if the process is out of keys or of memory.
    pub(crate) fn keep(&'static self, what: *mut c_void) -> bool {
        // SAFETY: `key()` returns a key that was created and that is never deleted.
        self.key()
            .is_some_and(|key| unsafe { libc::pthread_setspecific(key, what) } == 0)
    }

    /// The key, which the first call creates. `None`, if the process is out of keys.
    fn key(&'static self) -> Option<libc::pthread_key_t> {
        let known = self.key.load(Ordering::Relaxed);
        if known != NO_KEY {
            return libc::pthread_key_t::try_from(known).ok();
        }
        let mut new: libc::pthread_key_t = 0;
        // SAFETY: `new` is valid for the call to write. `self.f` has the signature of a destructor,
        // and exists for as long as the process.
        if unsafe { libc::pthread_key_create(&raw mut new, Some(self.f)) } != 0 {
            return None;
        }
        let first =
            self.key
                .compare_exchange(NO_KEY, new.into(), Ordering::Relaxed, Ordering::Relaxed);
        match first {
            Ok(_) => Some(new),
            Err(known) => {
                // Another thread was faster; its key is the one.
                // SAFETY: this call has created `new` and not shared it, so no thread uses it.
                unsafe { libc::pthread_key_delete(new) };
                libc::pthread_key_t::try_from(known).ok()
            }
        }
    }
}
