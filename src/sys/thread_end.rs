//! The end of a thread: before that of its thread-locals, and after it.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// glibc's, by which std, too, has the destructors of thread-locals called.
type Register =
    unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, *const c_void) -> c_int;

/// Has `f` called when the calling thread ends, or ends the process by `exit`; and before the values
/// are dropped that its thread-locals have now.
///
/// The destructors of a thread are called in the reverse order of their registration, which this is
/// one more of each time. (Where the C library cannot do that, only the first time for each thread.)
pub(crate) fn call_before_locals_go(f: extern "C" fn(*mut c_void)) {
    /// In the object that must not be unloaded before that.
    static HERE: u8 = 0;
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__cxa_thread_atexit_impl".as_ptr()) };
    // SAFETY: that function has this type, and null is none.
    let register = unsafe { mem::transmute::<*mut c_void, Option<Register>>(found) };
    let done = register.is_some_and(|register| {
        // SAFETY: the function takes any argument, and does not unwind, being `extern "C"`.
        unsafe { register(f, ptr::null_mut(), (&raw const HERE).cast()) == 0 }
    });
    if !done {
        // Where it is too late for that, it is too late for `f`.
        let _ = AT_DROP.try_with(|at_drop| at_drop.0.set(Some(f)));
    }
}

struct AtDrop(Cell<Option<extern "C" fn(*mut c_void)>>);

impl Drop for AtDrop {
    fn drop(&mut self) {
        if let Some(f) = self.0.get() {
            f(ptr::null_mut());
        }
    }
}

thread_local! {
    static AT_DROP: AtDrop = const { AtDrop(Cell::new(None)) };
}

/// Whether the calling thread is the one that the process began with, and ends with.
pub(crate) fn is_first_thread() -> bool {
    // SAFETY: neither has preconditions.
    unsafe { libc::gettid() == libc::getpid() }
}

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
