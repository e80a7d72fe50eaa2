//! [`std::os::unix::thread`], for the handles of coroutines.
#![forbid(unsafe_code)]

pub use ::std::os::unix::thread::RawPthread;

use crate::JoinHandle;

/// Like [`std::os::unix::thread::JoinHandleExt`], which only std can implement for its handles.
///
/// It lets crates build that extend join handles of their own. Coroutines have no pthread: the
/// `pthread_t` of their worker would let `pthread_join`, `pthread_cancel` or `pthread_kill` reach all
/// coroutines of that worker.
pub trait JoinHandleExt {
    /// The thread's `pthread_t`.
    ///
    /// # Panics
    ///
    /// If the thread is a coroutine.
    fn as_pthread_t(&self) -> RawPthread;

    /// The thread's `pthread_t`. The thread is detached from the handle, and must be joined or
    /// detached by the caller.
    ///
    /// # Panics
    ///
    /// If the thread is a coroutine.
    fn into_pthread_t(self) -> RawPthread;
}

impl<T> JoinHandleExt for JoinHandle<T> {
    fn as_pthread_t(&self) -> RawPthread {
        refuse();
    }

    fn into_pthread_t(self) -> RawPthread {
        refuse();
    }
}

impl<T> JoinHandleExt for ::std::thread::JoinHandle<T> {
    fn as_pthread_t(&self) -> RawPthread {
        ::std::os::unix::thread::JoinHandleExt::as_pthread_t(self)
    }

    fn into_pthread_t(self) -> RawPthread {
        ::std::os::unix::thread::JoinHandleExt::into_pthread_t(self)
    }
}

fn refuse() -> ! {
    panic!(
        "a coroutine has no pthread_t: use `std::real::thread::spawn` of greenroom's shims for a \
         thread of the operating system's"
    );
}
