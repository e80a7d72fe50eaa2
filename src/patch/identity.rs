//! Waits whose code identifies the waiter by its OS thread.
//!
//! Such code takes two coroutines of one thread for one waiter. std's `thread::park` is such code, and what is
//! made of it: std's channels, `thread::scope`, crossbeam's channels. So is parking_lot. With a single waiter
//! they work. With a second one, std's code spins without a system call, and parking_lot links one node twice.
//!
//! Neither can be helped here. What can be seen is told, once: which coroutine has begun such a wait.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{mem, thread};

use crate::sys::stderr::Stderr;
use crate::task::{self, Description};

/// What the code of a wait takes for the waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing, or what each coroutine has of its own.
    OfCoroutine,
    /// The OS thread. A single coroutine of the thread may wait so.
    OfThread,
    /// The OS thread, whose thread-local storage holds the word. A second coroutine must not wait so, so that the thread
    /// blocks instead.
    InThread,
}

/// The value of the parker of std's threads, while one is parked.
const PARKED: u32 = u32::MAX;

/// What the code that waits at `address` takes for the waiter, as far as that can be seen.
pub(super) fn of_waiter(address: usize, expected: u32) -> Identity {
    if expected == PARKED && is_in_handle_of_thread(address) {
        return Identity::OfThread;
    }
    match tls_block() {
        (start, end) if start <= address && address < end => Identity::InThread,
        _ => Identity::OfCoroutine,
    }
}

/// Whether `address` is in what std's handle of the calling thread points to: its parker is there.
///
/// If std changes that type, this is false, or true for a neighbour in memory: then a report is missing, or one is
/// made without need.
fn is_in_handle_of_thread(address: usize) -> bool {
    /// How large what the handle points to is at most.
    const SIZE: usize = 128;

    let thread = thread::current();
    if size_of_val(&thread) != size_of::<usize>() {
        return false;
    }
    // SAFETY: both types have that size, and any bytes of a pointer are a number.
    let inner: usize = unsafe { mem::transmute_copy(&thread) };
    inner <= address && address < inner + SIZE
}

/// The thread-local storage of the program itself, on the calling thread: its first address, and the one after
/// its last.
fn tls_block() -> (usize, usize) {
    thread_local! {
        static BLOCK: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    }

    /// Notes the block of the first object, which is the program.
    unsafe extern "C" fn note(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        block: *mut c_void,
    ) -> c_int {
        // SAFETY: the dynamic linker passes a valid description, and the pointer to the pair below.
        let (object, block) = unsafe { (&*object, &mut *block.cast::<(usize, usize)>()) };
        let start = object.dlpi_tls_data.addr();
        // SAFETY: the description has so many headers.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        let tls = headers.iter().find(|header| header.p_type == libc::PT_TLS);
        if let Some(tls) = tls.filter(|_| start != 0) {
            *block = (start, start + tls.p_memsz as usize);
        }
        // The other objects do not matter.
        1
    }

    BLOCK.get().unwrap_or_else(|| {
        let mut block = (0, 0);
        // SAFETY: the function has the signature that the call asks for, and the pair outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut block).cast()) };
        BLOCK.set(Some(block));
        block
    })
}

/// Tells of the calling coroutine's wait, if none was told of before.
pub(super) fn report_once() {
    static REPORTED: AtomicBool = AtomicBool::new(false);

    if REPORTED.swap(true, Ordering::Relaxed) {
        return;
    }
    task::with_running(|task| {
        let Some(task) = task else { return };
        let report = format!(
            "\ngreenroom: {} waits by code that takes it for its OS thread, like `std::thread::park`, std's \
             channels and parking_lot. If another coroutine of the thread does so too, both may wait for ever. \
             See the module `greenroom::patch`. (This is told once.)\n",
            Description(task)
        );
        // Nothing else can be done about an error.
        let _ = Stderr.write_str(&report);
    });
}
