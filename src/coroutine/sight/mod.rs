//! The backtrace of a coroutine that runs on another thread, taken without its help.
//!
//! A coroutine that holds its worker cannot be asked for its backtrace. So another thread copies its stack, and
//! walks the copy. There are two ways to the copy:
//!
//! ```text
//! the thread computes:            SIGURG ─▶ its handler copies registers and stack, at one moment
//! it waits in a system call:      its stack stands still, and is copied from outside
//! ```
//!
//! - *A signal disturbs nobody.* It is sent only to a thread that computes, so it makes no call of the program's
//!   fail with `EINTR`. (If the thread begins such a call within the microseconds until the signal arrives, it
//!   does.) SIGURG is what Go uses for this: by default it is ignored, debuggers pass it on, and a handler for it
//!   must bear one that means nothing. A handler that was installed before ours is called for those that are not
//!   ours.
//! - *The handler is async-signal-safe.* It copies memory, and does nothing else. It unwinds nothing.
//! - *A thread that waits is not disturbed.* `/proc/self/task/N/syscall` has its stack pointer and its
//!   instruction. If they are the same after the copy was made, the copy is of one moment, as far as the caller
//!   knows that the turn is the same.
//!
//! # The walk is memory-safe
//!
//! The unwinder of the system walks the copy, with std's [`Backtrace`](std::backtrace::Backtrace) on top for the names. It reads where the
//! words of the copy point, so the words are made harmless before. A word that points into the stack is moved to
//! the same place in the copy. A word that points to code is left, since it may be a return address. Any other
//! word becomes the address *nowhere*, around which all words are that address again. As a return address it
//! ends the walk, because no table describes it.
//!
//! So a frame whose registers are in the copy or nowhere leads to such a frame again. It remains that a register may
//! have been loaded with code. A first walk looks at the registers of each frame, and replaces those, in the copy.
//! There are two exceptions, in which a table has an address loaded from memory. One is corosensei's first function,
//! which lies below the root of the coroutine: the first walk refuses it. The other is the frame of a signal's
//! handler: after it, the first walk stops unless the stack pointer is in the copy or nowhere. What std then
//! walks is what the first walk has walked.
//!
//! (The offsets that an unwinder adds come from the tables of the program. Nearly all are small. The others are less
//! than the largest stack, and the range is longer. There it reads zeroes, and a return address of zero ends the
//! walk.)
//!
//! The walk begins in `call_above`, a function whose unwind table says that it was called with the registers of
//! the copy, as if a signal handler had been. It ends at the root of the coroutine, which has no caller (see `root`).
//!
//! # Registers that are not known
//!
//! Of a thread that waits only two registers are known. Others are found on the stack, where the functions that
//! use them have saved them. But the first frames that rely on a frame pointer (as std's own do) need the
//! register. If the walk does not reach the root without it, each word that may be a saved frame
//! pointer is tried, from the top of the stack, until a walk reaches the root.

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
#[path = "x86_64.rs"]
mod imp;

use std::time::Duration;

use corosensei::Yielder;

use super::{Suspend, YIELDER};
use crate::sys::thread_state::{self, ForeignCell, ThreadNumber};

/// Where another thread finds the stack of the coroutine that a thread runs.
#[derive(Clone, Copy)]
pub(crate) struct Sight {
    thread: ThreadNumber,
    /// The thread's `YIELDER`.
    yielder: ForeignCell<*const Yielder<(), Suspend>>,
}

/// What was seen of a coroutine.
pub(crate) struct Seen {
    /// The system call that it waits in, if it does.
    pub(crate) call: Option<i64>,
    /// Its frames, as std prints them. `None` if there was no copy to be had.
    pub(crate) backtrace: Option<String>,
}

impl Seen {
    /// The name of the system call that the coroutine waits in, if it does.
    pub(crate) fn call_name(&self) -> Option<&'static str> {
        self.call
            .map(|call| thread_state::name_of_call(call).unwrap_or("an unknown system call"))
    }
}

impl Sight {
    /// That of the calling thread.
    pub(crate) fn of_this_thread() -> Sight {
        Sight {
            thread: ThreadNumber::current(),
            yielder: YIELDER.with(ForeignCell::new),
        }
    }

    /// Whether this is not that of the calling thread.
    pub(crate) fn is_of_another_thread(self) -> bool {
        self.thread != ThreadNumber::current()
    }

    /// How long the thread has been ready to run without a processor, so far. Zero if the system does not tell.
    pub(crate) fn time_in_queue(self) -> Duration {
        self.thread.time_in_queue().unwrap_or_default()
    }

    /// Looks at the coroutine that runs on the thread. To be called on another thread, while the thread of this
    /// exists. `None` if `is_same` says, at the end, that another turn has begun.
    pub(crate) fn look(self, is_same: impl Fn() -> bool) -> Option<Seen> {
        imp::look(self, is_same)
    }
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
mod imp {
    use super::{Seen, Sight};
    use crate::sys::thread_state::State;

    /// Tells the system call alone: the walk is written for x86-64 and the unwinder of gcc.
    pub(super) fn look(sight: Sight, is_same: impl Fn() -> bool) -> Option<Seen> {
        let call = match sight.thread.state() {
            Some(State::Blocked { call, .. }) => call,
            _ => None,
        };
        is_same().then_some(Seen {
            call,
            backtrace: None,
        })
    }
}
