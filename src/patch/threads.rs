//! Joining OS threads.

use super::errno::untouched;
use super::original;
use super::types::{c_int, c_void, pthread_t};
use super::wait::{Borrowed, on_pool_waiting};

/// Nothing but this call tells of the end of a thread. So a thread of the pool makes it.
///
/// Returns the number of the error itself.
pub(super) unsafe fn pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's.
    let join = move |result| unsafe { original::pthread_join(thread, result) };
    // SAFETY: the call has no preconditions.
    if thread == unsafe { libc::pthread_self() } {
        // Refused, since the thread would wait for itself.
        return join(result);
    }
    let lent = Borrowed(result);
    untouched(|| on_pool_waiting(move || join({ lent }.0)))
}
