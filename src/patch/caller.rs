//! Memory that a caller passes, which may not be there.
//!
//! The kernel refuses a bad pointer, by `EFAULT`. What is read here before the kernel has read it is copied by the
//! kernel, too.

use super::errno::{self, Errno, result};
use super::types::*;

/// Copies `count` values.
///
/// # Errors
///
/// `EFAULT`, if they are not there.
///
/// # Safety
///
/// If memory is there, it has values of the type. Any bytes are valid for the type.
pub(super) unsafe fn copy<T: Copy>(from: *const T, count: usize) -> Result<Vec<T>, Errno> {
    let mut copied = Vec::<T>::with_capacity(count);
    let len = count * size_of::<T>();
    let local = iovec {
        iov_base: copied.as_mut_ptr().cast(),
        iov_len: len,
    };
    let remote = iovec {
        iov_base: from.cast_mut().cast(),
        iov_len: len,
    };
    let before = errno::get();
    // SAFETY: the vector has room for so many bytes. The kernel checks the other pointer.
    let read = result(unsafe {
        let this_process = libc::getpid();
        libc::process_vm_readv(this_process, &raw const local, 1, &raw const remote, 1, 0)
    });
    errno::set(before);
    match read {
        Ok(read) if read as usize == len => {}
        Ok(_) | Err(Errno::FAULT) => return Err(Errno::FAULT),
        // A sandbox forbids the call.
        // SAFETY: the caller's. It has to pass memory that is there.
        Err(_) => unsafe { copied.as_mut_ptr().copy_from(from, count) },
    }
    // SAFETY: so many values were copied.
    unsafe { copied.set_len(count) };
    Ok(copied)
}

/// Copies one value. `None` for a null pointer.
///
/// # Errors
///
/// As [`copy`].
///
/// # Safety
///
/// As [`copy`].
pub(super) unsafe fn read<T: Copy>(from: *const T) -> Result<Option<T>, Errno> {
    match from.is_null() {
        true => Ok(None),
        // SAFETY: the caller's.
        false => Ok(unsafe { copy(from, 1) }?.pop()),
    }
}
