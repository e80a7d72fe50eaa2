//! The facade for an executable whose main function runs as a coroutine.

use std::ffi::{c_char, c_int};

pub use greenroom_std::*;

unsafe extern "C" {
    fn __real_main(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int;
}

/// # Safety
///
/// The C library calls this in the place of `main`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_main(
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    // SAFETY: the C library calls `main` once, on the main thread, with these arguments, which stay valid
    // until the process ends. So does the closure: on the main thread, on another stack. It does not unwind,
    // because `main` has the ABI of C.
    greenroom::__run_program(|| unsafe { __real_main(argc, argv, envp) })
}
