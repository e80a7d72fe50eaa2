//! Stack overflow: a message that names the coroutine, and the abort of the process.
//!
//! In the order in which it happens:
//!
//! 1. A frame of the coroutine touches the guard below its stack. The kernel sends SIGSEGV, or
//!    SIGBUS, to the thread.
//! 2. The signal handler runs on the thread's alternate stack (`sigaltstack(2)`), since the
//!    overflowed stack has no room for it.
//! 3. The handler finds the address in a guard, and writes the message to standard error. A copy of the process
//!    prints the frames (see `frames`), as far as that can be done. Then the handler aborts.
//! 4. If the address is in no guard, or the thread has never driven a worker, the handler passes the signal
//!    on to the handler that was installed before: std's, for instance, which reports overflows of
//!    OS threads.

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod frames;
/// Elsewhere no frames are printed: the walk is written for x86-64 and the unwinder of gcc.
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
mod frames {
    pub(super) unsafe fn print(_: *mut std::ffi::c_void) {}
}

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{self, Write};
use std::io;
use std::mem;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::slab;
use crate::sys::memory;
use crate::sys::stderr::Stderr;
use crate::sys::thread_end::AtEnd;

/// The signals that an access to a guard can raise, each with the action that was installed for it
/// before ours. The action is leaked. Null until our handler is installed.
static PREVIOUS: [(libc::c_int, AtomicPtr<libc::sigaction>); 2] = [
    (libc::SIGSEGV, AtomicPtr::new(ptr::null_mut())),
    (libc::SIGBUS, AtomicPtr::new(ptr::null_mut())),
];

/// What is known of the coroutine that runs on a thread. Both functions are called in a signal handler, so they must
/// be async-signal-safe: they must not allocate, nor take a lock.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    /// Writes a description of the coroutine.
    pub(crate) describe: fn(&mut dyn Write) -> fmt::Result,
    /// Makes the calling thread one without a coroutine.
    pub(crate) forget: fn(),
}

thread_local! {
    /// That of the calling thread; `None` on a thread that has never driven a worker. Has neither an initialiser
    /// nor a destructor, so a signal handler may read it.
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

/// Reports overflows on the calling thread from now on, of the coroutine that is `running`.
/// Installs the handlers, and gives the thread an alternate stack, if need be.
///
/// # Errors
///
/// The operating system's, if the thread has no alternate stack and cannot be given one. Overflows
/// then end the process without a message.
pub(crate) fn watch(running: Running) -> io::Result<()> {
    if RUNNING.replace(Some(running)).is_some() {
        // The thread has been here before.
        return Ok(());
    }
    install();
    ensure_alternate_stack()
}

/// Installs the handlers. Further calls do nothing.
pub(crate) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install_handlers);
}

fn install_handlers() {
    for (signal, previous) in &PREVIOUS {
        // SAFETY: `sigaction` is a C struct for which all-zero bytes are valid: the default action
        // with no flags and an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: `sigaction` is a C struct for which all-zero bytes are valid.
        let before = Box::into_raw(Box::new(unsafe { mem::zeroed() }));
        // SAFETY: both pointers are to valid structures. `handle` has the signature that SA_SIGINFO
        // asks for, and is async-signal-safe.
        let done = unsafe { libc::sigaction(*signal, &raw const action, before) };
        assert_eq!(done, 0, "SIGSEGV and SIGBUS can be handled");
        // A fault on another thread before this store finds null. The handler then returns, the
        // instruction faults again, and so on until the pointer is there.
        previous.store(before, Ordering::Release);
    }
}

/// The length in bytes of an alternate stack that is made here.
const ALTERNATE_STACK_LEN: usize = 64 << 10;

/// The alternate stacks that were made here: each thread keeps its own, which is unmapped when the
/// thread ends.
static ALTERNATE_STACKS: AtEnd = AtEnd::new(free_alternate_stack);

/// Gives the calling thread an alternate stack for its signal handlers, if it has none. std gives
/// one to the threads that it starts, and takes it back before their thread-locals are dropped.
/// Threads that were started by C code have none.
fn ensure_alternate_stack() -> io::Result<()> {
    if alternate_stack()?.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    // A thread that has made one before has it still, even if other code has disabled it since.
    let mut stack = ALTERNATE_STACKS.kept();
    if stack.is_null() {
        stack = memory::reserve(ALTERNATE_STACK_LEN)? as *mut c_void;
        // If this fails, the stack is leaked when the thread ends.
        let _ = ALTERNATE_STACKS.keep(stack);
    }
    let stack = libc::stack_t {
        ss_sp: stack,
        ss_flags: 0,
        ss_size: ALTERNATE_STACK_LEN,
    };
    // SAFETY: the structure is valid. The memory is mapped and unused, and it stays mapped at least
    // until the thread has dropped its thread-locals and runs `free_alternate_stack`.
    match unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The alternate stack of the calling thread. Its flags contain `SS_DISABLE` if there is none.
fn alternate_stack() -> io::Result<libc::stack_t> {
    // SAFETY: `stack_t` is a C struct for which all-zero bytes are valid.
    let mut present: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: a null pointer asks for no change, and `present` is valid for the kernel to write.
    match unsafe { libc::sigaltstack(ptr::null(), &raw mut present) } {
        0 => Ok(present),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unmaps `stack`, the alternate stack that was made for the calling thread, which is about to end.
/// If the thread still uses it and cannot be made to stop, the stack is leaked.
extern "C" fn free_alternate_stack(stack: *mut c_void) {
    let Ok(present) = alternate_stack() else {
        return;
    };
    if present.ss_sp == stack && present.ss_flags & libc::SS_DISABLE == 0 {
        let none = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: ALTERNATE_STACK_LEN,
        };
        // SAFETY: the structure is valid. This does not run on the alternate stack: it is called at
        // the end of a thread, not in a signal handler.
        if unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) } != 0 {
            return;
        }
    }
    // SAFETY: `ensure_alternate_stack` got the range, of this length, from `memory::reserve`. No
    // coroutine was ever in it. The kernel runs no handler on it any more, since it is not the
    // thread's alternate stack now.
    unsafe { memory::release(stack as usize, ALTERNATE_STACK_LEN) };
}

/// The handler of SIGSEGV and SIGBUS.
///
/// Async-signal-safe: it reads atomics, a thread-local without initialiser, and memory that does
/// not change; it formats without allocating, and writes to standard error by `write(2)`. What is not
/// async-signal-safe happens in a copy of the process.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the handler was installed with SA_SIGINFO, so the kernel passes a valid `siginfo_t`.
    // For SIGSEGV and SIGBUS it has the field `si_addr`.
    let address = unsafe { (*info).si_addr() } as usize;
    if let (Some(size), Some(running)) = (slab::guarded_size(address), RUNNING.get()) {
        let mut stderr = Stderr;
        // If standard error cannot be written to, the process aborts without the message.
        let _ = writeln!(stderr)
            .and_then(|()| (running.describe)(&mut stderr))
            .and_then(|()| writeln!(stderr, " has overflowed its stack of {size} bytes"));
        super::forget_running();
        (running.forget)();
        // SAFETY: the context is that of this handler.
        unsafe { frames::print(context) };
        std::process::abort();
    }
    for (of, previous) in &PREVIOUS {
        let previous = previous.load(Ordering::Acquire);
        if *of == signal && !previous.is_null() {
            // SAFETY: the arguments are those of this handler. `previous` is the action that
            // `sigaction` returned for this signal; it is leaked, and does not change.
            unsafe { pass_on(signal, info, context, &*previous) };
        }
    }
}

/// Handles a signal in the way that was installed before ours.
///
/// # Safety
///
/// `signal`, `info` and `context` are the arguments of a running signal handler. `previous` is an
/// action that was installed for this signal.
pub(super) unsafe fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    previous: &libc::sigaction,
) {
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The default action ends the process. It is put in force; then the faulting instruction
        // is executed again, and faults again. A signal that was ignored is treated alike, as the
        // kernel does: it never ignores a fault.
        // SAFETY: `sigaction` is a C struct for which all-zero bytes are valid: the default action.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: the structure is valid, and a null pointer asks for no previous action.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the action has a handler, as it is neither SIG_DFL nor SIG_IGN. An action with
        // the flag SA_SIGINFO has a handler of three arguments.
        let handler = unsafe { mem::transmute::<libc::sighandler_t, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: the action has a handler, as it is neither SIG_DFL nor SIG_IGN. An action without
        // the flag SA_SIGINFO has a handler of one argument.
        let handler =
            unsafe { mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(handler) };
        handler(signal);
    }
}
