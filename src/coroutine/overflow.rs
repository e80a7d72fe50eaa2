//! What happens when a coroutine runs out of stack: a message that names it, and the end of the
//! process.
//!
//! The fault on a guard arrives as a signal, which is handled on the thread's alternate stack: the
//! overflowed one has no room. Faults at other addresses go to the handler that was there before.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{self, Write};
use std::io;
use std::mem;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::stack;
use crate::sys::memory;
use crate::sys::stderr::Stderr;
use crate::sys::thread_end::AtEnd;

/// The faults that a guard can cause, and what handled them before.
static PREVIOUS: [(libc::c_int, AtomicPtr<libc::sigaction>); 2] = [
    (libc::SIGSEGV, AtomicPtr::new(ptr::null_mut())),
    (libc::SIGBUS, AtomicPtr::new(ptr::null_mut())),
];

/// Writes who the running coroutine is; called in a signal handler, so it must not allocate.
type Describe = fn(&mut dyn Write) -> fmt::Result;

thread_local! {
    static DESCRIBE: Cell<Option<Describe>> = const { Cell::new(None) };
}

/// Has overflows on the calling thread reported as `describe` says, from now on.
///
/// # Errors
///
/// The operating system's, if the thread has no alternate stack and gets none.
pub(crate) fn watch(describe: Describe) -> io::Result<()> {
    install();
    DESCRIBE.set(Some(describe));
    ensure_alternate_stack()
}

/// Installs the handlers, once.
pub(crate) fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install_handlers);
}

fn install_handlers() {
    for (signal, previous) in &PREVIOUS {
        // SAFETY: all-zero is a valid `sigaction`, of which the fields are then set.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: as above; sigaction fills it in.
        let before = Box::into_raw(Box::new(unsafe { mem::zeroed() }));
        // SAFETY: both structures are valid. The handler does what a handler may, see there.
        let done = unsafe { libc::sigaction(*signal, &raw const action, before) };
        assert_eq!(done, 0, "the handler of a signal that can be handled");
        previous.store(before, Ordering::Release);
    }
}

/// The size of the alternate stacks that are made here.
const SIZE: usize = 64 << 10;

/// Those that were made here, each with its thread.
static ALTERNATE: AtEnd = AtEnd::new(free_alternate_stack);

/// Gives the calling thread a stack for its signal handlers, if it has none. std's threads do, until
/// they drop their thread-locals.
fn ensure_alternate_stack() -> io::Result<()> {
    if alternate_stack()?.ss_flags & libc::SS_DISABLE == 0 {
        return Ok(());
    }
    let mut stack = ALTERNATE.kept();
    if stack.is_null() {
        stack = memory::reserve(SIZE)? as *mut c_void;
        // Where that fails it outlives the thread.
        let _ = ALTERNATE.keep(stack);
    }
    let stack = libc::stack_t {
        ss_sp: stack,
        ss_flags: 0,
        ss_size: SIZE,
    };
    // SAFETY: the memory is mapped, unused, and stays until the thread ends.
    match unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// That of the calling thread, or which flags say that it is disabled.
fn alternate_stack() -> io::Result<libc::stack_t> {
    // SAFETY: all-zero is a valid `stack_t`, which sigaltstack fills in.
    let mut present: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: no new stack is given, and `present` is valid.
    match unsafe { libc::sigaltstack(ptr::null(), &raw mut present) } {
        0 => Ok(present),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The thread ends to which `stack` was given.
extern "C" fn free_alternate_stack(stack: *mut c_void) {
    let Ok(present) = alternate_stack() else {
        return;
    };
    if present.ss_sp == stack && present.ss_flags & libc::SS_DISABLE == 0 {
        let none = libc::stack_t {
            ss_sp: ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: SIZE,
        };
        // SAFETY: the structure is valid.
        if unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) } != 0 {
            return;
        }
    }
    // SAFETY: it is of this size, from `reserve`, and no handler runs there, now or later.
    unsafe { memory::release(stack as usize, SIZE) };
}

/// The handler: async-signal-safe, as it reads memory that never changes, formats without
/// allocating, and writes to stderr.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` of a fault.
    let address = unsafe { (*info).si_addr() } as usize;
    if let (Some(size), Some(describe)) = (stack::guarded_size(address), DESCRIBE.get()) {
        let mut stderr = Stderr;
        // Nothing is left to do where stderr is gone.
        let _ = writeln!(stderr)
            .and_then(|()| describe(&mut stderr))
            .and_then(|()| writeln!(stderr, " has overflowed its stack of {size} bytes"));
        std::process::abort();
    }
    for (of, previous) in &PREVIOUS {
        let previous = previous.load(Ordering::Acquire);
        if *of == signal && !previous.is_null() {
            // SAFETY: `install` stored a valid structure, which stays.
            unsafe { pass_on(signal, info, context, &*previous) };
        }
    }
}

/// # Safety
///
/// The arguments are those of a signal handler, and `previous` what was installed for the signal.
unsafe fn pass_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    previous: &libc::sigaction,
) {
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The fault repeats when this returns, and then ends the process.
        // SAFETY: all-zero is a valid `sigaction`, that of the default action.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: the structure is valid.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with this flag, a handler that is set has this type.
        let handler = unsafe { mem::transmute::<libc::sighandler_t, Handler>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without the flag, a handler that is set has this type.
        let handler =
            unsafe { mem::transmute::<libc::sighandler_t, extern "C" fn(libc::c_int)>(handler) };
        handler(signal);
    }
}
