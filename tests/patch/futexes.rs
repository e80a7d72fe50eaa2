//! Futexes, as code that makes its own locks uses them.

use std::sync::atomic::{AtomicU32, Ordering};

use libc::{
    FUTEX_OP_CMP_EQ, FUTEX_OP_SET, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAKE_OP, SYS_futex, c_long,
};

use crate::util::on_workers;

/// Waits until the word is not zero.
fn wait(word: &AtomicU32) {
    while word.load(Ordering::SeqCst) == 0 {
        let (operation, forever) = (FUTEX_WAIT | FUTEX_PRIVATE_FLAG, std::ptr::null::<u8>());
        // SAFETY: the word is there, and the time is null.
        unsafe { libc::syscall(SYS_futex, word.as_ptr(), operation, 0, forever) };
    }
}

/// Wakes one waiter of `first`, sets `second` to one, and if it was zero wakes one waiter of that, too.
fn wake_first_and_set_second(first: &AtomicU32, second: &AtomicU32) -> c_long {
    let operation = FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG;
    let change = libc::FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0);
    let (first, second) = (first.as_ptr(), second.as_ptr());
    // SAFETY: both words are there.
    unsafe { libc::syscall(SYS_futex, first, operation, 1, 1_usize, second, change) }
}

/// If the wake-up came before the change, a coroutine would find its word as it was, and wait again.
#[test]
fn a_wake_up_that_changes_a_word_wakes_coroutines_at_both_words() {
    const ROUNDS: usize = 5000;

    let words = || [(); 3].map(|()| AtomicU32::new(0));
    let words: Vec<_> = std::iter::repeat_with(words).take(ROUNDS).collect();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for [waiting, first, second] in &words {
                while waiting.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                first.store(1, Ordering::SeqCst);
                assert!(wake_first_and_set_second(first, second) >= 0);
            }
        });
        on_workers(1, || {
            greenroom::scope(|s| {
                for index in [1, 2] {
                    let words = &words;
                    s.spawn(move || {
                        for round in words {
                            round[0].fetch_add(1, Ordering::SeqCst);
                            wait(&round[index]);
                        }
                    });
                }
            });
        });
    });
}
