//! Like [`std::panic`](mod@std::panic).

use ::std::any::Any;

use crate::task;

pub use ::std::panic::*;

/// Like [`std::panic::catch_unwind`].
///
/// Coroutines that unwind while their runtime stops wait for each other, and std cannot tell then which
/// of a thread's coroutines unwind: by this function the runtime knows that the caller no longer does.
///
/// # Errors
///
/// The payload of the panic.
pub fn catch_unwind<F, R>(f: F) -> ::std::thread::Result<R>
where
    F: FnOnce() -> R + UnwindSafe,
{
    task::catch_unwind(f)
}

/// Like [`std::panic::resume_unwind`].
///
/// # Panics
///
/// With that payload.
pub fn resume_unwind(payload: Box<dyn Any + Send>) -> ! {
    task::resume_unwind(payload)
}
