//! The choice that every call into the shims makes: a coroutine parks, an OS thread blocks.
#![forbid(unsafe_code)]

use crate::task;

/// Calls `park` if the caller is a coroutine, and `block` if the caller is an OS thread.
///
/// Passes `lent` to the function that is called, so that both can use one mutable borrow.
#[inline(always)]
pub(super) fn park_or_block<A, R>(
    lent: A,
    park: impl FnOnce(A) -> R,
    block: impl FnOnce(A) -> R,
) -> R {
    match task::on_coroutine() {
        true => park(lent),
        false => block(lent),
    }
}
