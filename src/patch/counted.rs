//! The number of coroutines that wait for futexes, or for locks of C, by which a waker tells whether there is any.
//!
//! ```text
//! waiter:  count itself;  fence;  look at the word, and wait if it is unchanged
//! waker:   change the word;  fence;  look at the count
//! ```
//!
//! *A waker that finds none has missed none.* The fences are sequentially consistent. If the waker's comes first, the
//! waiter sees the word changed. If the waiter's comes first, the waker sees it counted.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicUsize, Ordering, fence};

/// The coroutines that wait.
pub(super) struct Counted(AtomicUsize);

impl Counted {
    pub(super) const fn of(none: AtomicUsize) -> Counted {
        Counted(none)
    }

    /// Calls `wait`, which looks at the word first. The caller is counted meanwhile.
    pub(super) fn during<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.0.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let waited = wait();
        self.0.fetch_sub(1, Ordering::Relaxed);
        waited
    }

    /// Whether a coroutine may wait for a word that the caller has changed.
    pub(super) fn any(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) != 0
    }
}
