//! Memory that a caller passes, which may not be there.
//!
//! The kernel refuses a bad pointer, by `EFAULT`. What is read here before the kernel has read it is copied by the
//! kernel, too.

use std::mem::MaybeUninit;

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
    // SAFETY: the vector has room for so many. Otherwise the caller's.
    unsafe {
        copy_to(copied.as_mut_ptr(), from, count)?;
        copied.set_len(count);
    }
    Ok(copied)
}

/// Copies `count` values to memory that has room for them.
///
/// # Errors
///
/// As [`copy`].
///
/// # Safety
///
/// As [`copy`], and the memory is there.
unsafe fn copy_to<T: Copy>(to: *mut T, from: *const T, count: usize) -> Result<(), Errno> {
    let len = count * size_of::<T>();
    let local = iovec {
        iov_base: to.cast(),
        iov_len: len,
    };
    let remote = iovec {
        iov_base: from.cast_mut().cast(),
        iov_len: len,
    };
    let before = errno::get();
    // SAFETY: the caller has room for so many bytes. The kernel checks the other pointer.
    let read = result(unsafe {
        let this_process = libc::getpid();
        libc::process_vm_readv(this_process, &raw const local, 1, &raw const remote, 1, 0)
    });
    errno::set(before);
    match read {
        Ok(read) if read as usize == len => Ok(()),
        Ok(_) | Err(Errno::FAULT) => Err(Errno::FAULT),
        // A sandbox forbids the call.
        Err(_) => {
            // SAFETY: the caller's. It has to pass memory that is there.
            unsafe { to.copy_from(from, count) };
            Ok(())
        }
    }
}

/// Copies one value. `None` for a null pointer. Async-signal-safe.
///
/// # Errors
///
/// As [`copy`].
///
/// # Safety
///
/// As [`copy`].
pub(super) unsafe fn read<T: Copy>(from: *const T) -> Result<Option<T>, Errno> {
    if from.is_null() {
        return Ok(None);
    }
    let mut copied = MaybeUninit::uninit();
    // SAFETY: there is room for one. It is initialised if there is no error. Otherwise the caller's.
    unsafe {
        copy_to(copied.as_mut_ptr(), from, 1)?;
        Ok(Some(copied.assume_init()))
    }
}
