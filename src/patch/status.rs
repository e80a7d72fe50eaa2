//! Whether the functions of the program are really called.
//!
//! Comparing addresses does not tell, since the address of a function that the dynamic linker resolves can be
//! that of an entry of the caller's own. So each function is called, with arguments with which the original
//! does nothing. The calling thread counts as a coroutine meanwhile, and says that it is only asking: a
//! function of the program then says that it was called, and does nothing else.

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io, mem};

use super::functions::patched_functions;
use super::original;
use super::types::*;
use crate::sys::fork;
use crate::task;

thread_local! {
    static ASKING: Cell<bool> = const { Cell::new(false) };
    static WAS_CALLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread only asks.
#[inline(always)]
pub(super) fn is_asking() -> bool {
    ASKING.get()
}

/// The answer of a function of the program.
#[cold]
pub(super) fn answer<R>() -> R {
    WAS_CALLED.set(true);
    // SAFETY: the functions return numbers and pointers, for which all-zero bytes are valid.
    unsafe { mem::zeroed() }
}

/// Whether `call` calls a function of the program.
fn is_called<R>(call: impl FnOnce() -> R) -> bool {
    WAS_CALLED.set(false);
    ASKING.set(true);
    task::as_if_on_coroutine(call);
    ASKING.set(false);
    WAS_CALLED.get()
}

/// One function: whether its calls reach the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionStatus {
    /// Its name in the C library.
    pub name: &'static str,
    /// Whether the calls of this program's own code do: of std and of the crates that it consists of.
    pub is_linked: bool,
    /// Whether the calls of shared libraries do.
    pub is_dynamic: bool,
}

/// Whether the patch is in force, as [`status`] has found it.
#[derive(Clone, Debug)]
pub struct Status {
    functions: Vec<FunctionStatus>,
}

impl Status {
    /// Whether the calls of all functions in [`functions`](Status::functions) reach the patch, wherever they come from.
    /// It does not see libraries that are loaded with `RTLD_DEEPBIND`: their calls never do.
    pub fn is_in_force(&self) -> bool {
        self.functions
            .iter()
            .all(|function| function.is_linked && function.is_dynamic)
    }

    /// The functions that were called. (`wait`, `pthread_rwlock_unlock`, and `gethostbyname` and its relatives are left out,
    /// since there is no harmless call of them, and so are those that are newer than some versions of the C library:
    /// `epoll_pwait2`, `sem_clockwait`, and the functions on locks whose names have `_clock`.)
    pub fn functions(&self) -> &[FunctionStatus] {
        &self.functions
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = |is_missing: fn(&FunctionStatus) -> bool| -> Vec<&str> {
            let functions = self
                .functions
                .iter()
                .filter(|function| is_missing(function));
            functions.map(|function| function.name).collect()
        };
        let linked = missing(|function| !function.is_linked);
        let dynamic = missing(|function| !function.is_dynamic);
        let all = self.functions.len();
        if linked.is_empty() && dynamic.is_empty() {
            return write!(
                f,
                "the patch of the C library is in force, for {all} functions"
            );
        }
        if linked.len() == all && dynamic.len() == all {
            return f.write_str(
                "the patch of the C library is not in force: the program has no `greenroom::patch!(unsafe)`, \
                 or is a library that another program has loaded",
            );
        }
        f.write_str("the patch of the C library is only partly in force")?;
        for (from, missing) in [("this program", linked), ("shared libraries", dynamic)] {
            if !missing.is_empty() {
                write!(
                    f,
                    "; calls from {from} do not reach: {}",
                    missing.join(", ")
                )?;
            }
        }
        Ok(())
    }
}

macro_rules! define_status {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        #[allow(dead_code, reason = "some functions are not called")]
        mod linked {
            use super::*;

            unsafe extern "C" {
                $(pub(super) fn $name($($arg: $type),*) -> $ret;)*
            }
        }

        #[allow(dead_code, reason = "some functions are not called")]
        #[allow(non_camel_case_types)]
        mod pointer_to {
            use super::*;

            $(pub(super) type $name = unsafe extern "C" fn($($type),*) -> $ret;)*
        }

        /// Whether the patch is in force, found by a call of each function.
        ///
        /// ```
        /// // This program does not have the macro.
        /// assert!(!greenroom::patch::status().is_in_force());
        /// ```
        pub fn status() -> Status {
            let mut functions = Vec::new();
            $($(
                let name = concat!(stringify!($name), "\0");
                let name = CStr::from_bytes_with_nul(name.as_bytes()).expect("a C string");
                // SAFETY: the name is a C string, and `RTLD_DEFAULT` a handle.
                let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
                functions.push(FunctionStatus {
                    name: stringify!($name),
                    // SAFETY: with these arguments, neither the original nor the patch does anything.
                    is_linked: is_called(|| unsafe { linked::$name($($probe),*) }),
                    is_dynamic: !found.is_null() && is_called(|| {
                        // SAFETY: the pointer is to the function of that name, which has this signature. With
                        // these arguments, neither the original nor the patch does anything.
                        unsafe {
                            mem::transmute::<*mut c_void, pointer_to::$name>(found)($($probe),*)
                        }
                    }),
                });
            )?)*
            Status { functions }
        }
    };
}

patched_functions!([define_status]);

/// Whether this program has the macro.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether the macro has an effect.
static CHECKED: AtomicBool = AtomicBool::new(false);

/// Called when a program with the macro is loaded.
pub extern "C" fn install() {
    original::find_all();
    // Processes may share a listener that were forked before they have runtimes. Out of memory, the first runtime tries
    // again.
    let _ = fork::count_forks();
    INSTALLED.store(true, Ordering::Relaxed);
}

/// Checks that the patch is in force if this program has the macro. Called before a runtime starts.
///
/// # Errors
///
/// `Unsupported`, if the macro has no effect.
pub(crate) fn check() -> io::Result<()> {
    if !INSTALLED.load(Ordering::Relaxed) || CHECKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let status = status();
    if !status.is_in_force() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            status.to_string(),
        ));
    }
    CHECKED.store(true, Ordering::Relaxed);
    Ok(())
}
