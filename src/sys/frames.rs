//! The frames of the calling thread's stack, found by the unwinder that panics use.

use std::ffi::{c_int, c_void};

/// What the unwinder knows of one frame.
type Context = *mut c_void;

// The unwinder that std links: see the Itanium C++ ABI, "Exception Handling", and unwind.h of gcc.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        visit: extern "C" fn(Context, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: Context) -> usize;
    fn _Unwind_GetCFA(context: Context) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 5;

/// One frame: where it goes on after its call, and its stack pointer at that call, which is its lowest address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) returns_to: usize,
    pub(crate) stack: usize,
}

/// Calls `visit` with each frame of the calling thread, innermost first, until it returns false.
///
/// Allocates nothing. `visit` must not unwind.
pub(crate) fn walk<V: FnMut(Frame) -> bool>(mut visit: V) {
    extern "C" fn each<V: FnMut(Frame) -> bool>(context: Context, visit: *mut c_void) -> c_int {
        // SAFETY: the unwinder passes a context that is valid during this call, and the argument that it was
        // given below: a pointer to a `V`, which nothing else uses meanwhile.
        let (frame, visit) = unsafe {
            let frame = Frame {
                returns_to: _Unwind_GetIP(context),
                // The unwinder has not gone on to this frame's caller, so this is where the callee's frame ends.
                stack: _Unwind_GetCFA(context),
            };
            (frame, &mut *visit.cast::<V>())
        };
        if visit(frame) { GO_ON } else { STOP }
    }
    // SAFETY: `each` is a function of the type that the unwinder calls, and its argument outlives the call. The
    // unwinder only reads the stack.
    unsafe { _Unwind_Backtrace(each::<V>, (&raw mut visit).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_innermost_first_and_the_walk_stops_when_it_is_told_to() {
        let mut frames = Vec::new();
        walk(|frame| {
            frames.push(frame);
            true
        });
        assert!(frames.len() > 3);
        // The thread's first frame returns to nothing.
        let (_, others) = frames.split_last().unwrap();
        assert!(others.iter().all(|frame| frame.returns_to != 0));
        assert!(frames.is_sorted_by_key(|frame| frame.stack));
        let mut count = 0;
        walk(|_| {
            count += 1;
            count < 2
        });
        assert_eq!(count, 2);
    }
}
