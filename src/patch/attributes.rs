//! What the C library has noted in a lock when it was initialised.
//!
//! Where a lock has the note depends on the version of the C library, which mostly has no function that tells. So a lock
//! is compared with new ones of both kinds.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether the lock was initialised as the second of two kinds of locks, and not as the first. `initialise` makes a new
/// lock of a kind.
///
/// # Safety
///
/// The pointer is to a lock that was initialised as one of the two. `initialise` initialises a lock in memory for one.
pub(super) unsafe fn is_as_second<T, K>(
    lock: *mut T,
    kinds: [K; 2],
    initialise: impl Fn(*mut T, K),
) -> bool {
    const { assert!(align_of::<T>() >= align_of::<u32>() && size_of::<T>().is_multiple_of(4)) };
    let mut new = [(); 2].map(|()| MaybeUninit::<T>::zeroed());
    let [first, second] = new.each_mut().map(MaybeUninit::as_mut_ptr);
    for (new, kind) in [first, second].into_iter().zip(kinds) {
        initialise(new, kind);
    }
    (0..size_of::<T>() / 4).any(|index| {
        let [of_lock, of_first, of_second] = [lock, first, second].map(|lock| {
            // SAFETY: the word is in a lock, which is there, by the caller and above. Its bytes are initialised. Other
            // threads change it with atomic instructions only.
            unsafe { AtomicU32::from_ptr(lock.cast::<u32>().add(index)) }.load(Ordering::Relaxed)
        });
        let different = of_first ^ of_second;
        different != 0 && (of_lock ^ of_second) & different == 0
    })
}
