//! The functions of the C library that the patch replaces, as they were before.
//!
//! The dynamic linker finds them: they are the next definitions of their names after the program's own. They
//! are looked up when the program is loaded, since dlsym(3) must not be called in a signal handler. A call
//! that comes earlier looks its function up by itself.
#![allow(clippy::too_many_arguments, reason = "the C library's")]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::functions::patched_functions;
use super::types::*;
use crate::fatal;

/// One function.
struct Original {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Original {
    const fn new(name: &'static CStr) -> Original {
        Original {
            name,
            at: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    #[inline(always)]
    fn get(&self) -> *mut c_void {
        let at = self.at.load(Ordering::Relaxed);
        match at.is_null() {
            true => self.find(),
            false => at,
        }
    }

    #[cold]
    fn find(&self) -> *mut c_void {
        let at = next(self.name);
        if at.is_null() {
            fatal::abort(format_args!(
                "greenroom's patch of the C library needs its function {}, which is not there",
                self.name.to_string_lossy()
            ));
        }
        self.at.store(at, Ordering::Relaxed);
        at
    }
}

/// The function of that name which the program would call without the patch. Null if there is none.
fn next(name: &CStr) -> *mut c_void {
    // The condition variables of the C library changed in that version, and the old functions are still there.
    // Some releases of the dynamic linker find those first.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    if name.to_bytes().starts_with(b"pthread_cond_") {
        let version = c"GLIBC_2.3.2".as_ptr();
        // SAFETY: the name and the version are C strings, and `RTLD_NEXT` a handle.
        let at = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), version) };
        if !at.is_null() {
            return at;
        }
    }
    // SAFETY: the name is a C string, and `RTLD_NEXT` a handle.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

macro_rules! define_originals {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        /// Looks up all functions.
        pub(super) fn find_all() {
            // Some are newer than the C library that the program runs on. Such a function is looked up if it
            // is called.
            for original in [$(&at::$name),*] {
                original.at.store(next(original.name), Ordering::Relaxed);
            }
        }

        #[allow(non_upper_case_globals)]
        mod at {
            use super::Original;

            $(pub(super) static $name: Original = {
                const NAME: &str = concat!(stringify!($name), "\0");
                match std::ffi::CStr::from_bytes_with_nul(NAME.as_bytes()) {
                    Ok(name) => Original::new(name),
                    Err(_) => unreachable!(),
                }
            };)*
        }

        $(
            /// # Safety
            ///
            /// As the function of the C library.
            #[inline]
            pub unsafe fn $name($($arg: $type),*) -> $ret {
                // SAFETY: the pointer is to the function of that name, which has this signature.
                let original = unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> $ret>(
                        at::$name.get(),
                    )
                };
                // SAFETY: the caller's.
                unsafe { original($($arg),*) }
            }
        )*
    };
}

patched_functions!([define_originals]);
