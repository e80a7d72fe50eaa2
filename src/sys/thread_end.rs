//! The end of a thread, after the destructors of its thread-locals.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What each thread may keep for its end, after the destructors of its thread-locals; but not `main`'s
/// thread, which ends with the process.
pub(crate) struct AtEnd {
    /// A key of pthread's thread-specific data, or `NO_KEY` yet. It is never deleted.
    key: AtomicU64,
    f: extern "C" fn(*mut c_void),
}

const NO_KEY: u64 = u64::MAX;

impl AtEnd {
    /// `f` is called with what a thread keeps, unless that is null.
    pub(crate) const fn new(f: extern "C" fn(*mut c_void)) -> AtEnd {
        let key = AtomicU64::new(NO_KEY);
        AtEnd { key, f }
    }

    /// What the calling thread keeps: null, if nothing.
    pub(crate) fn kept(&'static self) -> *mut c_void {
        match self.key() {
            // SAFETY: the key was created.
            Some(key) => unsafe { libc::pthread_getspecific(key) },
            None => ptr::null_mut(),
        }
    }

    /// Has the calling thread keep `what`; returns whether it does.
    pub(crate) fn keep(&'static self, what: *mut c_void) -> bool {
        // SAFETY: the key was created.
        self.key()
            .is_some_and(|key| unsafe { libc::pthread_setspecific(key, what) } == 0)
    }

    /// `None` if it cannot be had.
    fn key(&'static self) -> Option<libc::pthread_key_t> {
        let known = self.key.load(Ordering::Relaxed);
        if known != NO_KEY {
            return libc::pthread_key_t::try_from(known).ok();
        }
        let mut new: libc::pthread_key_t = 0;
        // SAFETY: `new` is valid, and the function takes what was kept.
        if unsafe { libc::pthread_key_create(&raw mut new, Some(self.f)) } != 0 {
            return None;
        }
        let first =
            self.key
                .compare_exchange(NO_KEY, new.into(), Ordering::Relaxed, Ordering::Relaxed);
        match first {
            Ok(_) => Some(new),
            Err(known) => {
                // SAFETY: it was created here, and nobody else has it.
                unsafe { libc::pthread_key_delete(new) };
                libc::pthread_key_t::try_from(known).ok()
            }
        }
    }
}
