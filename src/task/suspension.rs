//! What a suspended coroutine leaves in its frame for a look at it.

use std::cell::Cell;
use std::mem;

use super::{Awaiting, Reason};
use crate::coroutine;

/// Lies in the frame that has suspended a coroutine, or in one further out, as long as it is suspended.
pub(crate) struct Suspension {
    awaiting: Awaiting<'static>,
}

impl Suspension {
    /// That of a coroutine that yields.
    #[inline(always)]
    pub(crate) fn of_yield() -> Suspension {
        Suspension::new(Awaiting::only(Reason::Yield))
    }

    #[inline(always)]
    pub(crate) fn new(awaiting: Awaiting<'_>) -> Suspension {
        // SAFETY: the two types differ only in the lifetime of the borrow. The reference is followed only by
        // `awaiting`, whose caller promises that the suspension lasts. The borrow does, too, then: it was
        // made by the frame that is suspended, or by one further out.
        let awaiting = unsafe { mem::transmute::<Awaiting<'_>, Awaiting<'static>>(awaiting) };
        Suspension { awaiting }
    }

    /// What the suspended coroutine waits for.
    ///
    /// # Safety
    ///
    /// `at` is the address that a coroutine was suspended with, which is the address of a `Suspension`. The
    /// caller's thread is the one that the coroutine runs on. The coroutine is not resumed before the returned
    /// reference is gone.
    pub(crate) unsafe fn awaiting<'a>(at: *const u8) -> &'a Awaiting<'a> {
        // SAFETY: the caller promises that the frame of the suspension is there. What it points to was borrowed
        // by that frame, and is not touched by other threads but as its type allows.
        unsafe { &(*at.cast::<Suspension>()).awaiting }
    }
}

thread_local! {
    /// What a coroutine calls that was resumed for a look.
    static LOOK: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Sets what the coroutines of this thread call, on the thread's own stack, that are resumed for a look.
pub(crate) fn set_look(look: Option<fn()>) {
    LOOK.set(look);
}

/// Called by a coroutine that was resumed for a look, before it suspends again.
pub(super) fn look() {
    if let Some(look) = LOOK.get() {
        coroutine::on_parent_stack(look);
    }
}
