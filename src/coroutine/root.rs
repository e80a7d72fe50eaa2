//! The root of a coroutine's stack: the frame at which backtraces end.
//!
//! corosensei's first function leads to the frames of the worker that has resumed the coroutine, since an unwind may
//! go on there. Ours never does: a panic does not leave the body. And those frames mislead: they are not what has
//! called the coroutine, and none of them returns to it.
//!
//! So the body is called by a function whose unwind table says that it has no caller, as the first function of a
//! thread does: the return address is *undefined*. std's backtraces, gdb, perf and libunwind end there. The frame
//! pointer is zero there, so a walk along frame pointers ends as well. This costs a few instructions for each
//! stack, and none in a switch.

use std::convert::Infallible;

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub(super) use imp::is_root;

/// Calls `f` in a frame without a caller. Aborts the process if `f` unwinds.
pub(super) fn call<F: Fn() -> Infallible>(f: F) -> ! {
    extern "C" fn begin<F: Fn() -> Infallible>(f: *const ()) -> Infallible {
        // SAFETY: `call` has passed its own `f`, which lasts, as `call` never returns.
        unsafe { (*f.cast::<F>())() }
    }
    // SAFETY: `begin` takes the pointer, and neither returns nor unwinds: it is `extern "C"`.
    unsafe { imp::call((&raw const f).cast(), begin::<F>) }
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod imp {
    use std::arch::naked_asm;
    use std::convert::Infallible;

    type Begin = extern "C" fn(*const ()) -> Infallible;

    pub(super) unsafe fn call(argument: *const (), begin: Begin) -> ! {
        // SAFETY: that is what the caller promises.
        unsafe { root_of_coroutine(argument, begin) }
    }

    /// Whether a frame that goes on at this address is the root.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    pub(in super::super) fn is_root(returns_to: usize) -> bool {
        /// The length of the instructions.
        const LEN: usize = 7;
        let start = root_of_coroutine as *const () as usize;
        (start..start + LEN).contains(&returns_to)
    }

    /// Calls `begin` with `argument`.
    ///
    /// # Safety
    ///
    /// `begin` neither returns nor unwinds.
    #[cfg(target_arch = "x86_64")]
    #[unsafe(naked)]
    unsafe extern "C" fn root_of_coroutine(argument: *const (), begin: Begin) -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined rip",
            "xor ebp, ebp",
            // Aligns the stack.
            "push rbp",
            ".cfi_adjust_cfa_offset 8",
            "call rsi",
            "ud2",
            ".cfi_endproc",
        )
    }

    /// Calls `begin` with `argument`.
    ///
    /// # Safety
    ///
    /// `begin` neither returns nor unwinds.
    #[cfg(target_arch = "aarch64")]
    #[unsafe(naked)]
    unsafe extern "C" fn root_of_coroutine(argument: *const (), begin: Begin) -> ! {
        naked_asm!(
            ".cfi_startproc",
            ".cfi_undefined x30",
            "mov x29, #0",
            "blr x1",
            "brk #1",
            ".cfi_endproc",
        )
    }
}

/// On other systems, backtraces go on into the worker.
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod imp {
    use std::convert::Infallible;

    pub(super) unsafe fn call(
        argument: *const (),
        begin: extern "C" fn(*const ()) -> Infallible,
    ) -> ! {
        match begin(argument) {}
    }
}
