//! What a function of the C library returns, and the number of its error.

use libc::c_int;
pub(super) use rustix::io::Errno;

/// The number of the last error, of the calling thread.
pub(super) fn get() -> c_int {
    // SAFETY: the pointer is to the calling thread's own variable.
    unsafe { *libc::__errno_location() }
}

pub(super) fn set(errno: c_int) {
    // SAFETY: the pointer is to the calling thread's own variable.
    unsafe { *libc::__errno_location() = errno }
}

/// Calls `f`. What that, and the coroutines that run meanwhile, do to the number of the last error is undone.
pub(super) fn untouched<R>(f: impl FnOnce() -> R) -> R {
    let before = get();
    let returned = f();
    set(before);
    returned
}

/// A value that stands for failure, -1 in C.
pub(super) trait Returned: Copy + Eq {
    const FAILED: Self;
}

impl Returned for c_int {
    const FAILED: c_int = -1;
}

impl Returned for libc::c_long {
    const FAILED: libc::c_long = -1;
}

impl Returned for libc::ssize_t {
    const FAILED: libc::ssize_t = -1;
}

/// What a call has returned, with the number of the error if it has failed.
#[inline(always)]
pub(super) fn result<T: Returned>(returned: T) -> Result<T, Errno> {
    match returned == T::FAILED {
        true => Err(Errno::from_raw_os_error(get())),
        false => Ok(returned),
    }
}

/// Returns what `f` does, as C expects it. What else `f` does to the number of the last error, and the
/// coroutines that run meanwhile do, is undone.
#[inline(always)]
pub(super) fn answer<T: Returned>(f: impl FnOnce() -> Result<T, Errno>) -> T {
    let before = get();
    match f() {
        Ok(returned) => {
            set(before);
            returned
        }
        Err(errno) => {
            set(errno.raw_os_error());
            T::FAILED
        }
    }
}
