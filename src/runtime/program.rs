//! The main function of a whole program, as a coroutine: `cargo greenroom run --main`.
//!
//! In the order in which it happens:
//!
//! 1. The C library calls `__wrap_main` instead of `main`. The linker arranges that (`--wrap=main`), for
//!    executables only. The function is in a library of `cargo-greenroom`, and calls [`run_program`].
//! 2. The OS thread becomes worker 0 of a runtime, which becomes the default one.
//! 3. The main coroutine calls the real `main`. For a program in Rust, that is std's start: it sets up
//!    std, calls the program's main function, and reports its panic or error.
//! 4. When that function has returned, the process exits, as if `main` had returned to the C library.
//!    Coroutines that are left do not unwind: they end with the process, as std's threads do.

use std::io;
use std::mem;
use std::process;

use rustix::process::{Resource, getrlimit};

use super::default_runtime::make_default;
use super::{Runtime, RuntimeBuilder};
use crate::fatal;

/// The largest size of a stack, in bytes.
const LARGEST_STACK: u64 = 1 << 30;

/// Runs `main` as the main coroutine of the default runtime, and ends the process with the code that
/// it returns.
///
/// To be called once, on the main thread, before std's start. For `cargo greenroom` only.
pub fn run_program(main: impl FnOnce() -> i32) -> ! {
    open_standard_descriptors();
    let runtime = match start() {
        Ok(runtime) => runtime,
        Err(error) => {
            fatal::report(format_args!("no runtime: {error}"));
            process::exit(101);
        }
    };
    let code = runtime.run_with_stack(stack_size(), main);
    // Its other workers go on until the process has ended.
    mem::forget(runtime);
    // This is not std's `exit`, which would abort: std's start has claimed the exit for this thread when it
    // returned from `main`.
    // SAFETY: the C library calls `exit` like this when `main` has returned to it. No other thread calls it
    // at the same time through std, because std lets only the thread exit that has claimed it.
    unsafe { libc::exit(code) };
}

fn start() -> io::Result<Runtime> {
    let runtime = RuntimeBuilder::new().build()?;
    make_default(&runtime.scheduler);
    Ok(runtime)
}

/// Opens /dev/null for each of the descriptors 0 to 2 that is closed, as std does before the main function.
/// This must come before the runtime opens descriptors, which could get these numbers.
fn open_standard_descriptors() {
    use rustix::fs::{Mode, OFlags, open};
    // The lowest free number is given out, so the loop ends with the first one above 2, which is closed.
    while let Ok(fd) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if std::os::fd::AsRawFd::as_raw_fd(&fd) > 2 {
            return;
        }
        mem::forget(fd);
    }
}

/// The size of the main thread's stack, in bytes: the limit that the process has been started with.
fn stack_size() -> usize {
    let limit = getrlimit(Resource::Stack).current;
    let bytes = limit.unwrap_or(LARGEST_STACK).min(LARGEST_STACK);
    usize::try_from(bytes).expect("1 GiB at most")
}
