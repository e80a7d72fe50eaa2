//! The functions of the table, from where a test wants them: from the patch, or from the C library itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use greenroom::patch::types::*;
use greenroom::shims::thread;

use crate::util::{ms, on_an_os_thread, on_workers};

macro_rules! define_calls {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        /// One function for each in the table.
        #[allow(dead_code, reason = "not each has a test of its own")]
        pub(crate) struct Calls {
            $(pub(crate) $name: unsafe fn($($type),*) -> $ret,)*
        }

        #[allow(clashing_extern_declarations, reason = "the table's types")]
        mod linked {
            use super::*;

            unsafe extern "C" {
                $(pub(super) fn $name($($arg: $type),*) -> $ret;)*
            }
        }

        /// Those that the linker has found.
        static PATCHED: Calls = Calls {
            // SAFETY: the caller's.
            $($name: |$($arg),*| unsafe { linked::$name($($arg),*) },)*
        };

        /// Those of the C library.
        static ORIGINAL: Calls = Calls {
            $($name: greenroom::patch::original::$name,)*
        };
    };
}

greenroom::__patched_functions!([define_calls]);

/// Runs `test` with the functions of the C library, and with those of the patch: on an OS thread, and on a
/// coroutine, whose peers run on the same worker.
pub(crate) fn alike(test: impl Fn(&Calls)) {
    on_an_os_thread(|| unless_interrupted(|| test(&ORIGINAL)));
    on_an_os_thread(|| unless_interrupted(|| test(&PATCHED)));
    on_workers(1, || test(&PATCHED));
}

/// Runs `test` on an OS thread. The kernel ends calls there early, or with a part, also when the process is stopped
/// for a moment, as by a debugger. So a test that fails is run again, nine times at most.
fn unless_interrupted(test: impl Fn()) {
    for _ in 0..9 {
        if catch_unwind(AssertUnwindSafe(&test)).is_ok() {
            return;
        }
        eprintln!("failed on an OS thread, perhaps by an interrupted call: again");
    }
    test();
}

/// Runs `test` on a coroutine of the only worker.
pub(crate) fn on_coroutine<R>(test: impl FnOnce(&Calls) -> R) -> R {
    on_workers(1, || test(&PATCHED))
}

/// The functions that the linker has found, for coroutines that outlive the borrow of them.
pub(crate) fn patched() -> &'static Calls {
    &PATCHED
}

/// Calls `f` on a coroutine when the caller has begun to wait. (If it has not, the test is weaker.) On a
/// coroutine, the caller would wait in vain if it kept its worker.
pub(crate) fn later<R: Send + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    thread::spawn(move || {
        pause();
        f()
    })
}

/// Gives others the time to begin their waits.
pub(crate) fn pause() {
    thread::sleep(ms(20));
}

/// Calls a function. `Ok` is what it has returned, and `Err` the number of its error.
macro_rules! call {
    ($calls:ident.$name:ident($($arg:expr),* $(,)?)) => {
        $crate::calls::outcome(|| $crate::calls::returned!($calls.$name($($arg),*)))
    };
}
pub(crate) use call;

/// What a function returns. It may leave an error behind that it has overcome.
macro_rules! returned {
    ($calls:ident.$name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: the test passes pointers that are valid, or that the kernel refuses.
        #[allow(clippy::unnecessary_cast, reason = "other functions need it")]
        unsafe { ($calls.$name)($($arg),*) as i64 }
    }};
}
pub(crate) use returned;

pub(crate) fn outcome(call: impl FnOnce() -> i64) -> Result<i64, c_int> {
    const UNTOUCHED: c_int = 12_345;
    set_errno(UNTOUCHED);
    let returned = call();
    match (returned, errno()) {
        (-1, errno) => Err(errno),
        (returned, errno) => {
            assert_eq!(errno, UNTOUCHED, "a success leaves the number alone");
            Ok(returned)
        }
    }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the pointer is to the calling thread's own variable.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the pointer is to the calling thread's own variable.
    unsafe { *libc::__errno_location() = errno }
}

/// A pointer to memory that is not there.
pub(crate) fn nowhere<T>() -> *mut T {
    std::ptr::without_provenance_mut(8)
}
