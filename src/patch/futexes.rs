//! Futexes, on which std's locks are made, and other locks. They come by syscall(2).
//!
//! Coroutines wait in the parking lot of the shims' locks, OS threads in the kernel. A wake-up is for both:
//!
//! ```text
//! coroutine: count itself; lock the lot { look at the word; queue }; suspend
//! waker:     change the word; none counted -> kernel alone; otherwise lot and kernel, n in all
//! ```
//!
//! *No wake-up is lost*: see `counted.rs` for the look at the count, and `sync/lot.rs` for the lot.
//!
//! *Neither side starves.* Wake-ups begin with the lot and with the kernel by turns.
//!
//! *Another process* that wakes the waiters of a shared futex does not reach the lot. So a coroutine that waits for such
//! a futex looks at the word again after a pause.
//!
//! The waits are not interrupted, like those of the shims' locks. Waits with a bit set go to the kernel. So do those of the
//! runtime itself, for the locks below all this.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::{
    FUTEX_CLOCK_REALTIME, FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, timespec,
};

use super::counted::Counted;
use super::errno::{Errno, answer, result, untouched};
use super::identity::{self, Identity};
use super::original;
use super::time::{duration_of, now_of};
use super::types::{c_int, c_long};
use super::wait::{LONGEST_PAUSE, may_wait_in_lot};
use crate::sync::futex::{self, Waited};
use crate::task;

/// The coroutines that wait.
static WAITING: Counted = Counted::of(AtomicUsize::new(0));

pub(super) unsafe fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's.
    let original = |c| unsafe { original::syscall(number, a, b, c, d, e, f) };
    if number != libc::SYS_futex || !a.is_multiple_of(4) {
        return original(c);
    }
    let is_shared = b as c_int & FUTEX_PRIVATE_FLAG == 0;
    let operation = b as c_int & !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
    let is_any_bit = f as u32 == u32::MAX;
    match operation {
        FUTEX_WAKE => wake(a, c as c_int, original),
        FUTEX_WAKE_BITSET if is_any_bit => wake(a, c as c_int, original),
        // For a coroutine, these are spurious wake-ups, which every wait on a futex allows for.
        FUTEX_WAKE_BITSET | FUTEX_REQUEUE | FUTEX_CMP_REQUEUE => {
            wake_coroutines(a, usize::MAX);
            original(c)
        }
        FUTEX_WAKE_OP => {
            // First, because it changes the second word.
            let done = original(c);
            untouched(|| [a, e].map(|word| wake_coroutines(word, usize::MAX)));
            done
        }
        FUTEX_WAIT | FUTEX_WAIT_BITSET if task::on_coroutine() && may_wait_in_lot() => {
            // SAFETY: the caller's: null, or a valid time.
            let time = unsafe { (d as *const timespec).as_ref() };
            let left = match (time, operation) {
                (None, _) => Some(None),
                (Some(time), FUTEX_WAIT) => duration_of(time).map(Some),
                (Some(time), _) => left_until(time, b as c_int).map(Some),
            };
            match left {
                Some(left) if operation == FUTEX_WAIT || is_any_bit => {
                    // SAFETY: the caller's: the address of a word, which is aligned.
                    unsafe { wait(a, c as u32, left, is_shared, || original(c)) }
                }
                // Not a valid time, or a set of bits.
                _ => original(c),
            }
        }
        _ => original(c),
    }
}

/// How long it is until `time`, on the clock that the flags of the operation name. `None`, if the time is not valid.
fn left_until(time: &timespec, operation: c_int) -> Option<Duration> {
    let clock = match operation & FUTEX_CLOCK_REALTIME {
        0 => libc::CLOCK_MONOTONIC,
        _ => libc::CLOCK_REALTIME,
    };
    Some(duration_of(time)?.saturating_sub(now_of(clock)))
}

/// Waits for `left`, `None` for ever, if the word has the expected value. `is_shared` is whether other processes may end
/// the wait.
///
/// # Safety
///
/// `address` is that of an aligned word.
unsafe fn wait(
    address: usize,
    expected: u32,
    left: Option<Duration>,
    is_shared: bool,
    block: impl FnOnce() -> c_long,
) -> c_long {
    match identity::of_waiter(address, expected) {
        Identity::OfCoroutine => {}
        Identity::OfThread => identity::report_once(),
        Identity::InThread => {
            identity::report_once();
            return block();
        }
    }
    // SAFETY: the caller's.
    let word = unsafe { AtomicU32::from_ptr(address as *mut u32) };
    let deadline = left.and_then(|left| Instant::now().checked_add(left));
    let wait = || match is_shared {
        true => wait_by_looks(word, expected, deadline),
        false => futex::wait(word, expected, deadline),
    };
    answer(|| match WAITING.during(wait) {
        Waited::Woken => Ok(0),
        Waited::Changed => Err(Errno::AGAIN),
        Waited::TimedOut => Err(Errno::TIMEDOUT),
    })
}

/// Waits for a word that other processes may change.
fn wait_by_looks(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> Waited {
    loop {
        let next = Instant::now() + LONGEST_PAUSE;
        let is_last = deadline.is_some_and(|deadline| deadline <= next);
        let until = if is_last { deadline } else { Some(next) };
        match futex::wait(word, expected, until) {
            Waited::TimedOut if !is_last => {}
            waited => return waited,
        }
    }
}

/// Wakes `count` waiters, or one. `wake_threads` wakes so many of the kernel's.
fn wake(address: usize, count: c_int, wake_threads: impl Fn(usize) -> c_long) -> c_long {
    static TURN: AtomicU32 = AtomicU32::new(0);

    // The kernel wakes one waiter, too, if it is asked for none or for fewer.
    let count = count.max(1) as usize;
    // A lock of the lot is not waited for in the lot.
    if !WAITING.any() || futex::is_own_lock(address) {
        return wake_threads(count);
    }
    answer(|| {
        let threads = |count| result(wake_threads(count));
        let coroutines = |count| wake_coroutines(address, count) as c_long;
        if TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            let woken = threads(count)?;
            return Ok(woken + coroutines(count - woken as usize));
        }
        let woken = coroutines(count);
        match count - woken as usize {
            0 => Ok(woken),
            left => Ok(woken + threads(left)?),
        }
    })
}

/// Wakes at most `count` coroutines that wait at `address`. Returns how many.
fn wake_coroutines(address: usize, count: usize) -> usize {
    match count > 0 && WAITING.any() {
        true => futex::wake_at(address, count),
        false => 0,
    }
}
